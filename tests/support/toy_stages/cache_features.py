"""Toy stage: the real store, filled by the toy's backbone."""

from regraft.core.config import Params
from regraft.core.files import md5_of, write_json
from regraft.features.table import write_features
from regraft.photos.dataset import read_dataset
from regraft.store.leases import store_in_use
from regraft.store.uses import record_use
from tasks.progress import Progress
from tasks.stage import stage

from .toy_parts import extractor_of, obey


@stage
def cache_features(params: Params, progress: Progress) -> None:
    """Write the features of every view."""
    obey("cache_features", "begin")
    paths = params.paths
    dataset = read_dataset(paths.dataset, paths.raw)
    with store_in_use(paths.store, None):
        extractor = extractor_of(params)
        receipt = extractor.fill_store(dataset, activations="none", on_progress=progress("views"))
        write_features(paths.features, extractor, dataset)
        store = extractor.store
        record_use(paths.store, md5_of(paths.features), [store.features], extractor.keys(dataset), shared=None)
    write_json(paths.reports / "features.json", {"rows": receipt.rows})
    obey("cache_features", "end")


if __name__ == "__main__":
    cache_features.run()
