"""The address of production: its pointer, replaced only over the one that was read, and its objects.

How safe that is depends on the store. S3 replaces the pointer only where its ETag is still the one that was read, and
founds it only where there is none. A folder of a file system is locked by its kernel meanwhile. Any other store is read
once more right before and right after: of two workers that write within that moment one may lose its change, and what
is there is whole all the same.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from regraft.core.addresses import named
from regraft.core.errors import RegraftError
from regraft.core.patience import PatientFiles, within_patience
from regraft.production.pointer import MODEL, POINTER, Pointer, Stored, is_object_name, read_pointer
from regraft.store.remote import Remote

_S3, _LOCAL = ("s3", "s3a"), ("file", "local")
_DAY_SECONDS = 86_400.0
_PATIENCE_SECONDS = 30.0  # for the lock: the pointer is a small file
_CONFLICTS = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
_AWAY_SECONDS = 60.0
_IN_DOUBT = (
    "It may have taken the last change or not. The next command starts from what is there: `regraft promote --history` "
    "shows it."
)
CHECKSUM = f"{MODEL}.sha256"

_away: dict[str, tuple[float, Exception]] = {}  # what could not be reached: since when, and what was said


class Place(Remote):
    """What lies at an address."""

    kind = "production at"
    advice = (
        "So nobody can tell which model is in production, and nothing was promoted. Check the network, the address in "
        "paths.production of params.yaml and the credentials in the environment, and run the same command again; "
        "machine.remote_timeout says how long an answer is waited for. A bucket that may be read but not listed "
        "answers like this also where there is no production yet: then `regraft promote --first` founds one."
    )

    def __init__(self, address: str) -> None:
        """Take an address; RegraftError if nothing here can reach it."""
        self._scheme = address.partition("://")[0]
        super().__init__(address)

    def pointer(self) -> Pointer | None:
        """Return the pointer, in one request; None if there is none.

        Raises:
            RegraftError: it cannot be reached, or is damaged.
        """
        with _unless_away(self.digest):
            contents = self._contents()
        return None if contents is None else self._parsed(contents)

    def pointer_to_replace(self) -> tuple[Pointer, str]:
        """Return the pointer, and what has to be known of it to replace it.

        Raises:
            RegraftError: there is none, or as `pointer`.
        """
        # The tag first: contents that are newer than it cannot be replaced, and older ones there are none.
        with _unless_away(self.digest):
            tag = self._tag()
            contents = self._contents()
        if contents is None:
            raise RegraftError(
                f"there is no production at {self.shown}, so nothing can be compared or promoted. Check the address in "
                f"paths.production of params.yaml. If it is right and no model was ever in production there, run "
                f"`regraft promote --first`: it founds production at this address."
            )
        pointer = self._parsed(contents)
        return pointer, tag or contents.decode()

    def found(self, pointer: Pointer) -> bool:
        """Write the first pointer; False if there is one already.

        Raises:
            RegraftError: it cannot be reached, and nobody knows whether it was written.
        """
        return self._write_pointer(pointer, None)

    def replace(self, pointer: Pointer, tag: str) -> bool:
        """Write a pointer over the one that `pointer_to_replace` returned with `tag`; False if that is not there.

        Raises:
            RegraftError: it cannot be reached, and nobody knows whether it was written.
        """
        self.advice = _IN_DOUBT
        return self._write_pointer(pointer, tag)

    def fetch_object(self, stored: Stored, target: Path) -> None:
        """Copy an object to a local file; FileNotFoundError if it is not there, or is larger than it should be.

        Of a larger one at most one part too much is written: stores say how large it is, and the transfer is counted.
        """
        path = self._path(f"objects/{stored.object}")
        with self._reaching(fetching=True):
            if not self._is_object_store and self._files.info(path)["size"] > stored.size:
                raise FileNotFoundError
            self._files.get_file(path, str(target), callback=_until_larger(stored.size))

    def send_object(self, source: Path, name: str) -> None:
        """Copy a local file to an object."""
        self.send(source, f"objects/{name}")

    def publish(self, model: Path, digest: str) -> None:
        """Let model.onnx be the model in production, for services that read one fixed name."""
        line, there = f"{digest}  {MODEL}\n".encode(), None
        with suppress(RegraftError):  # where listing is not allowed, a file that is not there is an error
            there = self.read(CHECKSUM)
        if there != line:
            self.remove(CHECKSUM)  # last written, it says that model.onnx is whole: a kill in between is seen
            self.send(model, MODEL)
            self.write(CHECKSUM, line)

    def sweep(self, needed: set[str]) -> None:
        """Remove objects that no pointer names and that are older than a day by the clock of the store.

        They are left by changes that were killed or overtaken, and by files that have changed since. Where listing is
        not allowed, they stay.
        """
        with suppress(RegraftError):
            now = self.modified(POINTER)
            for name in self.sizes("objects"):
                if name in needed or not is_object_name(name):
                    continue
                written = self.modified(f"objects/{name}")
                if now is not None and written is not None and written < now - _DAY_SECONDS:
                    self.remove(f"objects/{name}")

    def _opened(self, address: str) -> tuple[Any, str]:
        with _unless_away(f"{self.digest} opened"):  # some kinds of store connect now
            files, root = within_patience(lambda: super(Place, self)._opened(address))
        return PatientFiles(files, self._asked), root

    def _asked(self, files: Any) -> bytes:
        """Read the pointer: a small question, in one request."""
        options = {"max_concurrency": 1} if self._scheme in _S3 else {}  # else it asks for the size first
        return files.cat_file(self._path(POINTER), **options)

    def _contents(self) -> bytes | None:
        with self._reaching():
            try:
                return self._asked(self._files)
            except FileNotFoundError:
                return None

    def _parsed(self, contents: bytes) -> Pointer:
        pointer = read_pointer(contents)
        if pointer is None:
            raise RegraftError(
                f"{POINTER} at {self.shown} is damaged, or of a later version of Regraft: it does not say which model "
                f"is in production. Nothing was promoted. Bring an earlier version of that one file back; the objects "
                f"that it names are never changed."
            )
        return pointer

    def _tag(self) -> str | None:
        if self._scheme not in _S3:
            return None
        with self._reaching():
            try:
                return self._files.info(self._path(POINTER), refresh=True)["ETag"]
            except FileNotFoundError:
                return ""

    def _write_pointer(self, pointer: Pointer, tag: str | None) -> bool:
        """Write it over the one that is known by a tag, or, without a tag, only where there is none."""
        contents = pointer.as_bytes()
        _away.pop(self.digest, None)
        if self._scheme in _S3:
            condition: dict[str, Any] = {"mode": "create"} if tag is None else {"IfMatch": tag}
            with self._reaching():
                try:
                    self._files.pipe_file(self._path(POINTER), contents, **condition)
                    return True
                except OSError as error:
                    if not _is_conflict(error):
                        raise
            # A request whose answer was lost is sent again, and then finds what it has written itself.
            return self._contents() == contents
        with self._alone():
            there = self._contents()
            if (None if there is None else there.decode(errors="replace")) != tag:
                return False
            self.write(POINTER, contents)
            return self._contents() == contents

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._scheme not in _LOCAL:
            yield
            return
        from filelock import FileLock

        folder = Path(self._path(""))
        lock = FileLock(folder / f".{POINTER}.lock")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=_PATIENCE_SECONDS)
        except OSError as error:  # a timeout is one as well
            raise RegraftError(
                f"The {self.kind} {self.shown} cannot be changed: {named(error)}. {self.advice}"
            ) from None
        try:
            yield
        finally:
            lock.release()


@contextmanager
def _unless_away(what: str) -> Iterator[None]:
    """Not try again what this process could not reach a moment ago: that takes half a minute, and much asks at an end.

    What is raised then, and what is remembered, is the error of the block.
    """
    seconds, before = _away.get(what, (-math.inf, None))
    if before and time.monotonic() - seconds < _AWAY_SECONDS:
        raise before.with_traceback(None)
    try:
        yield
    except Exception as error:
        _away[what] = (time.monotonic(), error)
        raise


def _until_larger(most: int) -> Any:
    """Return a callback that ends a transfer which says that it has more bytes, or has brought more."""
    from fsspec.callbacks import Callback

    class UntilLarger(Callback):
        def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
            if max(self.size or 0, self.value) > most:
                raise FileNotFoundError

    return UntilLarger()


def _is_conflict(error: OSError) -> bool:
    """Whether S3 says that another pointer is there."""
    response = getattr(error.__cause__, "response", None) or {}
    code = str(response.get("Error", {}).get("Code"))
    return isinstance(error, FileExistsError) or code in _CONFLICTS
