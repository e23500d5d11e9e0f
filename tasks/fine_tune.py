"""Stage 6 of 8: train the top of the backbone, or all of it, together with the head.

Reads models/head.npz, build/dataset.parquet and the store (or data/raw for what the store lost, and for the pixels
where all layers are trained); writes models/model.npz, reports/fine_tune.json and reports/fine_tune_curve.csv.
Until these are written, the last finished epoch is kept in build/fine_tune: after a kill the next run goes on there.
"""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from regraft.backbones.catalogue import Backbone, choose_backbone
from regraft.backbones.trunk import load_trunk
from regraft.config import Params
from regraft.features.extraction import Extractor
from regraft.features.feature_store import open_feature_store
from regraft.files import write_json
from regraft.photos.dataset import Dataset, read_dataset
from regraft.photos.images import Threads
from regraft.photos.views import Views, choose_views
from regraft.store import Namespace
from regraft.store.leases import store_in_use
from regraft.training.checkpoints import open_checkpoint
from regraft.training.devices import strategy
from regraft.training.fine_tune import FineTuned, facts_of, switched_off
from regraft.training.fine_tune import fine_tune as tune
from regraft.training.inputs import cached_activations, live_pixels, training_images
from regraft.training.keras_models import start_keras
from regraft.training.keras_network import build_network
from regraft.training.network_file import Head, Network, network_of, read_head, weights_of, write_network
from regraft.training.tables import write_curve
from regraft.training.training_loop import Plan
from tasks.progress import Progress
from tasks.stage import stage


@stage
def fine_tune(params: Params, progress: Progress) -> None:
    """Write the whole network: fine-tuned where a test on val speaks for it, else with the backbone as it was."""
    settings, paths = params.fine_tune, params.paths
    head = read_head(paths.head)
    result, network = switched_off(settings, params.train_head.class_weight), Network("head", head, {})
    if settings.mode != "off":
        result, network = _tuned(head, params, progress)
    write_network(paths.model, network)
    write_json(paths.reports / "fine_tune.json", result.as_report())
    write_curve(paths.reports / "fine_tune_curve.csv", result.curve)
    print(f"fine_tune: {result.reason}")
    shutil.rmtree(_checkpoints(params), ignore_errors=True)  # also what trainings left that were given up


def _tuned(head: Head, params: Params, progress: Progress) -> tuple[FineTuned, Network]:
    """Return what came of fine-tuning, and the network that is used."""
    start_keras(params.seed)
    backbone, as_it_was = choose_backbone(params.backbone), Network("head", head, {})
    with strategy().scope():
        model = build_network(backbone, as_it_was)
        pretrained = weights_of(model)
        with store_in_use(params.paths.store, params.machine.shared_store):
            result = _train(model, backbone, params, progress)
        if not result.is_used:
            return result, as_it_was
        return result, network_of(model, head.settings, result.as_report()["trained"], pretrained)


def _train(model: Any, backbone: Backbone, params: Params, progress: Progress) -> FineTuned:
    paths = params.paths
    plan = Plan(params.fine_tune, params.train_head.class_weight, params.seed)
    dataset = read_dataset(paths.dataset, paths.raw).of("train", "val")
    views = choose_views(params.preprocess, image_size=backbone.image_size, count=params.cache_features.views)
    facts = facts_of(backbone, views, plan, files=[paths.head, paths.dataset])
    if plan.settings.layers == "all":
        inputs_of = partial(live_pixels, views=views, threads=Threads(params.machine.workers))
    else:
        activations = _activations(dataset, views, backbone, params, progress)
        facts["activations"] = activations.folder.name
        inputs_of = partial(cached_activations, activations=activations, views=views, seed=params.seed)
    epochs_done = progress("epochs")
    return tune(
        model,
        backbone.cut,
        training_images(dataset, inputs_of),
        plan,
        checkpoint=open_checkpoint(_checkpoints(params), facts),
        on_epoch=lambda epoch: epochs_done(epoch.epoch, plan.settings.epochs),
    )


def _activations(dataset: Dataset, views: Views, backbone: Backbone, params: Params, progress: Progress) -> Namespace:
    """Make sure that the store has them all: normally it does, but it may have been deleted or damaged since."""
    paths, machine = params.paths, params.machine
    trunk = load_trunk(backbone, paths.store / "graphs")
    store = open_feature_store(paths.store, trunk, shared=machine.shared_store)
    extractor = Extractor(views, trunk, store, machine)
    extractor.fill_store(dataset, activations="verified", on_progress=progress("views"))
    return store.activations


def _checkpoints(params: Params) -> Path:
    return params.paths.store.with_name("fine_tune")


if __name__ == "__main__":
    fine_tune.run()
