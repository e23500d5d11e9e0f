"""A server that fails now and then: what a run makes of it."""

from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest

from regraft.store.namespace import Namespace, open_namespace
from tests.support.faulty_s3 import FAULTS, FaultyServer, faulty_s3
from tests.support.store import KEYS, VALUES, fill


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    """A server that fails every eighth call and lists objects some seconds late."""
    with faulty_s3(every=8, late_seconds=5.0) as (server, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        fsspec.filesystem("s3").clear_instance_cache()
        yield server
    fsspec.filesystem("s3").clear_instance_cache()


@pytest.fixture
def machine(tmp_path: Path, server: FaultyServer) -> Callable[[str], Namespace]:
    shared = f"s3://faulty/{tmp_path.name}"
    return lambda name: open_namespace(tmp_path / name, "features", {}, shape=(4,), dtype="float32", shared=shared)


def test_errors_dropped_connections_and_late_listings_of_a_server_cost_no_row_and_stop_nothing(machine, server):
    first = machine("a")
    for rows in ((0, 1), (2, 3, 4, 5)):
        fill(first, *rows)
        first.refresh()  # its last shard is in no listing yet
        assert first.missing(KEYS[: rows[-1] + 1]) == []
    server.late_seconds = 0
    for name in ("a", "b"):
        reader = machine(name)
        assert reader.missing(KEYS) == []
        assert np.array_equal(reader.read(KEYS), VALUES)
    assert sum(server.calls[fault] for fault in FAULTS) >= 3
