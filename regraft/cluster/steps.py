"""What workers are asked to do, and the parts of the list that they are given."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from regraft.core.addresses import named
from regraft.core.errors import RegraftError

Call = tuple[Callable[..., Any], tuple[Any, ...]]  # a function that a worker finds by its name, and its arguments


class Unprepared(Exception):
    """The process of a worker is another one than that which was prepared: it has been started again."""


class PushedOut(Unprepared):
    """The process is the one that was prepared, and has made room for other lists since."""


class NotInSight(RegraftError):
    """A worker lacks files that this process has; who has them can go on alone."""


@dataclass(frozen=True, slots=True)
class Steps:
    """What workers do, and how their answers are taken."""

    ask: Call  # what the worker is; with plain values only, since it may have other sources
    refuse: Callable[[Any], str]  # says why a worker of this answer can be given nothing; empty where it can
    prepare: Callable[[str, dict[str, int]], Call]  # of a worker's address, and the threads of all workers by address
    work: Callable[[Sequence[Any]], Call]  # of the items of a part
    name: Callable[[Any], str]  # of an item, for people
    tell: Callable[[str], None]  # is told what became of workers


@dataclass(eq=False, slots=True)
class Part:
    """Some items of the list."""

    items: Sequence[Any]
    is_suspect: bool = False  # half of a part that workers died of
    deaths: int = 0
    failures: int = 0
    failed_at: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Failure:
    """What a worker answers instead of an exception.

    Some exceptions cannot be pickled, or not read again, and Dask's client would wait for them for ever.
    """

    kind: type[Exception]  # a class of ours; of all others RegraftError
    words: str

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        """Return what became of an attempt; the text of an error that is not ours may hold a secret."""
        if isinstance(error, RegraftError | Unprepared):
            return cls(type(error), str(error))
        return cls(RegraftError, f"{named(error)}.")


def attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function on a worker, whose log has the traceback if it fails."""
    try:
        return function(*arguments)
    except Exception as error:  # whatever it is, it must not travel as it is
        if not isinstance(error, RegraftError | Unprepared):
            traceback.print_exc()
        return Failure.of(error)
