from dataclasses import replace
from pathlib import Path

import pytest

from regraft.cluster.jobs import Seat
from regraft.core.errors import RegraftError
from regraft.photos import in_sight
from regraft.photos.dataset import Dataset
from regraft.photos.elsewhere import Elsewhere
from regraft.photos.in_sight import InSight, samples_of, share_memory
from regraft.photos.spool import Spool


@pytest.fixture
def mixed(dataset: Dataset, tmp_path: Path) -> Dataset:
    """Photos of a folder, of which the first one is gone, and of two hosts."""
    rows = dataset.rows.head(6).copy()
    rows["path"] = [
        "gone.png",
        rows.path.iloc[1],
        rows.path.iloc[2],
        "https://a.example.org/1.jpg",
        "https://a.example.org/2.jpg",
        "s3://bucket/3.jpg",
    ]
    elsewhere = Elsewhere(("https", "s3"), False, Spool(tmp_path / "photos", 0.0), 0.0)
    return replace(dataset, rows=rows, elsewhere=elsewhere)


def test_a_worker_tries_a_photo_of_each_place_and_of_the_folder_one_that_is_there(mixed):
    paths = [photo.path for photo in samples_of(mixed, mixed.photos())]
    assert paths == [mixed.rows.path.iloc[1], "https://a.example.org/1.jpg", "s3://bucket/3.jpg"]


def test_a_worker_that_reaches_the_folder_but_not_a_host_is_refused_before_it_is_given_photos_of_both(
    mixed, tmp_path, monkeypatch
):
    def unreached(self, url, digest):
        raise RegraftError(f"{url} cannot be fetched: no route to host.")

    photos, seat = InSight.of(mixed, mixed.photos()), Seat(1, 1, tmp_path)
    monkeypatch.setattr(Elsewhere, "file_of", unreached)
    with pytest.raises(RegraftError, match=r"a\.example\.org/1\.jpg cannot be fetched"):
        photos.seen_from(seat)


def test_a_worker_without_the_folder_is_refused_also_where_most_photos_lie_elsewhere(mixed, tmp_path):
    photos = InSight.of(mixed, mixed.photos())
    with pytest.raises(RegraftError, match=r"It cannot read .*Mount the same data folder"):
        replace(photos, dataset=replace(photos.dataset, folder=tmp_path)).seen_from(Seat(1, 1, tmp_path))


def test_workers_of_one_machine_share_its_memory():
    try:
        share_memory(4)
        assert all(budget.total == whole // 4 for budget, whole in in_sight._MEMORY.items())
    finally:
        share_memory(1)
