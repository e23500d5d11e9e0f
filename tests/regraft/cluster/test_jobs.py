from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from regraft.cluster import Seat, Unprepared, jobs
from regraft.cluster.jobs import Work, prepare, work


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
    return jobs._prepared


def order(name: str, store: Path, token: str = "token") -> jobs._Order:
    return jobs._Order(name, Telling(name), store, token)


def test_a_worker_sees_the_store_if_it_sees_the_file_that_was_put_there(tmp_path):
    (tmp_path / "token").touch()
    prepare(order("seen", tmp_path), 3, 2)
    prepare(order("other", tmp_path, "token of another machine"), 3, 2)
    assert work("seen", [1, 2]) == ("seen", Seat(3, 2, tmp_path), [1, 2])
    assert work("other", []) == ("other", Seat(3, 2, None), [])


def test_a_process_that_was_not_prepared_says_so():
    with pytest.raises(Unprepared):
        work("another", [])


def test_a_worker_is_ready_for_the_last_two_lists(tmp_path, prepared):
    for name in ("first", "second", "third"):
        prepare(order(name, tmp_path), 1, 1)
    assert list(prepared) == ["second", "third"]
