"""Production at an address, worked on in a folder here: the same files as in models/production, and candidates.

    .dvc/tmp/regraft/production/<the address in another spelling>/

Whatever differs from the pointer at the address is replaced by what it names, so a fresh machine finds everything, and
what a kill left half done here counts for nothing. Models that are not in production come when they are asked for;
until then an empty file stands for each.
"""

import math
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from regraft.core.addresses import address_of
from regraft.core.errors import Overtaken, RegraftError
from regraft.core.files import replacing, sha256_of, write_bytes
from regraft.production.lock import PATIENCE_SECONDS, locked
from regraft.production.mirrored import (
    can_wait,
    compare,
    has_state,
    is_stand_in,
    looks_of,
    read_state,
    remove_others,
    write_state,
)
from regraft.production.place import Place
from regraft.production.pointer import MODEL, Pointer, Stored

_LOOK_SECONDS = 10.0  # readers of one command ask many times, and one look at the address serves them all
_SWEEP_EVERY = 16  # changes
_TRIES = 3  # at fetching a state that another machine replaces meanwhile

_looked: dict[Path, float] = {}  # when this process compared each mirror with its address
_held: set[Path] = set()  # mirrors that this process is changing


class Mirror:
    """The folder in which production at an address is worked on."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder, self.place = folder, Place(address)
        self._key = folder.absolute()
        self._lost: set[str] = set()  # objects that the pointer names and that are not there, or have other bytes

    def refresh(self) -> None:
        """Bring what has changed at the address, unless this process has just done so or is changing it.

        Raises:
            RegraftError: the address cannot be reached, or what lies there is damaged.
            Busy: another process of this machine is changing it.
        """
        seconds = time.monotonic() - _looked.get(self._key, -math.inf)
        if self._key in _held or (has_state(self.folder) and seconds < _LOOK_SECONDS):
            return
        pointer, (before, looks) = self.place.pointer(), read_state(self.folder)
        here = looks_of(self.folder)
        if pointer is None and (before or here):
            raise self._gone()
        if pointer and not (pointer == before and looks == here and here.keys() == pointer.files.keys()):
            with locked(self.folder, "fetching what others changed", patience=PATIENCE_SECONDS):
                newest = self.place.pointer()
                if newest is None:
                    raise self._gone()
                self._bring(newest)
        _looked[self._key] = time.monotonic()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Start from what is at the address now, and write there what the block changes; the caller holds the lock.

        Raises:
            Overtaken: another machine was faster. Here and there is what that one wrote.
            RegraftError: the address cannot be reached. There is what was there before, and the next look brings it.
        """
        _looked.pop(self._key, None)
        there, tag = self.place.pointer_to_replace()
        base = self._bring(there)
        _held.add(self._key)
        try:
            yield
            self._send(base, tag)
        finally:
            _held.discard(self._key)
        _looked[self._key] = time.monotonic()

    def obtain(self, path: Path) -> None:
        """Fetch a model for which an empty file stands, if it is still there; any other file is as it is.

        Raises:
            RegraftError: the address cannot be reached.
            Busy: another process of this machine is changing it.
        """
        pointer, name = read_state(self.folder)[0], path.relative_to(self.folder).as_posix()
        stored = pointer.files.get(name) if pointer else None
        if stored and is_stand_in(looks_of(self.folder).get(name), stored):
            is_ours = self._key in _held
            with nullcontext() if is_ours else locked(self.folder, "fetching a model", patience=PATIENCE_SECONDS):
                self._fetch(path, stored)

    def publish(self) -> None:
        """Let model.onnx at the address be the model in production; the caller is changing the mirror.

        Raises:
            Overtaken: another model is in production by now.
        """
        pointer, _ = read_state(self.folder)
        if pointer and pointer.model and (self.folder / MODEL).is_file():
            self.place.publish(self.folder / MODEL, pointer.model)
            newest = self.place.pointer()
            if newest and newest.model != pointer.model:
                raise self._overtaken()

    def _bring(self, pointer: Pointer) -> Pointer:
        """Let the folder hold what the pointer says, or a newer one that took its place meanwhile; return that."""
        before, _ = read_state(self.folder)
        if before and pointer.serial < before.serial:
            print(f"Warning: {self._back(before, pointer)}", file=sys.stderr, flush=True)
        missing = self._replace_all(pointer)
        for _ in range(_TRIES):
            newest = self.place.pointer() if missing else pointer
            if newest is None or newest == pointer:
                break
            pointer = newest
            missing = self._replace_all(pointer)
        self._lost = {pointer.files[name].object for name in missing}
        if lost := sorted(name for name in missing if not name.endswith(".onnx")):
            objects = ", ".join(f"objects/{pointer.files[name].object}" for name in lost[:3])
            raise RegraftError(
                f"production at {self.place.shown} is damaged: what its pointer names for {', '.join(lost[:3])} is not "
                f"there, or has other bytes. Nothing was promoted. Bring back {objects}, or an earlier production.json."
            )
        return pointer

    def _replace_all(self, pointer: Pointer) -> list[str]:
        """Replace what differs, and return what could not be fetched; of a missing model no file is there then."""
        remove_others(self.folder, pointer)
        wanted, sound = compare(self.folder, pointer)
        missing = [name for name in wanted if not self._fill(name, pointer.files[name], sound)]
        write_state(self.folder, pointer)
        return missing

    def _fill(self, name: str, stored: Stored, sound: dict[str, str]) -> bool:
        """Write a file that is missing or another one; False if that is not possible."""
        path = self.folder / name
        if stored.sha256 in sound:
            with replacing(path) as temporary:
                shutil.copyfile(self.folder / sound[stored.sha256], temporary)
            return True
        if can_wait(name):
            if not path.is_file() or path.stat().st_size:
                write_bytes(path, b"")
            return True
        if self._fetch(path, stored):
            sound[stored.sha256] = name
            return True
        path.unlink(missing_ok=True)
        return False

    def _fetch(self, path: Path, stored: Stored) -> bool:
        """Fetch a file; False if its object is not there, or holds other bytes."""
        try:
            with replacing(path) as temporary:
                self.place.fetch_object(stored, temporary)
                if temporary.stat().st_size != stored.size or sha256_of(temporary) != stored.sha256:
                    raise FileNotFoundError("other bytes")
        except FileNotFoundError:
            return False
        return True

    def _send(self, base: Pointer, tag: str) -> None:
        """Write what the block changed to the address: objects first, the pointer last."""
        files = self._stored(base)
        if files == base.files:
            return
        pointer = base.next(files)
        if not self.place.replace(pointer, tag):
            self._bring(self.place.pointer() or base)
            raise self._overtaken()
        write_state(self.folder, pointer)
        if pointer.serial % _SWEEP_EVERY == 0:
            self.place.sweep(base.objects() | pointer.objects())

    def _stored(self, base: Pointer) -> dict[str, Stored]:
        """Send what is new, and return all files with their objects."""
        known, looks = read_state(self.folder)
        if known != base:  # what is here would be taken for all that there is
            words = "was removed or changed while it was in use. Run the same command again."
            raise RegraftError(f"the mirror of production at {self.place.shown} {words}")
        here = looks_of(self.folder)
        by_digest = {stored.sha256: stored for stored in base.files.values() if stored.object not in self._lost}
        # What could not be fetched was not removed by anybody.
        lost = {name for name, stored in base.files.items() if stored.object in self._lost}
        files = {name: base.files[name] for name in lost - here.keys()}
        for name, look in here.items():
            stored = base.files.get(name)
            is_unchanged = stored is not None and looks.get(name) == look
            if stored and (is_stand_in(look, stored) or (is_unchanged and name not in lost)):
                files[name] = stored
                continue
            digest = sha256_of(self.folder / name)
            if digest not in by_digest:
                by_digest[digest] = Stored.new(digest, look[0])
                self.place.send_object(self.folder / name, by_digest[digest].object)
            files[name] = by_digest[digest]
        return dict(sorted(files.items()))

    def _overtaken(self) -> Overtaken:
        return Overtaken(
            f"another machine changed production at {self.place.shown} at the same moment, and was first. Nothing of "
            f"this change was written. Run the same command again: it starts from what is there now."
        )

    def _back(self, before: Pointer, now: Pointer) -> str:
        # A rollback is a change as well, with a number of its own.
        return (
            f"production at {self.place.shown} went back: this machine has seen change {before.serial} of {before.at}, "
            f"and now there is change {now.serial} of {now.at}. Somebody brought an older production.json back, or "
            f"founded production anew; promotions and rollbacks since then are lost. If nobody meant that, find out "
            f"who may write there, and see `regraft promote --history`."
        )

    def _gone(self) -> RegraftError:
        return RegraftError(
            f"production at {self.place.shown} is gone: this machine knows models of it, and production.json is not "
            f"there. Nothing was promoted. Bring it back; if that production was given up, remove {self.folder.parent}."
        )


def mirror_at(folder: Path) -> Mirror | None:
    """Return the mirror that a folder is; None of a folder that mirrors no address."""
    address = address_of(folder)
    return Mirror(folder, address) if address else None


def refreshed(folder: Path) -> Path:
    """Return a folder of production with what has changed at its address; raises as `Mirror.refresh` does."""
    if mirror := mirror_at(folder):
        mirror.refresh()
    return folder


def expect_founded(folder: Path) -> None:
    """Raise RegraftError if a folder mirrors an address where there is no production."""
    if mirror := mirror_at(folder):
        mirror.place.pointer_to_replace()


def obtain(path: Path) -> None:
    """Have a model of production here before it is read; `path` lies in a folder of the mirror, or in a plain one."""
    if mirror := mirror_at(path.parents[1]):
        mirror.obtain(path)
