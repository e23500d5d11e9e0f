"""Parts of a list are handed to workers, and to others where one of them dies.

A worker is asked what it is, then prepared, then given at most two parts at a time: the second one waits there, so that
no worker waits for this process. Whoever computes writes the results; what comes back is small.

A part that was at a worker when it died goes alone to the next one, so that nothing else is suspected with it. At its
third death it is divided, and each half that a worker dies of once more, until one item is left: when all others are
done, the run ends with its name. A part that fails is tried elsewhere first.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Any, Literal

from regraft.cluster.connection import Workers
from regraft.cluster.steps import Failure, NotInSight, Part, PushedOut, Steps, Unprepared
from regraft.core.errors import InvalidData, RegraftError, some

_AT_A_TIME = 2  # parts at one worker: one that is computed, and the next
_DEATHS = 3  # of workers, until a part is at fault
_DEADLY = 3  # items, until it is not them but all workers that are at fault
_FAILURES = 3  # of a part, or of a worker one after the other, until no more is tried
_LOOK_SECONDS = 1.0
_UNREADY = 10  # workers, one after the other, that ended before they could be given anything
_WAIT_SECONDS = 60.0  # for a worker, where there is none


@dataclass(eq=False, slots=True)
class _Worker:
    address: str
    is_ready: bool = False
    failures: int = 0  # one after the other
    parts: list[Part] = field(default_factory=list)  # that it was given


@dataclass(frozen=True, slots=True)
class _Task:
    worker: _Worker
    kind: Literal["ask", "prepare", "work"]
    part: Part | None = None


class Distribution:
    """Hands the parts of one list to workers; used once."""

    def __init__(self, workers: Workers, steps: Steps) -> None:
        self._workers, self._steps = workers, steps
        self._known: dict[str, _Worker] = {}
        self._refused: dict[str, Failure] = {}  # why, by address
        self._tasks: dict[Future, _Task] = {}
        self._waiting: deque[Part] = deque()
        self._deadly: list[Any] = []  # items
        self._looked = self._had_worker = -float("inf")
        self._unready = 0  # workers that were lost while they were prepared, since one was ready
        self._has_lost = False  # whoever starts workers may start a lost one again

    def run(self, parts: Sequence[Part]) -> Iterator[Any]:
        """Yield what the work on each part returned, in the order in which they are done.

        Raises:
            NotInSight: all workers are refused because they lack files.
            RegraftError: an item kills its workers, or a part failed on several; no worker is there, or can be given
                anything; the scheduler has gone away. What others have returned counts nevertheless.
        """
        self._waiting.extend(parts)
        self._had_worker = time.monotonic()
        try:
            while self._waiting or any(task.part for task in self._tasks.values()):
                self._look()
                self._hand_out()
                if not self._tasks:
                    time.sleep(_LOOK_SECONDS)
                done, _ = wait(self._tasks, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from self._take(future)
            if self._deadly:
                self._raise_deadly()
        finally:
            for future in self._tasks:
                future.cancel()

    def _look(self) -> None:
        """See who lives: whoever is new is asked, and what was at those that died goes to others."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        live = self._workers.live()
        for address in self._known.keys() - live.keys():
            self._lose(self._known[address])
        for address in live.keys() - self._known.keys() - self._refused.keys():
            self._known[address] = _Worker(address)
            self._submit(_Task(self._known[address], "ask"), *self._steps.ask)
        for address in self._refused.keys() - live.keys():
            del self._refused[address]  # another one may come at this address
        if self._known:
            self._had_worker = now
        elif (self._refused and not self._has_lost) or now - self._had_worker > _WAIT_SECONDS:
            raise self._no_worker()

    def _no_worker(self) -> RegraftError:
        reasons = " ".join(why.words for why in self._refused.values())
        is_unseen = self._refused and all(issubclass(why.kind, NotInSight) for why in self._refused.values())
        return (NotInSight if is_unseen else RegraftError)(
            f"{reasons or f'The cluster has had no worker for {_WAIT_SECONDS:.0f} seconds.'} No worker is left to "
            "compute with. What was computed is in the store: run again when there is one, or set machine.cluster in "
            "params.yaml to null."
        )

    def _hand_out(self) -> None:
        """Give one part after the other to whoever has fewest."""
        ready = [worker for worker in self._known.values() if worker.is_ready]
        has_given = True
        while has_given and self._waiting:
            has_given = False
            for worker in sorted(ready, key=lambda worker: len(worker.parts)):
                if part := self._part_for(worker, ready):
                    self._waiting.remove(part)
                    worker.parts.append(part)
                    self._submit(_Task(worker, "work", part), *self._steps.work(part.items))
                    has_given = True

    def _part_for(self, worker: _Worker, ready: list[_Worker]) -> Part | None:
        """Return the next part that a worker may be given now."""
        if len(worker.parts) >= _AT_A_TIME or any(part.deaths or part.is_suspect for part in worker.parts):
            return None
        for part in self._waiting:
            must_be_alone = part.deaths or part.is_suspect
            elsewhere = worker.address in part.failed_at and any(w.address not in part.failed_at for w in ready)
            if not (must_be_alone and worker.parts) and not elsewhere:
                return part
        return None

    def _submit(self, task: _Task, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._tasks[self._workers.submit(task.worker.address, function, *arguments)] = task

    def _take(self, future: Future) -> Iterator[Any]:
        """Take what came back from a worker."""
        task = self._tasks.pop(future, None)
        if task is None:
            return  # of a worker that was lost meanwhile
        if future.cancelled():
            self._workers.live()  # which says so if the scheduler has gone away
            self._tasks[future] = task
            self._lose(task.worker)
            return
        error = future.exception()  # where a worker cannot even load what it is asked to call
        answer = future.result() if error is None else Failure.of(error)
        if isinstance(answer, Failure) and issubclass(answer.kind, Unprepared):
            self._tasks[future] = task
            if issubclass(answer.kind, PushedOut):
                self._forget(task.worker)  # it has not died, and is prepared again
            else:
                self._lose(task.worker)
        elif task.part is None:
            self._welcome(task, answer)
        elif isinstance(answer, Failure):
            self._fail(task.worker, task.part, answer)
        else:
            task.worker.parts.remove(task.part)
            task.worker.failures = 0
            yield answer

    def _welcome(self, task: _Task, answer: Any) -> None:
        """Go on with a worker that has said what it is, or was prepared; or refuse it, in words."""
        worker = task.worker
        if not isinstance(answer, Failure):
            answer = Failure(RegraftError, self._steps.refuse(answer) if task.kind == "ask" else "")
        if answer.words:
            self._refuse(worker, Failure(answer.kind, f"Worker {worker.address} is refused. {answer.words}"))
        elif task.kind == "ask":
            self._submit(_Task(worker, "prepare"), *self._steps.prepare(worker.address, self._workers.live()))
        else:
            worker.is_ready = True
            self._unready = 0

    def _refuse(self, worker: _Worker, why: Failure) -> None:
        self._refused[worker.address] = why
        self._steps.tell(why.words)
        self._forget(worker)

    def _forget(self, worker: _Worker) -> list[Part]:
        """Take a worker's tasks back, and return the parts among them."""
        self._known.pop(worker.address, None)
        mine = [future for future, task in self._tasks.items() if task.worker is worker]
        parts = [part for future in mine if (part := self._tasks.pop(future).part)]
        for future in mine:
            future.cancel()
        self._waiting.extendleft(parts)
        return parts

    def _lose(self, worker: _Worker) -> None:
        """A worker has died: what was there goes to others, alone."""
        parts = self._forget(worker)
        self._has_lost = True
        self._unready += not worker.is_ready
        if self._unready >= _UNREADY:
            raise RegraftError(
                f"{_UNREADY} workers ended, one after the other, while they were prepared. Look at their logs. What "
                "was computed is in the store."
            )
        self._steps.tell(f"Worker {worker.address} was lost. What it was given goes to another one.")
        for part in parts:
            part.deaths += 1
            if part.deaths >= _DEATHS or part.is_suspect:
                self._divide(part)

    def _divide(self, part: Part) -> None:
        self._waiting.remove(part)
        if len(part.items) == 1:
            self._deadly += part.items
            if len(self._deadly) >= _DEADLY:
                self._raise_deadly()
            return
        middle = len(part.items) // 2
        self._waiting.extendleft(Part(half, is_suspect=True) for half in (part.items[:middle], part.items[middle:]))

    def _raise_deadly(self) -> None:
        names = some([self._steps.name(item) for item in self._deadly])
        raise RegraftError(
            f"Every worker ends that is given {names}. Look at it and at the logs of the workers; remove it, and run "
            "again. What was computed of others is in the store."
        )

    def _fail(self, worker: _Worker, part: Part, failure: Failure) -> None:
        """Try a part elsewhere; a worker that fails again and again is given no more."""
        if issubclass(failure.kind, InvalidData):
            raise failure.kind(failure.words)
        worker.parts.remove(part)
        part.failures += 1
        part.failed_at.add(worker.address)
        worker.failures += 1
        words = f"Worker {worker.address} has failed: {failure.words}"
        if part.failures >= _FAILURES:
            raise RegraftError(words)
        self._waiting.appendleft(part)
        if worker.failures >= _FAILURES:
            self._refuse(worker, Failure(failure.kind, f"{words} It is given nothing more."))
        else:
            self._steps.tell(f"{words} Another try follows.")
