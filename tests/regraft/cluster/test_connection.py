import sys
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from regraft.cluster import connection
from regraft.cluster.connection import Cluster
from regraft.core.errors import RegraftError
from tests.support.library import MACHINE


def cluster_at(address: str) -> Cluster:
    return Cluster(address, threads=1, show=print, tell=print)


def test_without_dask_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(RegraftError, match=r"local:2, which needs Dask.*pip install '\.\[cluster\]'"),
        cluster_at("local:2").connected(),
    ):
        pass


def test_a_scheduler_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(connection, "_REACH_SECONDS", 0.5)
    with (
        pytest.raises(RegraftError, match=r"The Dask scheduler tcp://127.0.0.1:9 cannot be reached"),
        cluster_at("tcp://127.0.0.1:9").connected(),
    ):
        pass


def test_a_scheduler_whose_connection_is_lost_is_named():
    client = SimpleNamespace(status="connecting", get_executor=lambda **_: None)
    with pytest.raises(
        RegraftError, match=r"tcp://10\.0\.0\.1:8786 has gone away .*: the connection is lost\. What its"
    ):
        connection.DaskWorkers(client, "tcp://10.0.0.1:8786").live()


@pytest.mark.parametrize("address", ["local:1", "local:64", "tcp://10.0.0.1:8786", "tls://scheduler.dask:8786"])
def test_an_address_of_a_cluster_is_taken(address):
    assert type(MACHINE).model_validate({**MACHINE.model_dump(), "cluster": address}).cluster == address


@pytest.mark.parametrize(
    "address",
    ["", "local", "local:0", "tcp://host", "http://host:80", "tcp://user:secret@host:8786", "tcp://host:8786/x"],
)
def test_anything_else_is_refused(address):
    with pytest.raises(ValidationError, match="must be null, local:N"):
        type(MACHINE).model_validate({**MACHINE.model_dump(), "cluster": address})


@pytest.mark.parametrize(("threads", "workers", "each"), [(8, 2, 4), (2, 4, 1), (5, 2, 2)])
def test_local_workers_share_the_threads_of_one_process(threads, workers, each):
    assert Cluster(f"local:{workers}", threads, print, print)._local_threads() == each
