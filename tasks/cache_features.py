"""Stage 3 of 7: run the frozen backbone once over every image that the store does not hold.

Reads build/dataset.parquet and data/raw; writes build/features.arrow and reports/features.json.
"""

from regraft.backbones import choose_backbone
from regraft.config import Params
from regraft.dataset import read_dataset
from regraft.extraction import extract_missing, open_feature_store
from regraft.features import write_features
from regraft.files import write_json
from regraft.preparation import Preparation
from regraft.trunk import load_trunk
from tasks.stage import Progress, stage


@stage
def cache_features(params: Params, progress: Progress) -> None:
    """Write the pooled features of every image; an image seen before costs a read, not a forward pass."""
    paths, machine = params.paths, params.machine
    dataset = read_dataset(paths.dataset)
    backbone = choose_backbone(params.backbone)
    preparation = Preparation(backbone.image_size, params.preprocess.crop_fraction)
    trunk = load_trunk(backbone, paths.store / "graphs", threads=machine.workers)
    store = open_feature_store(paths.store, trunk, preparation, shared=machine.shared_store)
    receipt = extract_missing(
        dataset,
        paths.raw,
        preparation,
        trunk,
        store,
        with_activations=params.fine_tune.mode != "off",
        batch_size=machine.batch_size,
        workers=machine.workers,
        on_progress=progress("images"),
    )
    write_features(paths.features, store.features, dataset)
    write_json(paths.reports / "features.json", receipt.as_report())


if __name__ == "__main__":
    cache_features.run()
