"""Parts on real workers of Dask; a pool of two is started once, since that takes seconds."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import distributed
import pytest
from pydantic import ValidationError

from regraft.cluster import connection, jobs
from regraft.cluster.connection import Cluster
from regraft.cluster.jobs import NotInSight, Seat, Work
from regraft.core.errors import InvalidData, RegraftError
from regraft.core.provenance import LIBRARIES
from regraft.photos.decoder import DecodeLimits
from regraft.photos.scan_on_cluster import FileJob
from regraft.store.facts import Facts
from tests.support.library import MACHINE


@dataclass(frozen=True, slots=True)
class Doubling:
    """A job that answers twice each number, after what it is told to do at some of them."""

    deadly: int = -1  # ends the process of its worker
    fatal: int = -1  # ends it once: a file says that it was done
    wrong: int = -1  # fails with an error that is not ours
    invalid: int = -1
    folder: Path = Path()
    unseen: bool = False

    def begin(self, seat: Seat) -> Work:
        if self.unseen:
            raise NotInSight("It sees no photos.")
        return partial(_double, self, seat)


def _double(job: Doubling, seat: Seat, items: Sequence[int]) -> tuple[Seat, list[int]]:
    for item in items:
        if item == job.deadly or (item == job.fatal and not (job.folder / "done").exists()):
            (job.folder / "done").touch()
            os._exit(1)
        if item == job.wrong:
            raise ValueError("s3://secret@bucket")
        if item == job.invalid:
            raise InvalidData("A photo has changed.")
    return seat, [2 * item for item in items]


class Pool:
    """A cluster whose workers live for all tests of this module."""

    is_local, address = False, "tcp://of-the-test"

    def __init__(self, client: distributed.Client) -> None:
        self.client, self.said = client, []

    def tell(self, words: str) -> None:
        self.said.append(words)

    @contextmanager
    def connected(self) -> Iterator[distributed.Client]:
        yield self.client


@pytest.fixture(scope="module")
def client() -> Iterator[distributed.Client]:
    with Cluster("local:2", threads=2, show=print, tell=print).connected() as client:
        yield client


@pytest.fixture
def start(client, tmp_path, monkeypatch):
    """A function that has workers do a job with the numbers below 16."""
    monkeypatch.setattr(jobs, "_modules_of", lambda _: ["regraft.cluster.jobs"])
    return lambda job: jobs.work_on(Pool(client), job, range(16), store=tmp_path / "store", name="number {}".format)


@pytest.fixture
def answers(start):
    """A function that returns all that workers answer."""
    return lambda job: list(start(job))


def numbers(found: list[tuple[Seat, list[int]]]) -> list[int]:
    return sorted(number for _, part in found for number in part)


def test_each_item_is_answered_once_by_workers_that_share_memory_and_see_the_store(answers, tmp_path):
    found = answers(Doubling())
    assert numbers(found) == [2 * number for number in range(16)]
    assert {seat for seat, _ in found} == {Seat(threads=1, neighbours=2, store=tmp_path / "store")}


def test_what_was_at_a_worker_that_died_goes_to_another(answers, tmp_path):
    assert numbers(answers(Doubling(fatal=5, folder=tmp_path))) == [2 * number for number in range(16)]


def test_an_item_that_ends_every_worker_is_named_and_all_others_are_answered(start, tmp_path):
    job, answered = Doubling(deadly=5, folder=tmp_path), []
    with pytest.raises(RegraftError, match=r"Every worker ends that is given number 5\. Look"):
        answered.extend(start(job))
    assert numbers(answered) == [2 * number for number in range(16) if number != 5]


def test_an_error_of_a_worker_is_named_without_its_text(answers):
    with pytest.raises(RegraftError, match="ValueError") as raised:
        answers(Doubling(wrong=3))
    assert "secret" not in str(raised.value)
    with pytest.raises(InvalidData, match="A photo has changed"):
        answers(Doubling(invalid=3))
    with pytest.raises(NotInSight, match="sees no photos"):
        answers(Doubling(unseen=True))


def test_a_worker_of_another_version_is_refused_with_both_versions(answers, monkeypatch):
    monkeypatch.setattr(jobs, "instruction_set", lambda **_: "other instructions")
    expected = r"Worker tcp://.* is another one .*processor: expected \S+ other instructions, received "
    with pytest.raises(RegraftError, match=expected):
        answers(Doubling())
    with pytest.raises(RegraftError, match=r"numpy: expected 1, received 2; source a: expected x, received None\."):
        jobs._refuse_others({"numpy": "1", "source a": "x"}, {"numpy": "2"}, "tcp://worker")


def test_where_no_worker_comes_the_run_ends_with_words(monkeypatch, tmp_path):
    monkeypatch.setattr(jobs, "_WAIT_SECONDS", 0.5)
    monkeypatch.setattr(jobs, "_modules_of", lambda _: [])
    with distributed.LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=None) as empty:
        answers = jobs.work_on(
            Cluster(empty.scheduler_address, 1, print, print), Doubling(), [1], store=tmp_path, name=str
        )
        with pytest.raises(RegraftError, match=r"tcp://.* has had no worker for 0 seconds"):
            next(answers)


def test_a_worker_is_compared_by_all_that_computing_runs_and_nothing_that_trains():
    job = FileJob(Path(), DecodeLimits(1, 1), partial(Facts, shared=None, max_pixels=1), None)
    assert jobs._modules_of(job) == ("regraft.photos.scan_on_cluster", "regraft.store.facts")
    versions = jobs.versions_of("regraft.features.on_cluster")
    computing = {"regraft.photos.images", "regraft.photos.views", "regraft.backbones.trunk", "regraft.store.shards"}
    assert {f"source {module}" for module in computing} <= versions.keys()
    assert {"tensorflow", "keras"} <= LIBRARIES.keys()
    assert not {"tensorflow", "keras"} & versions.keys()


def test_without_dask_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(RegraftError, match=r"local:2, which needs Dask.*pip install '\.\[cluster\]'"),
        Cluster("local:2", 1, print, print).connected(),
    ):
        pass


def test_a_scheduler_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(connection, "_REACH_SECONDS", 0.5)
    with (
        pytest.raises(RegraftError, match=r"The Dask scheduler tcp://127.0.0.1:9 cannot be reached"),
        Cluster("tcp://127.0.0.1:9", 1, print, print).connected(),
    ):
        pass


@pytest.mark.parametrize("address", ["local:1", "tcp://10.0.0.1:8786", "tls://scheduler.dask:8786"])
def test_an_address_of_a_cluster_is_taken(address):
    assert type(MACHINE).model_validate({**MACHINE.model_dump(), "cluster": address}).cluster == address


@pytest.mark.parametrize("address", ["local", "local:0", "tcp://host", "tcp://user:secret@host:8786"])
def test_anything_else_is_refused(address):
    with pytest.raises(ValidationError, match="must be null, local:N"):
        type(MACHINE).model_validate({**MACHINE.model_dump(), "cluster": address})
