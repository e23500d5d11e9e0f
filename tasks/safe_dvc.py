"""Changes to DVC, for the sake of kills and of other users of the machine, wherever this project runs DVC.

1. DVC writes dvc.lock, *.dvc and its table of running commands in place: it empties the file, and then writes for up to
   a tenth of a second. After a kill in between no later command worked. They are replaced at once. An entry of the
   table counts only while its command runs: another process may have its number, always so in a container.
2. DVC remembers hashes in pickles below /var/tmp, where every user may write. They lie in the project, for its owner.
3. A folder with `.dvc` in it is another project for DVC, which looks away: it never saw the photos. It is none here.

regraft_dvc.pth (setup.py) runs this file at the start of every `dvc` command of the environment that Regraft is
installed in. So it stands alone: no import of this project, none of DVC before it is called.
"""

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

SITE_CACHE = ".dvc-site"  # as in .dvc/config, which is for a `dvc` of another environment


def make_safe() -> None:
    """Change DVC in this process; a second call changes nothing."""
    import dvc.dirs
    import dvc.rwlock
    from dvc.fs import localfs
    from dvc.ignore import DvcIgnoreFilter
    from dvc.utils.serialize import _common, _yaml

    look_away = DvcIgnoreFilter._update_sub_repo
    dump_data, edit_rwlock, site_cache_dir = _common._dump_data, dvc.rwlock._edit_rwlock, dvc.dirs.site_cache_dir
    if hasattr(dump_data, "is_safe"):
        return

    def dump_data_at_once(path: Any, data: Any, dumper: Any, fs: Any = None, **options: Any) -> None:
        dump_data(path, data, dumper, fs=_Replacing(fs or localfs), **options)

    def edit_rwlock_at_once(lock_dir: str, fs: Any, hardlink: bool) -> Any:
        return edit_rwlock(lock_dir, _Table(fs), hardlink)

    def site_cache_in_project(configured: str | None = None) -> str:
        if os.environ.get("DVC_SITE_CACHE_DIR") or Path(configured or "").is_absolute():
            return site_cache_dir(configured)
        return _owners_folder(_project() / (configured or SITE_CACHE))

    def look_away_elsewhere(self: Any, path: str, ignore_trie: Any) -> None:
        if not Path(self.root_dir, "tasks", "safe_dvc.py").exists():
            look_away(self, path, ignore_trie)

    dump_data_at_once.is_safe = True  # type: ignore[attr-defined]
    _common._dump_data = _yaml._dump_data = dump_data_at_once
    dvc.rwlock._edit_rwlock = edit_rwlock_at_once
    dvc.dirs.site_cache_dir = site_cache_in_project
    DvcIgnoreFilter._update_sub_repo = look_away_elsewhere


class _Replacing:
    """DVC's file system, except that a file opened to be written anew takes the old one's place when it is closed."""

    def __init__(self, fs: Any) -> None:
        self._fs = fs
        self.join = fs.join

    def open(self, path: Any, mode: str = "r", **options: Any) -> Any:
        if mode not in ("w", "w+"):
            return self._fs.open(path, mode, **options)
        return _replacing(Path(path).resolve(), options)


class _Table(_Replacing):
    """The same for the table of running commands; those that were killed are not in it, and a damaged one is empty."""

    def open(self, path: Any, mode: str = "r", **options: Any) -> Any:
        return super().open(path, mode, **options) if mode == "w" else io.StringIO(json.dumps(_running(Path(path))))


def _running(path: Path) -> dict[str, Any]:
    """Return the entries of DVC's table whose process runs: who writes a path, and who reads it."""
    changed = path.stat().st_mtime
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        writes, reads = table.get("write", {}), table.get("read", {})
        write = {name: entry for name, entry in writes.items() if _runs(entry, changed)}
        read = {name: [entry for entry in entries if _runs(entry, changed)] for name, entries in reads.items()}
    except (ValueError, AttributeError, TypeError, KeyError):
        return {}
    return {"write": write, "read": {name: entries for name, entries in read.items() if entries}}


def _runs(entry: dict[str, Any], changed: float) -> bool:
    import psutil

    try:
        process = psutil.Process(entry["pid"])
        # The time of its start is exact to a second. Nobody may have taken note of its end, as in many a container.
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() < changed + 2
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


@contextmanager
def _replacing(path: Path, options: dict[str, Any]) -> Iterator[IO[str]]:
    # One process writes at a time, DVC's locks see to that: what a killed one left is removed, and so is a link that
    # somebody put there. The suffix is none that DVC knows, or it would take a leftover beside data/raw.dvc for one
    # more data folder.
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        with temporary.open("x", **options) as file:
            if path.exists():
                temporary.chmod(path.stat().st_mode & 0o777)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _project() -> Path:
    """Return the project that DVC works in: the nearest folder, from the current one up, that is set up for it."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir()), here)


def _owners_folder(folder: Path) -> str:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (ignore := folder / ".gitignore").exists():
        ignore.write_text("*\n")
    if folder.stat().st_uid == os.geteuid():
        folder.chmod(0o700)
    return str(folder)
