"""Looking after facts of contents: what there is, what goes, and few files instead of many.

Single rows do not go: a photo takes some hundred bytes, and which photos a project still has is not known here. What
goes is the folder of a fingerprint: a decoder, or a limit of pixels, that no run of any project uses any more.
"""

import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from regraft.core.files import readable_bytes
from regraft.store.fact_files import FOLDER, merge, names_in
from regraft.store.leases import StoreUse
from regraft.store.names import FACTS_USED, is_facts, is_facts_folder, is_half_sent, writer_of
from regraft.store.remote import Remote

_DAY = 86_400


def list_facts(root: Path, remote: Remote | None) -> None:
    """Print a line per fingerprint and place."""
    for name in _folders(root, remote):
        here = [(root / name / file).stat().st_size for file in names_in(root / name)]
        if here:
            print(f"{name:30} {len(here):5} files {readable_bytes(sum(here)):>10}  what decoders said of photos")
        if remote:
            there = [size for file, size in remote.sizes(name).items() if is_facts(file)]
            print(f"{name:30} in {remote.shown}: {len(there)} files {readable_bytes(sum(there))}")


def collect_facts(use: StoreUse, in_use: Collection[str], stale_days: float, *, really: bool) -> int:
    """Remove what other decoders said and nobody has used for many days, and say so; return the bytes.

    Args:
        use: of the store, alone.
        in_use: the folders whose facts stay, as `Facts.name`.
        stale_days: after so many days without use nobody needs the rest.
        really: False only says what would be removed.
    """
    freed = 0
    for name in _folders(use.root, use.remote):
        here, there = names_in(use.root / name), use.remote.sizes(name) if use.remote else {}
        files = {*here, *filter(is_facts, there), FACTS_USED}
        if name not in in_use and _idle_seconds(use, name, files) > stale_days * _DAY:
            size = sum(there[file] if file in there else _size(use.root / name / file) for file in files)
            print(f"{name}: all of it, {readable_bytes(size)}: no run uses this decoder any more.")
            freed += size
            if really:
                _remove(use, name, files)
        if really:
            _sweep(use, name)
    return freed


def merge_facts(root: Path, remote: Remote | None) -> None:
    """Make one file of the small ones of each fingerprint, and say so."""
    for name in _folders(root, remote):
        before, after = merge(root / name, remote, name, many=1)
        if before != after:
            print(f"{name}: {before} files before, {after} now.")


def _folders(root: Path, remote: Remote | None) -> list[str]:
    """Return the folders of all fingerprints, relative to the root."""
    here = {path.name for path in (root / FOLDER).iterdir() if path.is_dir()} if (root / FOLDER).is_dir() else set()
    names = here | set(remote.folders(FOLDER) if remote else ())
    return [folder for name in sorted(names) if is_facts_folder(folder := f"{FOLDER}/{name}")]


def _idle_seconds(use: StoreUse, name: str, files: Collection[str]) -> float:
    """Return for how long nobody has added to a folder or used it; a file that is gone again says nothing."""
    ages = [age for file in files if (age := use.age(f"{name}/{file}")) is not None]
    return min(ages, default=0.0)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # merged by a run just now
        return 0


def _remove(use: StoreUse, name: str, files: Collection[str]) -> None:
    for file in files:
        (use.root / name / file).unlink(missing_ok=True)
        if use.remote:
            use.remote.remove(f"{name}/{file}")


def _sweep(use: StoreUse, name: str) -> None:
    """Remove what writers left that were killed, and the folder if nothing else is in it; a scan has no lease."""
    folder = use.root / name
    for path in folder.iterdir() if folder.is_dir() else ():
        with suppress(OSError):
            if writer_of(name, path.name) is not None and time.time() - path.lstat().st_mtime > _DAY:
                path.unlink()
    with suppress(OSError):
        folder.rmdir()
    if use.remote:
        for file in use.remote.sizes(name):
            if is_half_sent(name, file) and (use.age(f"{name}/{file}", here=False) or 0.0) > _DAY:
                use.remote.remove(f"{name}/{file}")
        use.remote.remove_empty(name)
