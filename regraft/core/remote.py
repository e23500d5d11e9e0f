"""Files at an address that fsspec reaches: production reads and writes by one `Remote`.

The libraries' messages may quote addresses, signed queries and headers, so an error is named by its kind alone. Each
scheme has one file system for the whole process; their own limits of time end what is never answered.
"""

import errno
import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from regraft.core.addresses import EXPECTED, LOCAL, error_code, is_address, named, shown
from regraft.core.errors import RegraftError

_S3 = ("s3", "s3a")
# An object appears here whole or not at all. Elsewhere it is written to a temporary name first, as on a disk.
_OBJECT_STORES = (*_S3, "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "memory")
_LOCK_SECONDS = 30.0
_ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
_CONFLICTS = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
# A call that has no answer ends after a minute; with the limits of s3fs after six.
S3_LIMITS: dict[str, Any] = {"read_timeout": 15, "retries": {"total_max_attempts": 2}}
_TAGS = ("ETag", "etag", "md5Hash", "content_md5")
_WRITTEN = ("LastModified", "last_modified", "mtime", "created")


class Unreachable(RegraftError):
    """A store does not do what was asked; the message names the kind of error, without an address."""

    def __init__(self, what: str, error: BaseException, advice: str) -> None:
        super().__init__(f"{what}: {named(error)}. {advice}")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or a folder as a listing has it."""

    size: int  # bytes
    written: float | None  # seconds since 1970 by the clock of the store
    tag: str | None  # that changes with the content: the ETag, where the store has one
    is_folder: bool = False


class Remote:
    """Files below an address, by names relative to it; safe to use from several threads."""

    def __init__(self, address: str, *, kind: str = "shared store", advice: str = "Check the network.") -> None:
        """Take an address.

        Args:
            address: of a folder or a bucket.
            kind: what lies there, for messages.
            advice: what to do where it cannot be reached.

        Raises:
            RegraftError: it is no such address, or no package that is installed can reach it.
        """
        self.kind, self.advice, self.shown = kind, advice, shown(address)
        self.scheme = address.partition("://")[0] if "://" in address else "file"
        if not is_address(address):
            raise RegraftError(f"The address of the {kind} must be {EXPECTED}. Received: {self.shown}.")
        self.digest = hashlib.sha256(address.encode()).hexdigest()
        with self._reaching():
            self._files = _file_system(self.scheme)
            self._root = str(self._files._strip_protocol(address)).rstrip("/")

    def get(self, name: str) -> bytes | None:
        """Return the contents of a file, or None if there is none."""
        return self._got(name)

    def get_range(self, name: str, start: int, stop: int) -> bytes | None:
        """Return the bytes of a file from one place to another, fewer where it ends before; None if there is none."""
        return self._got(name, start=start, end=stop) if start < stop else b""

    def get_tagged(self, name: str) -> tuple[bytes, str] | None:
        """Return the contents of a file and the tag by which `put_if` replaces exactly these; None if there is none."""
        # The tag first: contents that are newer than it cannot be replaced.
        tag = None
        if self.scheme in _S3:
            try:
                tag = self.tag(name)
            except FileNotFoundError:
                return None
        contents = self.get(name)
        return None if contents is None else (contents, tag or hashlib.sha256(contents).hexdigest())

    def tag(self, name: str) -> str | None:
        """Return the ETag of a file without reading it, or None where its store has none; FileNotFoundError if gone."""
        with self._reaching(absent=True):
            return _tag(self._files.info(self._path(name), **({"refresh": True} if self.scheme in _S3 else {})))

    def download(self, name: str, target: Path) -> None:
        """Copy a file to a local one; FileNotFoundError if it is gone."""
        with self._reaching(absent=True):
            self._files.get_file(self._path(name), str(target))

    def put(self, name: str, contents: bytes | Path) -> None:
        """Write a file, given its contents or a local file; a reader finds the whole of it or what was there before."""
        self._make_folder(name)
        path = self._path(name)
        folder, _, file = path.rpartition("/")
        target = path if self._is_object_store else f"{folder}/.{file}.{uuid.uuid4().hex[:8]}.tmp"
        with self._reaching():
            if isinstance(contents, Path):
                self._files.put_file(str(contents), target)
            else:
                self._files.pipe_file(target, contents)
            if target != path:
                self._files.mv(target, path)

    def put_if(self, name: str, contents: bytes, tag: str | None) -> bool:
        """Write a small file only over the one that `get_tagged` returned with `tag`, or, without a tag, over none.

        S3 decides that itself, and a folder of a file system is locked by its kernel meanwhile. Any other store is read
        right before and right after: of two that write within that moment one may be lost.

        Returns:
            Whether these contents are there now.
        """
        if self.scheme in _S3:
            condition: dict[str, Any] = {"mode": "create"} if tag is None else {"IfMatch": tag}
            with self._reaching():
                try:
                    self._files.pipe_file(self._path(name), contents, **condition)
                    return True
                except OSError as error:
                    if not isinstance(error, FileExistsError) and error_code(error.__cause__) not in _CONFLICTS:
                        raise
            # A request whose answer was lost is sent again, and then finds what it has written itself.
            return self.get(name) == contents
        self._make_folder(name)
        with self._locked(name):
            there = self.get_tagged(name)
            if (there[1] if there else None) != tag:
                return False
            self.put(name, contents)
            return self.get(name) == contents

    def list(self, folder: str = "") -> dict[str, Entry]:
        """Return the files and folders of a folder by their names; of a folder that is not there none."""
        with self._reaching():
            try:
                entries = self._files.ls(self._path(folder), detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return {}
        return {each["name"].rstrip("/").rpartition("/")[2]: _entry(each) for each in entries}

    def walk(self) -> Iterator[tuple[str, Entry]]:
        """Yield all files by their names relative to the address, in any order."""
        with self._reaching():
            if self.scheme not in _S3:
                start = len(self._root) + 1
                found = self._files.find(self._root, detail=True)
                yield from ((name[start:], _entry(facts)) for name, facts in found.items())
                return
            bucket, _, prefix = self._root.partition("/")
            request = {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else ""}
            while True:  # page by page: s3fs takes kilobytes of memory for each object that it finds
                page = self._files.call_s3("list_objects_v2", **request)
                for facts in page.get("Contents", []):
                    if not facts["Key"].endswith("/"):  # consoles make such a key for an empty folder
                        yield facts["Key"][len(request["Prefix"]) :], _entry({**facts, "size": facts["Size"]})
                if not page.get("IsTruncated"):
                    return
                request["ContinuationToken"] = page["NextContinuationToken"]

    def remove(self, name: str) -> None:
        """Remove a file that may be gone already."""
        with self._reaching(), suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def _got(self, name: str, **part: int) -> bytes | None:
        if self.scheme in _S3 and not part:
            part = {"max_concurrency": 1}  # in one request; else s3fs asks for the size first
        with self._reaching():
            try:
                return self._files.cat_file(self._path(name), **part)
            except _ABSENT:
                return None

    def _make_folder(self, name: str) -> None:
        if not self._is_object_store:
            with self._reaching():
                self._files.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold the lock of a file, where it lies in a file system of this machine."""
        if self.scheme not in LOCAL:
            yield
            return
        from filelock import FileLock

        folder, _, file = self._path(name).rpartition("/")
        with self._reaching():
            lock = FileLock(f"{folder}/.{file}.lock")
            lock.acquire(timeout=_LOCK_SECONDS)
        try:
            yield
        finally:
            lock.release()

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    @property
    def _is_object_store(self) -> bool:
        return self.scheme in _OBJECT_STORES

    @contextmanager
    def _reaching(self, *, absent: bool = False) -> Iterator[None]:
        """Turn any error of a store into one of ours; with `absent` a file that is gone is a FileNotFoundError."""
        try:
            yield
        except RegraftError:
            raise
        except Exception as error:  # every kind of store has exceptions of its own
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT) and self.scheme not in LOCAL:
                raise  # it is the disk here that is full
            if absent and isinstance(error, _ABSENT):
                raise FileNotFoundError("it is gone") from None
            # Without the error as its cause: a traceback would print its text.
            raise Unreachable(f"The {self.kind} {self.shown} cannot be reached", error, self.advice) from None


def _file_system(scheme: str) -> Any:
    """Return the file system of a scheme; what other machines write has to be seen, so it remembers no listing."""
    import fsspec

    options: dict[str, Any] = {"use_listings_cache": False}
    if scheme in _S3:
        given = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
        options["config_kwargs"] = {**S3_LIMITS, **given}
    files = fsspec.filesystem(scheme, **options)
    if scheme in _S3:
        files.retries = 2
    return files


def _tag(facts: Any) -> str | None:
    return next((str(facts[name]) for name in _TAGS if facts.get(name)), None)


def _entry(facts: dict[str, Any]) -> Entry:
    written = next((facts[name] for name in _WRITTEN if facts.get(name)), None)
    seconds = written.timestamp() if isinstance(written, datetime) else written
    is_known = isinstance(seconds, int | float)
    return Entry(facts.get("size") or 0, seconds if is_known else None, _tag(facts), facts.get("type") == "directory")
