"""Stage 3 of 11: run the frozen backbone once over every image that the store does not hold.

Reads build/dataset.parquet and data/raw; writes build/features.arrow and reports/features.json. Where there are more
features than `_COPIED_ROWS`, the file only names rows of the store.
"""

import re
import sys
from configparser import ConfigParser, Error
from functools import partial
from pathlib import Path

from regraft.backbones.catalogue import choose_backbone
from regraft.core.config import Params
from regraft.core.errors import RegraftError
from regraft.core.files import md5_of, write_json
from regraft.features.extraction import Extractor
from regraft.features.forward_passes import load_stored_trunk, open_feature_store
from regraft.features.recomputing import Recomputing, take_known
from regraft.features.table import write_features, write_named_features
from regraft.photos.dataset import read_dataset
from regraft.photos.elsewhere import elsewhere_of
from regraft.photos.sample import training_sample
from regraft.photos.views import choose_views
from regraft.store.leases import store_in_use
from regraft.store.uses import record_use
from tasks.chosen_cluster import chosen_cluster
from tasks.locked import read_locked
from tasks.progress import Progress
from tasks.stage import stage

# features.arrow holds the features of at most so many views, 5 kB each; of more it names rows of the store, 81 bytes
# each, which clones get by machine.shared_store alone.
_COPIED_ROWS = 100_000


@stage
def cache_features(params: Params, progress: Progress) -> None:
    """Write the pooled features of every image; an image seen before costs a read, not a forward pass."""
    paths, machine = params.paths, params.machine
    elsewhere = elsewhere_of(params)
    dataset = read_dataset(paths.dataset, paths.raw, elsewhere)
    backbone = choose_backbone(params.backbone)
    views = choose_views(params.preprocess, image_size=backbone.image_size, count=params.cache_features.views)
    trunk = load_stored_trunk(backbone, paths.store, shared=machine.shared_store)
    fine_tuned = training_sample(dataset, params.fine_tune.max_photos)
    needs_activations = params.fine_tune.mode != "off" and params.fine_tune.layers != "all"
    with store_in_use(paths.store, machine.shared_store):
        store = open_feature_store(paths.store, trunk, shared=machine.shared_store, mirror=machine.shared_mirror)
        extractor = Extractor(views, trunk, store, machine, chosen_cluster(machine))
        keys = extractor.keys(dataset)
        taken, again = take_known(store.features, keys, set(dataset.rows.digest), partial(former_features, params))
        if again:
            tell_or_stop(again, may_go_on=machine.allow_recompute)
        if needs_activations and (lost := extractor.lost_activations(dataset, set(fine_tuned.rows.digest))):
            tell_or_stop(lost, may_go_on=True)
            again = again or lost
        before = {"from_features_file": taken, "computed_again": again and again.as_report()}
        receipt = extractor.fill_store(
            dataset,
            activations="stored" if needs_activations else "none",
            activations_of=set(fine_tuned.rows.digest),
            on_progress=progress("views"),
        )
        # A matter of data and settings alone: the file has the same bytes whoever computed what is in the store.
        are_copied = receipt.rows <= _COPIED_ROWS
        (write_features if are_copied else write_named_features)(paths.features, extractor, dataset)
        record_use(
            paths.store,
            md5_of(paths.features),
            [store.features, store.activations],
            keys,
            shared=machine.shared_store,
        )
    write_json(paths.reports / "features.json", receipt.as_report() | before | elsewhere.fetches.as_report())


def former_features(params: Params) -> list[Path]:
    """Return where the features of the run before are: DVC removes the file first, and has it in its cache."""
    path = params.paths.features
    written = read_locked().get("cache_features", {}).get("writes", {}).get(path.as_posix(), {})
    md5 = written.get("md5") or ""
    found = [path, _cache() / "files" / "md5" / md5[:2] / md5[2:]] if re.fullmatch("[0-9a-f]{32}", md5) else [path]
    return [each for each in found if each.is_file()]


def _cache() -> Path:
    """Return where DVC keeps versions of files; a stage does not know DVC, and only saves work by this."""
    settings = ConfigParser(interpolation=None)
    try:
        settings.read([".dvc/config", ".dvc/config.local"], encoding="utf-8")
    except (Error, OSError, UnicodeDecodeError):
        return Path(".dvc", "cache")
    return Path(".dvc", settings.get("cache", "dir", fallback="cache")).absolute()


def tell_or_stop(again: Recomputing, *, may_go_on: bool) -> None:
    """Say that something is computed again, or raise RegraftError where that is not allowed."""
    if not may_go_on:
        raise RegraftError(
            f"{again.words} Nothing is computed now, because the setting machine.allow_recompute is false: set it "
            "to true, or go back to what computed them."
        )
    print(again.words, file=sys.stderr)


if __name__ == "__main__":
    cache_features.run()
