"""Stage 3 of 11: run the frozen backbone once over every image that the store does not hold.

Reads build/dataset.parquet and data/raw; writes build/features.arrow and reports/features.json. Where there are more
features than `_COPIED_ROWS`, the file only names rows of the store.
"""

import re
import sys
from configparser import ConfigParser, Error
from pathlib import Path

from regraft.core.config import Params
from regraft.core.errors import RegraftError
from regraft.core.files import md5_of, write_json
from regraft.features.extraction import Extractor, Recomputing
from regraft.features.table import write_features
from regraft.photos.dataset import Dataset
from regraft.store.uses import record_use
from tasks.dvc_files import read_locked
from tasks.progress import Progress
from tasks.stage import stage
from tasks.stage_inputs import StageInputs

# features.arrow holds the features of at most so many views, 5 kB each; of more it names rows of the store, 81 bytes
# each, which clones get by machine.shared_store alone.
_COPIED_ROWS = 100_000


@stage
def cache_features(params: Params, progress: Progress) -> None:
    """Write the pooled features of every image; an image seen before costs a read, not a forward pass."""
    inputs = StageInputs(params, progress)
    paths, machine, dataset = params.paths, params.machine, inputs.dataset
    needs_activations = params.fine_tune.mode != "off" and params.fine_tune.layers != "all"
    fine_tuned = set(inputs.fine_tuned.rows.digest)
    with inputs.store_in_use():
        extractor = inputs.extractor
        store, keys = extractor.store, extractor.keys(dataset)
        before = _known(extractor, dataset, params, fine_tuned if needs_activations else None)
        receipt = extractor.fill_store(
            dataset,
            activations="stored" if needs_activations else "none",
            activations_of=fine_tuned,
            on_progress=progress("views"),
        )
        # A matter of data and settings alone: the file has the same bytes whoever computed what is in the store.
        write_features(paths.features, extractor, dataset, is_named=receipt.rows > _COPIED_ROWS)
        version, namespaces = md5_of(paths.features), [store.features, store.activations]
        record_use(paths.store, version, namespaces, keys, shared=machine.shared_store)
    write_json(paths.reports / "features.json", receipt.as_report() | before | inputs.fetcher.fetches.as_report())


def _known(extractor: Extractor, dataset: Dataset, params: Params, fine_tuned: set[str] | None) -> dict[str, object]:
    """Take what the run before computed; return what to report of it, and of what is computed again."""
    taken, again = extractor.take_known(dataset, lambda: former_features(params))
    if again:
        tell_or_stop(again, may_go_on=params.machine.allow_recompute)
    if fine_tuned is not None and (lost := extractor.lost_activations(dataset, fine_tuned)):
        tell_or_stop(lost, may_go_on=True)
        again = again or lost
    return {"from_features_file": taken, "computed_again": again and again.as_report()}


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
