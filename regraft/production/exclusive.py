"""One at a time: who changes production is the only one, on this machine and wherever else production is used.

On this machine that is a lock. Where production lies at an address, a change starts from what is there now and is
written there when the block has ended, unless another machine was faster: then nothing of it counts, here or there.
"""

import math
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from regraft.core.addresses import shown_path
from regraft.core.errors import Busy, Overtaken, RegraftError
from regraft.core.files import open_regular
from regraft.production.remote_registry import LOCK, MODEL, Pointer, registry_at

PATIENCE_SECONDS = 30.0  # a change takes as long as two copies of a model
_LOOK_SECONDS = 10.0  # readers of one command ask many times, and one look at the address serves them all
_ATTEMPTS = 6
_P = ParamSpec("_P")
_R = TypeVar("_R")

_looked: dict[Path, float] = {}  # when this process compared each mirror with its address
_held: dict[Path, Pointer] = {}  # mirrors that this process is changing, and what it started from


@contextmanager
def exclusive(folder: Path, doing: str, *, patience: float) -> Iterator[None]:
    """Keep others from changing production while the block runs.

    Args:
        folder: models/production, or the mirror of an address; made if it is not there.
        doing: what the block does, for those who wait.
        patience: so many seconds another process of this machine is waited for.

    Raises:
        Busy: another process of this machine is changing it.
        Overtaken: another machine has changed it meanwhile.
        RegraftError: the folder cannot be written to, or the address cannot be reached.
    """
    with _locked(folder, doing, patience=patience):
        registry, key = registry_at(folder), folder.absolute()
        if registry is None:
            yield
            return
        _looked.pop(key, None)
        try:
            with registry.changing() as base:
                _held[key] = base
                yield
        finally:
            _held.pop(key, None)
        _looked[key] = time.monotonic()


def refreshed(folder: Path) -> Path:
    """Return a folder of production after fetching what has changed at its address.

    Raises:
        RegraftError: the address cannot be reached, or what lies there is damaged or gone.
        Busy: another process of this machine is changing it.
    """
    key = folder.absolute()
    if key in _held or time.monotonic() - _looked.get(key, -math.inf) < _LOOK_SECONDS:
        return folder
    if registry := registry_at(folder):
        if not registry.is_current():
            with _locked(folder, "fetching what others changed", patience=PATIENCE_SECONDS):
                registry.bring(registry.pointer_to_replace()[0])
        _looked[key] = time.monotonic()
    return folder


def obtain(path: Path) -> None:
    """Fetch a model of a remote registry before it is read; `path` lies in a folder of the mirror or a plain one."""
    folder = path.parents[1]
    if registry := registry_at(folder):
        if base := _held.get(folder.absolute()):
            registry.obtain(path, base)
        elif path.is_file() and not path.stat().st_size:
            with _locked(folder, "fetching a model", patience=PATIENCE_SECONDS):
                registry.obtain(path, registry.state())


def repeated(change: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a change that another machine overtook be made again, from what is there then; at last it gives up."""

    @wraps(change)
    def attempts(*arguments: _P.args, **named: _P.kwargs) -> _R:
        for attempt in range(1, _ATTEMPTS):
            try:
                return change(*arguments, **named)
            except Overtaken:
                time.sleep(random.uniform(0, 0.2 * attempt))  # noqa: S311
        return change(*arguments, **named)

    return attempts


@repeated
def publish(folder: Path, *, patience: float) -> None:
    """Let model.onnx at the address be the model in production, for services that read one fixed name."""
    if registry := registry_at(folder):
        with exclusive(folder, "publishing the model", patience=patience):
            registry.publish(_held[folder.absolute()], folder / MODEL)


def expect_founded(folder: Path) -> None:
    """Raise RegraftError if a folder mirrors an address where there is no production."""
    if registry := registry_at(folder):
        registry.pointer_to_replace()


def found(folder: Path, *, patience: float) -> None:
    """Found production at the address that a folder mirrors: without a model, so that a first one may come in.

    Raises:
        RegraftError: there is production already, or the folder mirrors no address.
    """
    registry = registry_at(folder)
    if registry is None:
        raise RegraftError(
            f"a first promotion has to be asked for only where paths.production is an address. It is {folder}, a "
            f"folder of this machine: `regraft promote` puts a first model there by itself."
        )
    with _locked(folder, "founding production", patience=patience):
        if not registry.found({}):
            raise RegraftError(
                f"there is production at {registry.remote.shown} already, so there is no first promotion. `regraft "
                f"promote` compares with the model that is in production there, `regraft promote --history` tells its "
                f"story."
            )


@contextmanager
def _locked(folder: Path, doing: str, *, patience: float) -> Iterator[None]:
    """Hold the lock of a folder while the block runs; an error of the system becomes a readable one."""
    from filelock import FileLock, Timeout

    lock = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=patience):
            now = datetime.now(UTC).isoformat(timespec="seconds")
            # In place: the lock belongs to this very file. Nothing depends on the text.
            lock.write_text(f"process {os.getpid()} on {socket.gethostname()}, which is {doing} since {now}")
            yield
    except Timeout:
        raise Busy(
            f"{shown_path(folder)} is being changed by {_holder(lock)}. It was waited for {patience:g} seconds; "
            f"production was not touched. Wait until that process has ended, or end it, and run this again."
        ) from None
    except OSError as error:
        name = f" ({shown_path(Path(os.fsdecode(error.filename)))})" if error.filename else ""
        raise RegraftError(
            f"{shown_path(folder)} could not be changed: {error.strerror or error}{name}. It should be a folder that "
            f"can be written to, with room for another model. See to that and run the same command again: what was "
            f"begun is completed or undone then."
        ) from error


def _holder(lock: Path) -> str:
    try:
        with open_regular(lock) as file:
            text = file.read(300).decode(errors="replace")
    except OSError:
        return "another process"
    return " ".join(text.split()) or "another process"  # an error shows no control characters (`RegraftError`)
