"""One at a time: whoever changes production is the only one, on this machine and wherever else production is used.

On this machine that is a lock. Where production lies at an address, a change starts from what is there now and is
written there when the block has ended, unless another machine was faster: then nothing of it counts, here or there.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from regraft.core.errors import Overtaken, RegraftError
from regraft.production.lock import locked
from regraft.production.mirror import mirror_at
from regraft.production.pointer import first_pointer

_ATTEMPTS = 6
_P = ParamSpec("_P")
_R = TypeVar("_R")


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
    with locked(folder, doing, patience=patience):
        mirror = mirror_at(folder)
        if mirror is None:
            yield
            return
        with mirror.changing():
            yield


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
    """Let model.onnx at the address be the model in production; a folder that mirrors none is as it is.

    The pointer says what is in production. This copy is for services that read one fixed name, and follows it.
    """
    if mirror := mirror_at(folder):
        with locked(folder, "publishing the model", patience=patience), mirror.changing():
            mirror.publish()


def found(folder: Path, *, patience: float) -> None:
    """Found production at the address that a folder mirrors: without a model, so that a first one may come in.

    Raises:
        RegraftError: there is production already, or the folder mirrors no address.
    """
    mirror = mirror_at(folder)
    if mirror is None:
        raise RegraftError(
            f"a first promotion has to be asked for only where paths.production is an address. It is {folder}, a "
            f"folder of this machine: `regraft promote` puts a first model there by itself."
        )
    with locked(folder, "founding production", patience=patience):
        if not mirror.place.found(first_pointer()):
            raise RegraftError(
                f"there is production at {mirror.place.shown} already, so there is no first promotion. `regraft "
                f"promote` compares with the model that is in production there, `regraft promote --history` tells its "
                f"story."
            )
