"""Stage 5 of 7: train the top of the backbone together with the head, from the activations at the cut.

Reads models/head.keras, build/dataset.parquet and the store (or data/raw for what the store lost); writes
models/model.keras, reports/fine_tune.json, reports/fine_tune_curve.csv and .png.
"""

from typing import Any

from regraft.backbones import Backbone, choose_backbone
from regraft.config import Params
from regraft.dataset import read_dataset
from regraft.extraction import extract_missing, open_feature_store
from regraft.files import write_json
from regraft.finetune import NOT_FINE_TUNED, FineTuned, join
from regraft.finetune import fine_tune as tune
from regraft.networks import load_model, save_model, start_keras
from regraft.plots import write_curve
from regraft.store.leases import store_in_use
from regraft.trunk import load_trunk
from regraft.views import choose_views
from tasks.stage import Progress, stage


@stage
def fine_tune(params: Params, progress: Progress) -> None:
    """Write the whole network: fine-tuned where that is better on val, else with the backbone as it was."""
    settings, paths, machine = params.fine_tune, params.paths, params.machine
    start_keras(params.seed)
    backbone = choose_backbone(params.backbone)
    model = join(backbone, load_model(paths.head))
    if settings.mode == "off":
        result = NOT_FINE_TUNED
    else:
        with store_in_use(paths.store, machine.shared_store):
            result = _train(model, backbone, params, progress)
        if not result.is_kept:
            model = join(backbone, load_model(paths.head))
    save_model(paths.model, model)
    write_json(paths.reports / "fine_tune.json", result.as_report())
    write_curve(
        paths.reports / "fine_tune_curve.csv", result.curve, result.best, title="Fine-tuning; epoch 0 is the head alone"
    )


def _train(model: Any, backbone: Backbone, params: Params, progress: Progress) -> FineTuned:
    settings, paths, machine = params.fine_tune, params.paths, params.machine
    dataset = read_dataset(paths.dataset).of("train", "val")
    views = choose_views(params.preprocess, image_size=backbone.image_size, count=params.cache_features.views)
    trunk = load_trunk(backbone, paths.store / "graphs")
    store = open_feature_store(paths.store, trunk, shared=machine.shared_store)
    # Normally there is nothing to do: the store may have been deleted or damaged since the features were cached.
    extract_missing(
        dataset,
        paths.raw,
        views,
        trunk,
        store,
        with_activations=True,
        verify_activations=True,
        batch_size=machine.batch_size,
        workers=machine.workers,
        on_progress=progress("views"),
    )
    epochs_done = progress("epochs")
    return tune(
        model,
        backbone.cut,
        dataset,
        store.activations,
        views,
        settings,
        seed=params.seed,
        on_epoch=lambda epoch: epochs_done(epoch.epoch, settings.epochs),
    )


if __name__ == "__main__":
    fine_tune.run()
