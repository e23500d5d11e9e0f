"""What workers are asked to do, and the parts of the list that they are given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Call = tuple[Callable[..., Any], tuple[Any, ...]]  # a function that a worker finds by its name, and its arguments


class Unprepared(Exception):
    """The process of a worker is another one than that which was prepared: it has been started again."""


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
