"""The remote registry: production at an address, and the folder of this machine that mirrors it.

    <address>/
        production.json            the pointer: every file by name, with the object that holds its bytes
        objects/<sha256>-<hex>     contents, each written once and never changed
        model.onnx                 a copy of the model in production for services that read one fixed name, with its
        model.onnx.sha256          digest, as `sha256sum --check` reads it; both are written after the pointer

A change writes objects first and then replaces the pointer, only over the one that it started from. So readers find all
of the old state or all of the new one. The mirror holds the same files as models/production; models that are not in
production are fetched when they are read, and an empty file stands for each until then.
"""

import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from regraft.core.addresses import address_of
from regraft.core.errors import Overtaken, RegraftError, is_invisible
from regraft.core.files import replacing, sha256_of, write_bytes
from regraft.core.remote import Remote
from regraft.production.logs import Sha256

POINTER, MODEL, CHECKSUM = "production.json", "model.onnx", "model.onnx.sha256"
LOCK = "production.lock"
PENDING = "change.json"  # a change of this machine that is under way (`regraft.production.registry`)
_STATE = ".mirror.json"  # the pointer that the mirror's files are from; not there while they are being changed
_LONGEST, _DEEPEST = 200, 4  # letters of a name, and folders in it
_SWEEP_EVERY = 16  # changes
_DAY_SECONDS = 86_400.0
_OBJECT = r"^[0-9a-f]{64}-[0-9a-f]{8}$"
_ADVICE = (
    "So it is not known which model is in production, and nothing was promoted. Check the network, the address in "
    "paths.production of params.yaml and the credentials in the environment, and run the same command again. A bucket "
    "that may be read but not listed answers like this also where there is no production yet: then `regraft promote "
    "--first` founds one."
)
Look = tuple[int, int, int]  # size in bytes, time of the last change, inode


def is_name(name: str) -> bool:
    """Whether a name can be that of a file of production; hidden ones are this machine's own."""
    parts = name.split("/")
    is_plain = not any(part == "" or part.startswith(".") for part in parts)
    is_short = len(name) <= _LONGEST and len(parts) <= _DEEPEST
    return is_plain and is_short and not any(letter == "\\" or is_invisible(letter) for letter in name)


def _checked(name: str) -> str:
    if not is_name(name):
        raise ValueError("no name of a file of production")
    return name


@dataclass(frozen=True, slots=True)
class Stored:
    """One file."""

    sha256: Sha256
    size: Annotated[int, Field(ge=0)]  # bytes
    object: Annotated[str, StringConstraints(pattern=_OBJECT)]  # its name below objects/


@dataclass(frozen=True, slots=True)
class Pointer:
    """All of production.json; it comes from outside, so no name in it leads out of the folder."""

    format: Literal[1] = 1
    serial: Annotated[int, Field(ge=0)] = 0  # changes since production was founded
    writer: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")] = "0" * 16  # tells two of one serial apart
    at: str = ""  # ISO 8601, UTC: for people
    model: Sha256 | None = None  # of the model in production
    files: dict[Annotated[str, AfterValidator(_checked)], Stored] = field(default_factory=dict)

    def as_bytes(self) -> bytes:
        """Return the pointer as it is written."""
        return _ADAPTER.dump_json(self, indent=1) + b"\n"


_ADAPTER = TypeAdapter(Pointer)


def read_pointer(contents: bytes) -> Pointer | None:
    """Return the pointer that a file holds, or None if it holds none."""
    try:
        return _ADAPTER.validate_json(contents)
    except ValidationError:
        return None


def pointer_after(serial: int, files: dict[str, Stored]) -> Pointer:
    """Return the pointer to these files that follows the one with that serial number."""
    model, at = files[MODEL].sha256 if MODEL in files else None, datetime.now(UTC).isoformat(timespec="seconds")
    return Pointer(1, serial + 1, secrets.token_hex(8), at, model, dict(sorted(files.items())))


def looks_of(folder: Path) -> dict[str, Look]:
    """Return size, time and inode of each file of production, by its name; links and hidden files are none."""
    found: dict[str, Look] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            if relative in (LOCK, PENDING) or not is_name(relative):
                continue
            with suppress(FileNotFoundError):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    found[relative] = (status.st_size, status.st_mtime_ns, status.st_ino)
    return found


