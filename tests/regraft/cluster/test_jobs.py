import os
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from regraft.cluster import jobs
from regraft.cluster.jobs import Seat, Work, prepare, work
from regraft.cluster.steps import PushedOut, Unprepared, attempt
from regraft.photos.decoder import DecodeLimits
from regraft.photos.scan_on_cluster import FileJob
from regraft.store.facts import Facts


@dataclass(frozen=True, slots=True)
class Telling:
    """A job that answers how a worker sits, and what it was given."""

    name: str

    def begin(self, seat: Seat) -> Work:
        def tell(items: Sequence[int]) -> tuple:
            return self.name, seat, list(items)

        return tell


@pytest.fixture(autouse=True)
def prepared(monkeypatch) -> dict[str, Work]:
    """What this process was prepared for as a worker; nothing yet."""
    monkeypatch.setattr(jobs, "_prepared", {})
    monkeypatch.setattr(jobs, "_pushed_out", set())
    return jobs._prepared


def order(name: str, store: Path, token: str = "token") -> jobs._Order:
    return jobs._Order(name, Telling(name), store, token)


def test_a_worker_sees_the_store_if_it_sees_the_file_that_was_put_there(tmp_path):
    (tmp_path / "token").touch()
    prepare(order("seen", tmp_path), 3, 2)
    prepare(order("other", tmp_path, "token of another machine"), 3, 2)
    assert work("seen", [1, 2]) == ("seen", Seat(3, 2, tmp_path), [1, 2])
    assert work("other", []) == ("other", Seat(3, 2, None), [])


def test_a_worker_that_may_not_write_to_the_store_works_as_one_that_does_not_see_it(tmp_path, monkeypatch):
    (tmp_path / "token").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    prepare(order("read-only", tmp_path), 3, 2)
    assert work("read-only", []) == ("read-only", Seat(3, 2, None), [])


def test_a_process_that_was_not_prepared_says_so():
    with pytest.raises(Unprepared):
        work("another", [])


def test_a_worker_is_ready_for_the_lists_that_were_used_last_and_says_which_one_made_room(tmp_path, prepared):
    for name in ("first", "second", "third", "fourth"):
        prepare(order(name, tmp_path), 1, 1)
    work("first", [])
    prepare(order("fifth", tmp_path), 1, 1)
    assert list(prepared) == ["third", "fourth", "first", "fifth"]
    with pytest.raises(PushedOut):
        work("second", [])
    prepare(order("second", tmp_path), 1, 1)
    assert work("second", [1])[0] == "second"


def test_workers_forget_a_list_that_is_done_also_where_whoever_asked_stops(tmp_path, prepared, monkeypatch):
    class Connected:
        """A cluster of other machines; this process is its worker."""

        is_local, tell = False, print

        @contextmanager
        def connected(self):
            yield self

        def live(self) -> dict[str, int]:
            return {"a": 1}

        def submit(self, worker, function, *arguments) -> Future:
            future: Future = Future()
            future.set_result(attempt(function, *arguments))
            return future

    monkeypatch.setattr(jobs, "facts_of", lambda *modules: {"sources": {}, "libraries": {}, "processor": {}})
    prepare(order("another", tmp_path), 1, 1)
    answers = jobs.work_on(Connected(), Telling("mine"), [1, 2], store=tmp_path, name=str)  # type: ignore[arg-type]
    assert next(answers)[0] == "mine"
    assert len(prepared) == 2
    answers.close()
    assert list(prepared) == ["another"]


def test_a_worker_is_compared_by_the_functions_that_a_job_is_given_too():
    job = FileJob(Path(), DecodeLimits(1, 1), partial(Facts, shared=None, max_pixels=1), None)
    assert jobs._modules_of(job) == ("regraft.photos.scan_on_cluster", "regraft.store.facts")
