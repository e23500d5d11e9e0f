import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from regraft.backbones.trunk import Trunk
from regraft.cluster.connection import Cluster
from regraft.cluster.jobs import Seat
from regraft.core.errors import RegraftError
from regraft.features.extraction import Extractor
from regraft.features.forward_passes import ForwardPasses, Work, open_feature_store
from regraft.features.on_cluster import Extraction
from regraft.features.table import write_features
from regraft.photos.dataset import Dataset
from regraft.photos.elsewhere import Elsewhere
from regraft.photos.spool import Spool
from regraft.photos.views import Views
from tests.support.library import MACHINE, extractor_of

LOCAL = Cluster("local:2", threads=2, show=print, tell=print)


@pytest.fixture
def few(dataset: Dataset) -> Dataset:
    """Eight photos, some of each split."""
    rows = dataset.rows.groupby("split").head(3).head(8)
    return dataset.with_rows(rows.reset_index(drop=True))


@pytest.fixture
def job(few: Dataset, views: Views, trunk: Trunk, tmp_path: Path) -> Callable[..., Extraction]:
    """A function that returns what a worker is told, and makes a change to it."""
    passes = ForwardPasses(views, trunk, open_feature_store(tmp_path, trunk), MACHINE)
    made = Extraction.of(passes, few, works_of(few), is_local=True)
    return lambda **changes: replace(made, **changes)


@pytest.fixture
def seat(tmp_path: Path) -> Seat:
    """A worker that sees the store."""
    return Seat(threads=1, neighbours=1, store=tmp_path)


def works_of(photos: Dataset) -> list[Work]:
    return [Work(photo, [0], []) for photo in photos.photos()]


def test_two_workers_write_the_same_file_as_this_process(few, views, trunk, tmp_path, capsys):
    few = replace(few, elsewhere=Elsewhere(("https",), False, Spool(tmp_path / "photos", 0.0), 0.0))  # travels too
    alone = extractor_of(views, trunk, tmp_path / "alone")
    alone.fill_store(few, activations="stored", on_progress=print)
    write_features(tmp_path / "alone.arrow", alone, few)
    capsys.readouterr()
    shared = replace(extractor_of(views, trunk, tmp_path / "shared"), cluster=LOCAL)
    receipt = shared.fill_store(few, activations="stored", on_progress=print)
    write_features(tmp_path / "shared.arrow", shared, few)
    assert (tmp_path / "shared.arrow").read_bytes() == (tmp_path / "alone.arrow").read_bytes()
    assert (receipt.computed, receipt.from_store) == (receipt.rows, 0)
    assert shared.missing(few, activations="verified") == set()
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("http://127.0.0.1:") or said[1].startswith("http://127.0.0.1:")
    assert said[-1] == f"{receipt.rows} {receipt.rows}"


def test_where_nothing_is_missing_no_cluster_is_started(few, views, trunk, tmp_path):
    extractor_of(views, trunk, tmp_path).fill_store(few, activations="none", on_progress=print)
    nowhere = replace(LOCAL, address="tcp://127.0.0.1:9")
    again = replace(extractor_of(views, trunk, tmp_path), cluster=nowhere)
    assert again.fill_store(few, activations="none", on_progress=print).computed == 0


def test_without_a_cluster_no_line_of_dask_is_imported():
    code = "import sys, regraft.features.extraction; sys.exit('dask' in sys.modules or 'distributed' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_engine_that_computes_in_batches_is_refused(few, views, batching, tmp_path):
    with pytest.raises(
        RegraftError, match=r"machine\.cluster is local:2, and backbone\.engine computes with tensorflow"
    ):
        replace(extractor_of(views, batching, tmp_path), cluster=LOCAL).fill_store(
            few, activations="none", on_progress=print
        )


def test_a_prepared_worker_computes_what_this_process_does(few, job, seat, trunk, store, views):
    assert job().begin(seat)(works_of(few)).views == 8
    ours = open_feature_store(seat.store, trunk)
    keys = [views.key(photo.source, 0) for photo in few.photos()]
    assert (ours.features.read(keys) == store.features.read(keys)).all()


def test_a_worker_that_does_not_see_the_store_sends_its_rows_to_the_shared_one(
    few, views, trunk, tmp_path, monkeypatch
):
    machine = MACHINE.model_copy(update={"shared_store": str(tmp_path / "shared")})
    passes = ForwardPasses(
        views, trunk, open_feature_store(tmp_path / "here", trunk, shared=machine.shared_store), machine
    )
    monkeypatch.setattr("regraft.cluster.jobs.own_folder", lambda: tmp_path / "there")
    job = Extraction.of(passes, few, works_of(few), is_local=False)
    job.begin(Seat(threads=1, neighbours=1, store=None))(works_of(few))
    passes.store.features.refresh()
    assert passes.store.features.missing([views.key(photo.source, 0) for photo in few.photos()]) == []


def test_a_worker_with_another_graph_is_refused(job, seat):
    with pytest.raises(RegraftError, match=r"graph .* is not the one that it was"):
        job(graph=b"another graph").begin(seat)


def test_a_worker_that_does_not_see_the_store_is_refused(job, seat):
    with pytest.raises(RegraftError, match=r"It does not see the store .*machine\.shared_store"):
        job().begin(replace(seat, store=None))


def test_a_worker_that_would_write_elsewhere_is_refused(job, seat):
    with pytest.raises(RegraftError, match="It would write into"):
        job(namespaces=("features-1", "activations-1")).begin(seat)


def test_a_worker_without_the_photos_is_refused(job, seat, few, tmp_path):
    photos = job().photos
    with pytest.raises(RegraftError, match=r"It cannot read .*Mount the same data folder"):
        job(photos=replace(photos, dataset=replace(photos.dataset, folder=tmp_path))).begin(seat)


def test_what_workers_say_they_have_written_is_looked_for(few, views, trunk, tmp_path, monkeypatch):
    monkeypatch.setattr("regraft.features.extraction.compute_on_cluster", lambda *_: None)
    extractor: Extractor = replace(extractor_of(views, trunk, tmp_path), cluster=LOCAL)
    with pytest.raises(RegraftError, match="of 8 photos it is not in the store"):
        extractor.fill_store(few, activations="none", on_progress=print)
