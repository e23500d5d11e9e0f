"""The shared root: a copy of the store that several machines fill and read, at any address that fsspec knows.

The local folder is then this machine's copy of it. A shard that is only here is named `<name>.arrow`; once it was sent
it is `<name>.sent.arrow`, so that a shard that the shared root no longer has can be told from one it does not have yet.
Names are random and shards never change: two processes that send the same one write the same bytes.
"""

import errno
import posixpath
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from regraft.errors import RegraftError
from regraft.files import replacing
from regraft.store.shards import SENT, name_of, set_aside, shard_paths

_CONNECTIONS = 4
# An object appears here whole or not at all. Elsewhere it is written to a temporary name first, as on a disk.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "memory"}


class Remote:
    """Files below an fsspec URL, by names relative to it. Credentials come from the environment."""

    def __init__(self, url: str) -> None:
        self.url = url
        with self._reaching():
            import fsspec

            # What other machines write has to be seen, so no listing is remembered.
            self._files, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        self._is_object_store = url.partition("://")[0] in _OBJECT_STORES

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return the files of a folder, by name, with their sizes; a folder that is not there has none."""
        return {name: size for name, (kind, size) in self._entries(folder).items() if kind == "file"}

    def folders(self) -> list[str]:
        """Return the names of the folders at the top."""
        return [name for name, (kind, _) in self._entries("").items() if kind == "directory"]

    def read(self, name: str) -> bytes | None:
        """Return a small file's contents, or None if it is not there."""
        with self._reaching():
            try:
                return self._files.cat_file(self._path(name))
            except FileNotFoundError:
                return None

    def write(self, name: str, contents: bytes) -> None:
        """Write a small file whole."""
        self._put(name, lambda path: self._files.pipe_file(path, contents))

    def send(self, source: Path, name: str) -> None:
        """Copy a local file to the shared root."""
        self._put(name, lambda path: self._files.put_file(str(source), path))

    def fetch(self, name: str, target: Path) -> None:
        """Copy a file to a local one; FileNotFoundError if it is not there any more."""
        with self._reaching(absent_is_fine=True):
            self._files.get_file(self._path(name), str(target))

    def remove(self, name: str) -> None:
        """Remove a file that may be gone already."""
        with self._reaching(), suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def remove_folder(self, name: str) -> None:
        """Remove a folder with everything in it."""
        with self._reaching(), suppress(FileNotFoundError):
            self._files.rm(self._path(name), recursive=True)

    def rename(self, name: str, other: str) -> None:
        """Rename a file that may be gone already."""
        with self._reaching(), suppress(FileNotFoundError):
            self._files.mv(self._path(name), self._path(other))

    def _entries(self, folder: str) -> dict[str, tuple[str, int]]:
        with self._reaching():
            try:
                entries: list[dict[str, Any]] = self._files.ls(self._path(folder), detail=True)
            except FileNotFoundError:
                return {}
        return {posixpath.basename(entry["name"].rstrip("/")): (entry["type"], entry["size"]) for entry in entries}

    def _put(self, name: str, put: Callable[[str], object]) -> None:
        path = self._path(name)
        with self._reaching():
            if self._is_object_store:
                put(path)
                return
            folder, _, file = path.rpartition("/")
            temporary = f"{folder}/.{file}.{uuid.uuid4().hex[:8]}.tmp"
            self._files.makedirs(folder, exist_ok=True)
            put(temporary)
            self._files.mv(temporary, path)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}".rstrip("/")

    @contextmanager
    def _reaching(self, *, absent_is_fine: bool = False) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # every kind of store has exceptions of its own
            is_local = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            if is_local or (absent_is_fine and isinstance(error, FileNotFoundError)):
                raise
            cause = " ".join(str(error).split()) or type(error).__name__
            raise RegraftError(
                f"The shared store {self.url} cannot be reached: {cause}. "
                "Rows that were computed are kept in the local folder and sent by the next run. Check the network and "
                "the credentials in the environment, or set machine.shared_store in params.yaml to null to work "
                "without it."
            ) from error


def synchronise(folder: Path, remote: Remote, check: Callable[[Path], None], unusable: set[str]) -> bool:
    """Make the shards in a namespace's folder those of the shared root, after sending what is only here.

    Another process may be about to send the same shard: it has the same name and the same bytes then.

    Args:
        folder: of the namespace; namespace.json is in it.
        remote: the shared root.
        check: reads a shard; ValueError if anything in it is damaged.
        unusable: names of shards to leave alone; those found damaged are added.

    Returns:
        Whether a shard vanished meanwhile: it was merged into one that the next call fetches.
    """
    # In this order: what is marked as sent before the shared root is listed must be in that listing, unless it was
    # collected or merged there.
    here = {name_of(path): path for path in shard_paths(folder)}
    there = {name_of(Path(name)): size for name, size in remote.sizes(folder.name).items() if name.endswith(".arrow")}
    for name, path in here.items():
        if name not in unusable:
            try:
                _settle(path, remote, there.get(name), check)
            except FileNotFoundError:
                continue  # another process sent it meanwhile, or removed it
            except ValueError:
                unusable.add(name)
                set_aside(path)
    absent = sorted(there.keys() - {name_of(path) for path in shard_paths(folder)} - unusable)
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        outcomes = dict(zip(absent, pool.map(lambda name: _fetch(folder, name, remote, check), absent), strict=True))
    unusable.update(name for name, outcome in outcomes.items() if outcome == "damaged")
    return "vanished" in outcomes.values()


def send(path: Path, remote: Remote) -> Path:
    """Send a shard to the shared root, with its namespace's description, and return its new path here."""
    remote.send(path.parent / "namespace.json", f"{path.parent.name}/namespace.json")
    try:
        remote.send(path, f"{path.parent.name}/{name_of(path)}.arrow")
    except RegraftError:
        if path.exists():
            raise
        # else another process has sent and renamed it
    return _mark_as_sent(path)


def _mark_as_sent(path: Path) -> Path:
    sent = path.with_name(name_of(path) + SENT)
    with suppress(FileNotFoundError):  # another process has done so too
        path.rename(sent)
    return sent


def _settle(path: Path, remote: Remote, size: int | None, check: Callable[[Path], None]) -> None:
    """Drop, send or mark one shard, given its size in the shared root."""
    is_there = size == path.stat().st_size
    if path.name.endswith(SENT):
        if not is_there:
            path.unlink()
    elif is_there:
        _mark_as_sent(path)
    else:
        check(path)  # nothing damaged is handed on to other machines
        send(path, remote)


def _fetch(folder: Path, name: str, remote: Remote, check: Callable[[Path], None]) -> str:
    """Fetch one shard, a second time if it arrives damaged; return "here", "vanished" or "damaged"."""
    address, target = f"{folder.name}/{name}.arrow", folder / f"{name}{SENT}"
    for _ in range(2):
        try:
            with replacing(target) as temporary:
                remote.fetch(address, temporary)
                check(temporary)
            return "here"
        except FileNotFoundError:
            return "vanished"
        except ValueError:
            continue
    remote.rename(address, f"{folder.name}/{name}.damaged")
    print(
        f"{remote.url}/{address} is damaged. It is kept as {name}.damaged, and its rows are computed again.",
        file=sys.stderr,
    )
    return "damaged"
