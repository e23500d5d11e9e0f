"""The store, or the one that machines share, is deleted at any moment of a run of `cache_features`."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from regraft.core.files import md5_of
from tests.stress.kills import Reference
from tests.stress.stage_processes import Project

# Seconds after the start: the graph is read in the first tenth, rows are written until about 0.7. A graph that is gone
# is converted again, which takes seconds.
MOMENTS = [0, 0.02, 0.08, 0.4]


@pytest.mark.parametrize("where", ["with a shared store", "the shared store"])
def test_a_store_that_is_deleted_at_any_moment_is_an_error_that_says_what_to_do_or_none(
    make: Callable[..., Project], undisturbed_run: tuple[Project, Reference], tmp_path: Path, where: str
) -> None:
    source, reference = undisturbed_run
    project = source
    for number, moment in enumerate(MOMENTS):
        share = tmp_path / f"share{number}"
        project = make(tmp_path / str(number), copy_of=source.store, empty=True, shared=str(share))
        worker = project.start(flush_rows=8)
        time.sleep(moment)
        shutil.rmtree(share if where == "the shared store" else project.store, ignore_errors=True)
        status = worker.wait()
        assert "Traceback" not in worker.message, worker.message
        assert status in (0, 1), worker.message
        if status:
            assert "stopped: " in worker.message, worker.message
    if where != "the shared store":
        again = project.start()
        assert again.wait() == 0, again.message
        assert md5_of(project.features) == reference.features
