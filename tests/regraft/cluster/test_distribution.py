import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from regraft.cluster import distribution
from regraft.cluster.distribution import Distribution
from regraft.cluster.steps import Failure, NotInSight, Part, PushedOut, Steps, Unprepared, attempt
from regraft.core.errors import MissingPhotos, RegraftError


class Died(Exception):
    """The process of a worker has ended."""


class FakeWorkers:
    """Workers that do at once, in this process, what they are given; one that dies comes back under a new address."""

    def __init__(self, *addresses: str, work: Callable[[str, Any], Any] = lambda worker, items: list(items)) -> None:
        self.alive = dict.fromkeys(addresses, 1)
        self.has_scheduler = True
        self.work, self.deaths = work, 0
        self.given: list[tuple[str, list]] = []
        self.prepared: list[str] = []

    def live(self) -> dict[str, int]:
        if not self.has_scheduler:
            raise RegraftError("The scheduler has gone away.")
        return dict(self.alive)

    def submit(self, worker: str, function: Callable[..., Any], *arguments: Any) -> Future:
        future: Future = Future()
        if worker in self.alive:  # else nobody ever answers
            try:
                future.set_result(function(self, worker, *arguments))
            except (RegraftError, Unprepared) as error:
                future.set_result(Failure.of(error))
            except Died:
                self.deaths += 1
                del self.alive[worker]
                self.alive[f"{worker}'"] = 1
        return future


def ask(workers: FakeWorkers, worker: str) -> str:
    return worker


def prepare(workers: FakeWorkers, worker: str) -> None:
    workers.prepared.append(worker)


