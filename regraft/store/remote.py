"""The shared root: a copy of the store that several machines fill and read, at any address that fsspec knows."""

import errno
import hashlib
import posixpath
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from regraft.core.addresses import EXPECTED, is_address, named, shown
from regraft.core.errors import RegraftError

# An object appears here whole or not at all. Elsewhere it is written to a temporary name first, as on a disk.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "memory"}


class Remote:
    """Files below an address, by names relative to it.

    Credentials come from the environment, or from the files of fsspec's configuration. Neither they nor the folder are
    in any message: what the libraries say of an error may hold addresses, signed queries and headers, so an error is
    named by its kind alone.
    """

    # For messages: what is there, and what to do where it cannot be reached.
    kind = "shared store"
    advice = (
        "Rows that were computed are kept in the local folder and sent by the next run. Check the network and the "
        "credentials in the environment, or set machine.shared_store in params.yaml to null to work without it."
    )

    def __init__(self, address: str) -> None:
        """Take an address; RegraftError if it is none that is taken, or nothing here can reach it."""
        self.shown = shown(address)
        if not is_address(address):
            raise RegraftError(f"The address of the {self.kind} must be {EXPECTED}. Received: {self.shown}.")
        self.digest = hashlib.sha256(address.encode()).hexdigest()
        with self._reaching():
            self._files, self._root = self._opened(address)
        self._is_object_store = address.partition("://")[0] in _OBJECT_STORES

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return the files of a folder, by name, with their sizes; a folder that is not there has none."""
        return {name: size for name, (kind, size) in self._entries(folder).items() if kind == "file"}

    def folders(self, folder: str = "") -> list[str]:
        """Return the names of the folders at the top, or in a folder."""
        return [name for name, (kind, _) in self._entries(folder).items() if kind == "directory"]

    def read(self, name: str) -> bytes | None:
        """Return a small file's contents, or None if it is not there."""
        with self._reaching():
            try:
                return self._files.cat_file(self._path(name))
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return None

    def read_range(self, name: str, start: int, stop: int) -> bytes | None:
        """Return the bytes of a file from one place to another, fewer where it ends before; None if it is not there."""
        if start == stop:
            return b""
        with self._reaching():
            try:
                return self._files.cat_file(self._path(name), start=start, end=stop)
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return None

    def modified(self, name: str) -> float | None:
        """Return when a file was written, in seconds since 1970 by the clock of the store; None if it is not there."""
        with self._reaching():
            try:
                return self._files.modified(self._path(name)).timestamp()
            except FileNotFoundError:
                return None

    def create(self, name: str, contents: bytes) -> None:
        """Write a small file unless another machine has just done so."""
        with self._reaching():
            if not self._is_object_store:
                self._files.makedirs(self._root, exist_ok=True)
            try:
                with self._files.open(self._path(name), "xb") as file:
                    file.write(contents)
            except FileExistsError:
                pass
            except (ValueError, NotImplementedError):  # this kind of store knows no such way of writing
                self._files.pipe_file(self._path(name), contents)

    def write(self, name: str, contents: bytes) -> None:
        """Write a small file whole."""
        self._put(name, lambda path: self._files.pipe_file(path, contents))

    def send(self, source: Path, name: str) -> None:
        """Copy a local file to the shared root."""
        self._put(name, lambda path: self._files.put_file(str(source), path))

    def fetch(self, name: str, target: Path) -> None:
        """Copy a file to a local one; FileNotFoundError if it is not there any more."""
        with self._reaching(fetching=True):
            self._files.get_file(self._path(name), str(target))

    def remove(self, name: str) -> None:
        """Remove a file that may be gone already."""
        with self._reaching(), suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def remove_empty(self, folder: str) -> None:
        """Remove a folder if nothing is in it; many kinds of store have no folders of their own."""
        if not self._entries(folder):
            with self._reaching(), suppress(OSError, NotImplementedError):
                self._files.rmdir(self._path(folder))

    def rename(self, name: str, other: str) -> None:
        """Rename a file that may be gone already."""
        with self._reaching(), suppress(FileNotFoundError):
            self._files.mv(self._path(name), self._path(other))

    def _opened(self, address: str) -> tuple[Any, str]:
        """Return the file system that an address is in, and the path there."""
        import fsspec

        # What other machines write has to be seen, so no listing is remembered.
        return fsspec.core.url_to_fs(address, use_listings_cache=False)

    def _entries(self, folder: str) -> dict[str, tuple[str, int]]:
        with self._reaching():
            try:
                entries: list[dict[str, Any]] = self._files.ls(self._path(folder), detail=True)
            except (FileNotFoundError, NotADirectoryError):
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
    def _reaching(self, *, fetching: bool = False) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # every kind of store has exceptions of its own
            if fetching and isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise  # it is the disk here that is full
            if fetching and isinstance(error, FileNotFoundError):
                raise FileNotFoundError("not in the shared root") from None
            # Without the error as its cause: a traceback would print its text.
            raise RegraftError(
                f"The {self.kind} {self.shown} cannot be reached: {named(error)}. {self.advice}"
            ) from None
