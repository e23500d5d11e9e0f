"""Is there room on the disks for what a stage will write? Asked before it starts, so that no night ends half done.

What is needed is estimated as what was written last, and a tenth more. Where that was too little, and the disk is
full in the middle, the stage says so as well, and loses nothing. Rows of the store are not counted here. The stage
that computes them knows which are missing, and asks itself (`regraft.features.extraction`).
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from regraft.core.config import Params
from regraft.core.errors import RegraftError
from regraft.core.files import free_bytes, nearest, readable_bytes
from tasks.dvc_files import data_version, read_locked

DATA = "record_data"  # a step that is no stage, and writes as well
_MARGIN, _SLACK = 1.1, 2_000_000  # results grow with the photos, and logs and temporary files come on top
# Of each of these that never ran here.
_LARGE, _UNKNOWN = ("cache_features", "train_base", "fine_tune", "export_onnx", "quantise"), 20_000_000
_CHECKPOINTS = {"top": 1, "all": 4}  # times the size of the model: what is kept of a training, and its next version

_Needs = list[tuple[Path, float]]  # folders, and bytes that will come into each


def check_room(root: Path, params: Params, step: str) -> None:
    """Raise RegraftError if a disk has less room than a step of a run needs.

    Args:
        root: of the project.
        params: its settings.
        step: a stage of dvc.yaml, or `DATA`.
    """
    written = list(_written(root, params, step))
    cache = _cache_folder(root)
    kept = sum(size for _, size in written) if step != DATA else _new_data(root / params.paths.raw, params)
    short = _too_small([*written, (cache, kept)] if cache else written)
    if short and cache and _shares_files(root, cache):
        short = _too_small(written)
    if short:
        folder, needed, free = short
        raise RegraftError(
            f"{step} needs about {readable_bytes(needed)} in {_short(folder, root)}, and {readable_bytes(free)} are "
            f"free: there is no room for it. Free some by `regraft store --gc 10` or `dvc gc --workspace`, "
            f"and run the same command again: what was finished before is kept."
        )


def _written(root: Path, params: Params, step: str) -> Iterator[tuple[Path, float]]:
    """What comes into the project's own folders."""
    if step == DATA:
        return
    paths = params.paths
    outs = read_locked().get(step, {}).get("writes", {})
    for name, out in outs.items():
        yield (root / name).parent, out["size"] or 0
    if not outs and step in _LARGE:
        yield root / paths.features.parent, _UNKNOWN
    network = {"train_base": paths.base, "fine_tune": paths.model}.get(step)
    if network:
        model = outs.get(network.as_posix(), {}).get("size") or 0
        yield root / paths.features.parent, model * _CHECKPOINTS.get(params.fine_tune.layers, 1)


def _new_data(raw: Path, params: Params) -> float:
    """Bytes of photos that DVC does not have yet, at least.

    Copies are kept once, and copies have one size: so of files of one size, one is counted. Where nothing is recorded
    of the folder, DVC may have any of it.
    """
    from regraft.photos.listing import list_folder

    recorded = data_version(params)
    if not recorded:
        return 0
    try:
        sizes = {stamp.size for stamp in list_folder(raw).values()}
    except RegraftError:  # the step itself says what is wrong with the folder
        return 0
    return max(0, sum(sizes) - (recorded["size"] or 0))


def _too_small(needs: _Needs) -> tuple[Path, float, int] | None:
    """Return a folder whose disk has too little room, what is needed and what is free; several may share a disk."""
    disks: dict[int, tuple[Path, float]] = {}
    for folder, size in sorted(needs, key=lambda need: need[1]):
        device = nearest(folder).stat().st_dev
        disks[device] = folder, disks.get(device, (folder, 0.0))[1] + size
    for folder, size in disks.values():
        needed, free = size * _MARGIN + (_SLACK if size else 0), free_bytes(folder)
        if free < needed:
            return folder, needed, free
    return None


def _cache_folder(root: Path) -> Path | None:
    """Where DVC keeps a copy of each result; None for a stage that is run without DVC, and where DVC says why not."""
    if "dvc" not in sys.modules:
        return None
    from dvc.config import Config, ConfigError

    try:
        return Path(Config(str(root / ".dvc"))["cache"].get("dir") or root / ".dvc" / "cache")
    except ConfigError:
        return None


def _shares_files(root: Path, cache: Path) -> bool:
    """Whether a file in DVC's cache and in the project takes its room once: the file system can, and DVC lets it."""
    from dvc.config import Config
    from dvc.fs import localfs
    from dvc_objects.fs.generic import test_links

    types = Config(str(root / ".dvc"))["cache"].get("type") or ["reflink", "copy"]
    try:
        possible = test_links(types, localfs, str(cache), localfs, str(root / "build" / "link"))
    except OSError:  # there is no room even for a test
        return False
    return bool(possible) and possible[0] != "copy"


def _short(folder: Path, root: Path) -> Path:
    return folder.relative_to(root) if folder.is_relative_to(root) else folder