def work(workers: FakeWorkers, worker: str, items: list) -> Any:
    workers.given.append((worker, list(items)))
    return workers.work(worker, items)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(distribution, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(distribution, "_WAIT_SECONDS", 0.2)


def run(workers: FakeWorkers, parts: list[list], *, refuse: Callable[[str], str] = lambda answer: "") -> list:
    """Return all items that were done, in order; what becomes of workers is printed."""
    steps = Steps((ask, ()), refuse, lambda worker, live: (prepare, ()), lambda items: (work, (items,)), str, print)
    done: list = []
    for items in Distribution(workers, steps).run([Part(items) for items in parts]):
        done += items
    return sorted(done)


def test_every_item_is_done_once_and_by_all_workers():
    workers = FakeWorkers("a", "b", "c")
    assert run(workers, [[2 * n, 2 * n + 1] for n in range(50)]) == list(range(100))
    assert (len(workers.given), {worker for worker, _ in workers.given}) == (50, {"a", "b", "c"})


def test_no_worker_has_more_than_two_parts_at_a_time():
    class Slow(FakeWorkers):
        running: dict[str, list[tuple[Future, list]]] = {"a": [], "b": []}
        most = 0

        def submit(self, worker, function, *arguments):
            if function is not work:
                return super().submit(worker, function, *arguments)
            future: Future = Future()
            self.running[worker].append((future, arguments[0]))
            self.most = max(self.most, len(self.running[worker]))
            return future

        def live(self):
            for parts in self.running.values():
                if parts:
                    future, items = parts.pop(0)
                    future.set_result(items)
            return super().live()

    workers = Slow("a", "b")
    assert run(workers, [[n] for n in range(20)]) == list(range(20))
    assert workers.most == 2


def test_what_a_lost_worker_was_given_is_done_by_another(capsys):
    def once(worker: str, items: list) -> list:
        if worker == "a":
            raise Died
        return items

    workers = FakeWorkers("a", "b", work=once)
    assert run(workers, [[n] for n in range(10)]) == list(range(10))
    assert workers.deaths == 1
    assert "Worker a was lost. What it was given goes to another one." in capsys.readouterr().out


def test_the_item_that_ends_every_worker_is_named_after_few_deaths_and_all_other_parts_are_done():
    def deadly(worker: str, items: list) -> list:
        if 300 in items:
            raise Died
        return items

    workers = FakeWorkers("a", "b", work=deadly)
    with pytest.raises(RegraftError, match=r"^Every worker ends that is given 300\."):
        run(workers, [list(range(start, start + 512)) for start in range(0, 5120, 512)])
    assert workers.deaths == 3 + 9  # of the whole part, and of its halves down to one photo
    given = {item for _, items in workers.given for item in items}
    assert given == set(range(5120))


def test_where_every_part_is_deadly_the_run_ends_soon():
    def deadly(worker: str, items: list) -> list:
        raise Died

    workers = FakeWorkers("a", "b", work=deadly)
    with pytest.raises(RegraftError, match=r"^Every worker ends that is given"):
        run(workers, [[n] for n in range(100)])
    assert workers.deaths <= 3 * 3 + 3


def test_workers_that_die_by_chance_blame_nothing():
    deaths = iter([True, True, True, True])
    workers = FakeWorkers("a", "b", work=lambda worker, items: died() if next(deaths, False) else items)

    def died():
        raise Died

    assert run(workers, [[n, n] for n in range(10)]) == sorted([*range(10), *range(10)])


def test_a_part_that_fails_is_tried_on_another_worker_and_who_always_fails_gets_no_more(capsys):
    def full(worker: str, items: list) -> list:
        if worker == "a":
            raise RegraftError("The disk is full.")
        return items

    workers = FakeWorkers("a", "b", work=full)
    assert run(workers, [[n] for n in range(30)]) == list(range(30))
    assert sum(worker == "a" for worker, _ in workers.given) <= 4
    assert "Worker a has failed: The disk is full. It is given nothing more." in capsys.readouterr().out


def test_what_fails_everywhere_ends_the_run_with_the_words_of_a_worker():
    def full(worker: str, items: list) -> list:
        raise RegraftError("The disk is full.")

    with pytest.raises(RegraftError, match=r"Worker [ab] has failed: The disk is full"):
        run(FakeWorkers("a", "b", work=full), [[1], [2], [3]])


def test_a_photo_that_has_changed_ends_the_run_at_once():
    def changed(worker: str, items: list) -> list:
        raise MissingPhotos("a.jpg has changed.")

    workers = FakeWorkers("a", work=changed)
    with pytest.raises(MissingPhotos, match=r"^a\.jpg has changed\.$"):
        run(workers, [[1], [2], [3]])
    assert len(workers.given) <= 2


def test_a_worker_that_differs_is_refused_in_words_and_given_nothing(capsys):
    workers = FakeWorkers("a", "b")
    run(workers, [[n] for n in range(9)], refuse=lambda answer: "pillow: expected 13, received 12" * (answer == "a"))
    assert {worker for worker, _ in workers.given} == {"b"}
    assert workers.prepared == ["b"]
    assert "Worker a is refused. pillow: expected 13, received 12" in capsys.readouterr().out


def test_where_all_workers_are_refused_the_run_ends_with_the_reasons():
    with pytest.raises(RegraftError, match=r"Worker a is refused\. other sources.*No worker is left"):
        run(FakeWorkers("a"), [[1]], refuse=lambda answer: "other sources")


def test_a_worker_that_cannot_even_answer_is_refused_by_the_kind_of_its_error_alone():
    class Foreign(FakeWorkers):
        def submit(self, worker, function, *arguments):
            future: Future = Future()
            future.set_exception(ModuleNotFoundError("No module named 'secret'", name="regraft"))
            return future

    with pytest.raises(RegraftError, match=r"Worker a is refused. ModuleNotFoundError \(regraft\)\. No worker"):
        run(Foreign("a"), [[1]])


def test_a_worker_that_was_started_again_at_its_address_is_prepared_again():
    processes = iter([False, True])  # whether the process that gets a part is the one that was prepared

    def restarted(worker: str, items: list) -> list:
        if not next(processes, True):
            raise Unprepared
        return items

    workers = FakeWorkers("a", work=restarted)
    assert run(workers, [[1], [2]]) == [1, 2]
    assert workers.prepared == ["a", "a"]


def test_a_worker_that_has_made_room_for_other_lists_is_prepared_again_and_blames_nothing(capsys):
    pushed_out = iter([True] * 9)

    def crowded(worker: str, items: list) -> list:
        if next(pushed_out, False):
            raise PushedOut
        return items

    workers = FakeWorkers("a", work=crowded)
    assert run(workers, [[1, 2]]) == [1, 2]
    assert (len(workers.prepared), capsys.readouterr().out) == (10, "")


def test_whoever_asks_is_told_if_all_workers_lack_files_and_nothing_else_is_wrong():
    class Unseeing(FakeWorkers):
        def submit(self, worker, function, *arguments):
            future: Future = Future()
            future.set_result(Failure(NotInSight if worker in seeing_nothing else RegraftError, "Why not."))
            return future

    seeing_nothing = {"a", "b"}
    with pytest.raises(NotInSight, match=r"Worker a is refused\. Why not\."):
        run(Unseeing("a", "b"), [[1]])
    seeing_nothing = {"a"}
    with pytest.raises(RegraftError) as error:
        run(Unseeing("a", "b"), [[1]])
    assert not isinstance(error.value, NotInSight)


def test_a_worker_that_joins_later_gets_parts():
    class Growing(FakeWorkers):
        def live(self):
            if len(self.given) > 2:
                self.alive["late"] = 1
            return super().live()

    workers = Growing("a")
    assert run(workers, [[n] for n in range(10)]) == list(range(10))
    assert "late" in {worker for worker, _ in workers.given}


def test_a_scheduler_that_dies_ends_the_run():
    def last(worker: str, items: list) -> list:
        workers.has_scheduler = len(workers.given) < 3
        return items

    workers = FakeWorkers("a", work=last)
    with pytest.raises(RegraftError, match="scheduler has gone away"):
        run(workers, [[n] for n in range(10)])


def test_workers_that_die_while_they_are_prepared_end_the_run(monkeypatch):
    def die(workers: FakeWorkers, worker: str) -> None:
        raise Died

    steps = Steps((ask, ()), lambda _: "", lambda worker, live: (die, ()), lambda items: (work, (items,)), str, print)
    with pytest.raises(RegraftError, match="10 workers ended, one after the other, while they were prepared"):
        list(Distribution(FakeWorkers("a", "b"), steps).run([Part([1])]))


def test_without_a_worker_the_run_waits_and_then_says_so():
    begun = time.monotonic()
    with pytest.raises(RegraftError, match="has had no worker for"):
        run(FakeWorkers(), [[1]])
    assert time.monotonic() - begun >= 0.2


def test_an_exception_that_cannot_travel_is_answered_in_words_without_its_text(capsys):
    class Odd(Exception):
        """Pickle has no way to it: its class is inside a function."""

    def fail() -> None:
        raise Odd("s3://user:secret@bucket")

    assert attempt(fail) == Failure(RegraftError, "Odd.")
    assert "raise Odd" in capsys.readouterr().err
    assert attempt(divmod, 7, 2) == (3, 1)