class RemoteRegistry:
    """Production at an address. Who changes the mirror holds its lock (`regraft.production.exclusive`)."""

    def __init__(self, folder: Path, address: str) -> None:
        """Take the mirror and the address; RegraftError if nothing here can reach it."""
        self.folder = folder
        self.remote = Remote(address, kind="production at", advice=_ADVICE)
        self._lost: set[str] = set()  # objects that the pointer names and that are not there, or have other bytes

    def pointer(self) -> Pointer | None:
        """Return the pointer, in one request; None if there is none. RegraftError if it is damaged or unreachable."""
        contents = self.remote.get(POINTER)
        return None if contents is None else self._parsed(contents)

    def pointer_to_replace(self) -> tuple[Pointer, str]:
        """Return the pointer and its tag; RegraftError if there is none, or as `pointer`."""
        found = self.remote.get_tagged(POINTER)
        if found is None:
            raise RegraftError(
                f"there is no production at {self.remote.shown}, so nothing can be compared or promoted. Check the "
                f"address in paths.production of params.yaml. If it is right and no model was ever in production "
                f"there, run `regraft promote --first`: it founds production at this address."
            )
        return self._parsed(found[0]), found[1]

    def found(self, files: dict[str, Stored]) -> Pointer | None:
        """Write the first pointer and return it; None if there is one already."""
        pointer = pointer_after(0 if files else -1, files)
        return pointer if self.remote.put_if(POINTER, pointer.as_bytes(), None) else None

    def is_current(self) -> bool:
        """Whether the mirror holds what is at the address; RegraftError if production has vanished from there."""
        pointer, before = self.pointer(), self.state()
        if pointer is None and (before or looks_of(self.folder)):
            raise RegraftError(
                f"production at {self.remote.shown} is gone: this machine knows models of it, and {POINTER} is not "
                f"there. Nothing was promoted. Bring it back; if that production was given up, remove "
                f"{self.folder.parent}."
            )
        return pointer == before

    def state(self) -> Pointer | None:
        """Return the pointer that the mirror's files are from; None where that is not known."""
        try:
            return read_pointer((self.folder / _STATE).read_bytes())
        except OSError:
            return None

    def bring(self, pointer: Pointer) -> None:
        """Let the mirror hold the files of a pointer: what a kill left half done is replaced.

        Raises:
            RegraftError: the address cannot be reached, or an object is damaged. A damaged model is no error: no file
                is there then, and a rollback goes to the one before.
        """
        before = self.state()
        (self.folder / _STATE).unlink(missing_ok=True)
        for name in [*(looks_of(self.folder).keys() - pointer.files.keys()), PENDING]:
            (self.folder / name).unlink(missing_ok=True)
        self._lost, here = set(), {}
        for name in sorted(pointer.files, key=_can_wait):
            stored, path = pointer.files[name], self.folder / name
            size = path.stat().st_size if path.is_file() else None
            if size == stored.size and (
                stored == (before.files.get(name) if before else None) or sha256_of(path) == stored.sha256
            ):
                here[stored.sha256] = path
            elif stored.sha256 in here:
                with replacing(path) as temporary:
                    shutil.copyfile(here[stored.sha256], temporary)
            elif _can_wait(name):
                write_bytes(path, b"")
            elif self._fetch(path, stored):
                here[stored.sha256] = path
            elif name.endswith(".onnx"):
                path.unlink(missing_ok=True)
                self._lost.add(stored.object)
            else:
                raise RegraftError(
                    f"production at {self.remote.shown} is damaged: what its pointer names for {name} is not there, or "
                    f"has other bytes. Nothing was promoted. Bring back objects/{stored.object}, or an earlier "
                    f"{POINTER}."
                )
        write_bytes(self.folder / _STATE, pointer.as_bytes())

    @contextmanager
    def changing(self) -> Iterator[Pointer]:
        """Start from what is at the address now, and write there what the block changes in the mirror.

        Raises:
            Overtaken: another machine was faster. Here and there is what that one wrote.
            RegraftError: the address cannot be reached. There is what was there before, and the next look brings it.
        """
        base, tag = self.pointer_to_replace()
        self.bring(base)
        looks = looks_of(self.folder)
        (self.folder / _STATE).unlink()  # a kill from here on leaves files of no pointer
        yield base
        files = self._sent(base, looks)
        if files == base.files:
            write_bytes(self.folder / _STATE, base.as_bytes())
            return
        pointer = pointer_after(base.serial, files)
        if not self.remote.put_if(POINTER, pointer.as_bytes(), tag):
            self.bring(self.pointer() or base)
            raise self._overtaken()
        write_bytes(self.folder / _STATE, pointer.as_bytes())
        if pointer.serial % _SWEEP_EVERY == 0:
            self._sweep({stored.object for each in (base, pointer) for stored in each.files.values()})

    def obtain(self, path: Path, pointer: Pointer | None) -> None:
        """Fetch a model for which an empty file stands, if it is still there; any other file is as it is."""
        stored = pointer.files.get(path.relative_to(self.folder).as_posix()) if pointer else None
        if stored and path.is_file() and path.stat().st_size == 0 < stored.size:
            self._fetch(path, stored)

    def publish(self, pointer: Pointer, model: Path) -> None:
        """Let model.onnx at the address be the model in production; Overtaken if another one is by now."""
        if not pointer.model or not model.is_file():
            return
        line, there = f"{pointer.model}  {MODEL}\n".encode(), None
        with suppress(RegraftError):  # where listing is not allowed, a file that is not there is an error
            there = self.remote.get(CHECKSUM)
        if there != line:
            self.remote.remove(CHECKSUM)  # last written, it says that model.onnx is whole: a kill in between is seen
            self.remote.put(MODEL, model)
            self.remote.put(CHECKSUM, line)
        if (newest := self.pointer()) and newest.model != pointer.model:
            raise self._overtaken()

    def send(self, path: Path, digest: str) -> Stored:
        """Write a file to an object of its own."""
        stored = Stored(digest, path.stat().st_size, f"{digest}-{secrets.token_hex(4)}")
        self.remote.put(f"objects/{stored.object}", path)
        return stored

    def _sent(self, base: Pointer, looks: dict[str, Look]) -> dict[str, Stored]:
        """Send what the block changed, and return all files with their objects."""
        if not (self.folder / LOCK).exists():  # the few files that are left would be taken for all of production
            words = "was removed while it was in use. Run the same command again."
            raise RegraftError(f"the mirror of production at {self.remote.shown} {words}")
        known = {stored.sha256: stored for stored in base.files.values() if stored.object not in self._lost}
        # What could not be fetched was not removed by the block.
        files = {name: stored for name, stored in base.files.items() if stored.object in self._lost}
        for name, look in looks_of(self.folder).items():
            if name in base.files and look == looks.get(name):
                files[name] = base.files[name]
                continue
            digest = sha256_of(self.folder / name)
            if digest not in known:
                known[digest] = self.send(self.folder / name, digest)
            files[name] = known[digest]
        return dict(sorted(files.items()))

    def _fetch(self, path: Path, stored: Stored) -> bool:
        """Fetch a file; False if its object is not there, or holds other bytes."""
        try:
            with replacing(path) as temporary:
                self.remote.download(f"objects/{stored.object}", temporary)
                if sha256_of(temporary) != stored.sha256:
                    raise FileNotFoundError("other bytes")
        except FileNotFoundError:
            return False
        return True

    def _sweep(self, needed: set[str]) -> None:
        """Remove objects that no pointer of the last day needed."""
        with suppress(RegraftError):  # listing is not allowed
            for name, entry in self.remote.list("objects").items():
                is_old = entry.written is not None and entry.written < time.time() - _DAY_SECONDS
                if is_old and name not in needed and re.match(_OBJECT, name):
                    self.remote.remove(f"objects/{name}")

    def _parsed(self, contents: bytes) -> Pointer:
        pointer = read_pointer(contents)
        if pointer is None:
            raise RegraftError(
                f"{POINTER} at {self.remote.shown} is damaged, or of a later version of Regraft: it does not say which "
                f"model is in production. Nothing was promoted. Bring an earlier version of that one file back; the "
                f"objects that it names are never changed."
            )
        return pointer

    def _overtaken(self) -> Overtaken:
        return Overtaken(
            f"another machine changed production at {self.remote.shown} at the same moment, and was first. Nothing of "
            f"this change was written. Run the same command again: it starts from what is there now."
        )


def registry_at(folder: Path) -> RemoteRegistry | None:
    """Return the remote registry that a folder mirrors; None of a folder that mirrors no address."""
    address = address_of(folder)
    return RemoteRegistry(folder, address) if address else None


def _can_wait(name: str) -> bool:
    """Whether a file is big, and needed only by a rollback, a comparison with its model, or a promotion by hand."""
    return name.endswith(".onnx") and name != MODEL
