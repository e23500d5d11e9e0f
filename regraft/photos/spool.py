"""The spool: photos that were fetched, each in a file named by its SHA-256, in a folder that only its owner may enter.

It saves fetching a photo twice in a run. What it holds is compared with its name whenever it is read, and it can be
deleted at any time. It never grows beyond its bound: what does not fit is fetched again when it is needed.
"""

import os
import re
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

from regraft.core.files import free_bytes, sha256_of

_NAME = re.compile(r"[0-9a-f]{64}|\.[0-9a-f]{32}\.part")
_ABANDONED_SECONDS = 86_400
_KEPT_FREE = 2**30  # bytes of the disk that the spool leaves to others


class Spool:
    """A folder of fetched photos; safe to use from several threads and processes."""

    def __init__(self, folder: Path, bound: float) -> None:
        """Take a folder, which is made when it is first written to, and the bytes that it may hold."""
        self.folder, self.bound = folder, bound
        self._lock = threading.Lock()
        self._size: int | None = None  # bytes, as far as this process knows

    def find(self, digest: str) -> Path | None:
        """Return the file of a photo, or None if it is not there; a damaged one is removed."""
        path = self.folder / digest
        try:
            if sha256_of(path) != digest:
                path.unlink()
                return None
            os.utime(path)  # what was not used for longest goes first
        except OSError:
            return None
        return path

    def new_file(self) -> Path:
        """Return an empty file to fetch into."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        part = self.folder / f".{uuid.uuid4().hex}.part"
        part.touch(exist_ok=False)
        return part

    def keep(self, file: Path, digest: str) -> Path | None:
        """Give a fetched file the name of its photo and return its path; None where there is no room for it."""
        size = file.stat().st_size
        with self._lock:
            if self._size is None:
                self._size = sum(size for _, size, path in self._files() if not path.name.startswith("."))
            has_room = self._size + size <= self.bound and free_bytes(self.folder) > _KEPT_FREE
            if not has_room:
                return None
            self._size += size
        return file.replace(self.folder / digest)

    def trim(self, bound: float, *, abandoned_only: bool = False) -> None:
        """Remove what was not used for longest until the folder holds so many bytes at most.

        Args:
            bound: bytes.
            abandoned_only: leave what was used within a day: the run that did may go on.
        """
        files = sorted(self._files())
        total, now = sum(size for _, size, _ in files), time.time()
        for used, size, path in files:
            is_part = path.name.startswith(".")
            if now - used < _ABANDONED_SECONDS and (abandoned_only or is_part):
                continue
            if total > bound or is_part:
                total -= size
                path.unlink(missing_ok=True)
        with self._lock:
            self._size = None
        if not total:
            with suppress(OSError):  # it is not there, or something else lies in it
                self.folder.rmdir()

    def _files(self) -> list[tuple[float, int, Path]]:
        """When each file was used, its bytes, and its path; only what has a name of the spool's."""
        found = []
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.folder) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name):
                    with suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        found.append((status.st_mtime, status.st_size, Path(entry.path)))
        return found
