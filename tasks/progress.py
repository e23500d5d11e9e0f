"""How far a stage is: bars on the terminal, and a progress artifact in the Prefect UI."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol, cast
from uuid import UUID

_PROGRESS_SECONDS = 2.0  # between two updates of Prefect's progress artifact

Report = Callable[[int, int], None]


class Progress(Protocol):
    """What a stage gets to say how far it is: `progress("photos")` returns a function of done and total."""

    def __call__(self, what: str) -> Report: ...


@contextmanager
def terminal_progress(name: str) -> Iterator[Progress]:
    """Progress bars on the terminal, one per thing that is counted."""
    from tqdm import tqdm

    bars: list[tqdm] = []

    def progress(what: str) -> Report:
        bar: tqdm | None = None

        def report(done: int, total: int) -> None:
            nonlocal bar
            if bar is None and total:  # nothing to do needs no bar
                bar = tqdm(total=total, desc=name, unit=f" {what}", dynamic_ncols=True, mininterval=0.5)
                bars.append(bar)
            if bar is not None:
                bar.update(done - bar.n)

        return report

    try:
        yield progress
    finally:
        for bar in bars:
            bar.close()


@contextmanager
def prefect_progress(name: str) -> Iterator[Progress]:
    """Progress on the terminal and, every few seconds, as a progress artifact of this task run."""
    from prefect.artifacts import create_progress_artifact, update_progress_artifact

    with terminal_progress(name) as terminal:

        def progress(what: str) -> Report:
            on_terminal = terminal(what)
            artifact: UUID | None = None
            start = last = time.monotonic()

            def report(done: int, total: int) -> None:
                nonlocal artifact, last
                on_terminal(done, total)
                if not total:
                    return
                percent = 100.0 * done / total
                if artifact is None:
                    key = re.sub(r"[^a-z0-9]+", "-", f"{name} {what} progress".lower())
                    artifact = cast(UUID, create_progress_artifact(percent, key=key, description=f"{name}: {what}"))
                elif done == total or time.monotonic() - last > _PROGRESS_SECONDS:
                    words = f"{name}: {done} of {total} {what}{_pace(done, total, time.monotonic() - start)}"
                    update_progress_artifact(artifact, percent, description=words)
                else:
                    return
                last = time.monotonic()

            return report

        yield progress


def _pace(done: int, total: int, seconds: float) -> str:
    """How fast it goes and how long it will take, in words."""
    if not done or seconds < _PROGRESS_SECONDS:
        return ""
    left = timedelta(seconds=round((total - done) * seconds / done))
    return f", {done / seconds:.1f} a second, {left} left"
