import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from regraft.dataset import Dataset, read_photo
from regraft.errors import InvalidData
from regraft.extraction import FeatureStore, Receipt, extract_missing, open_feature_store
from regraft.preparation import Preparation
from regraft.store import Namespace, key_of
from regraft.trunk import Trunk

Extract = Callable[..., Receipt]


@pytest.fixture
def few(dataset: Dataset) -> Dataset:
    """Eight photos, some of each split."""
    rows = dataset.rows.groupby("split").head(3).head(8)
    return Dataset(rows.reset_index(drop=True), dataset.class_names)


@pytest.fixture
def extract(raw: Path, preparation: Preparation, trunk: Trunk, tmp_path: Path) -> Extract:
    """A function that runs the extraction on a store of its own, opened anew as by another process."""

    def run(
        dataset: Dataset, *, activations: bool = True, batch_size: int = 4, raw: Path = raw, on_progress=lambda *_: None
    ):
        return extract_missing(
            dataset,
            raw,
            preparation,
            trunk,
            open_feature_store(tmp_path, trunk, preparation),
            with_activations=activations,
            batch_size=batch_size,
            workers=2,
            on_progress=on_progress,
        )

    return run


@pytest.fixture
def opened(trunk: Trunk, preparation: Preparation, tmp_path: Path) -> Callable[[], FeatureStore]:
    """A function that opens the store that `extract` fills."""
    return lambda: open_feature_store(tmp_path, trunk, preparation)


def keys(dataset: Dataset) -> list[bytes]:
    return [key_of(digest) for digest in dataset.rows.digest]


@pytest.mark.parametrize("batch_size", [1, 5])
def test_an_image_has_the_same_features_in_any_batch(extract, opened, few, store, batch_size):
    extract(few, batch_size=batch_size)  # `store` was filled by sixteens
    ours, theirs = opened().features.read(keys(few)), store.features.read(keys(few))
    # float32 sums may be added in another order; values are of size one. 1e-4 is what regraft/trunk.py promises.
    assert np.abs(ours - theirs).max() <= 1e-4


def test_an_image_has_the_same_activations_in_any_batch(extract, opened, few, store):
    trained_on = few.of("train", "val")
    extract(few, batch_size=1)
    ours, theirs = (part.activations.read(keys(trained_on)).astype(np.float32) for part in (opened(), store))
    # float16 has 11 bits, so a value that lies between two may be rounded to either: 2 ** -10 of its size.
    assert np.allclose(ours, theirs, rtol=2**-10, atol=1e-4)


def test_features_are_those_of_the_photo_as_it_is_prepared(store, dataset, raw, preparation, trunk):
    photo = dataset.photos()[7]
    alone, _ = trunk.run(preparation(read_photo(raw, photo))[None], with_activations=False)
    assert np.abs(store.features.read([key_of(photo.digest)]) - alone).max() <= 1e-4  # as above


def test_a_second_run_computes_nothing(extract, few, monkeypatch):
    first = extract(few)
    monkeypatch.setattr(Trunk, "run", lambda *_, **__: pytest.fail("a forward pass"))
    monkeypatch.setattr("regraft.extraction.read_photo", lambda *_: pytest.fail("a photo was read"))
    second = extract(few)
    assert (first.computed, second.computed, second.from_store) == (8, 0, 8)


def test_only_new_images_cost_a_forward_pass(extract, few, monkeypatch):
    extract(few.head(5))
    passed, run = [], Trunk.run
    monkeypatch.setattr(
        Trunk, "run", lambda self, images, **options: passed.append(len(images)) or run(self, images, **options)
    )
    extract(few, batch_size=2)
    assert passed == [2, 1]


def test_a_file_that_is_there_twice_is_computed_once(extract, few):
    twice = Dataset(few.rows.loc[[0, 0, 1]].assign(class_index=[0, 1, 0]), few.class_names)
    receipt = extract(twice)
    assert (receipt.images, receipt.computed) == (2, 2)


def test_the_receipt_of_a_second_run_says_what_was_saved(extract, few):
    first, second = extract(few), extract(few)
    assert 0 < second.seconds_saved <= first.seconds
    assert (second.seconds, second.images_per_second, second.store_bytes) == (0, None, first.store_bytes)


def test_a_receipt_adds_up(extract, few):
    extract(few.head(3))
    receipt = extract(few)
    assert (receipt.rows, receipt.from_store, receipt.computed) == (8, 3, 5)
    assert receipt.images_per_second == pytest.approx(5 / receipt.seconds)


def test_progress_counts_what_has_to_be_computed(extract, few):
    extract(few.head(3))
    calls = []
    extract(few, batch_size=2, on_progress=lambda *call: calls.append(call))
    assert calls == [(0, 5), (2, 5), (4, 5), (5, 5)]


def test_test_images_have_features_and_no_activations(extract, opened, few):
    extract(few)
    assert opened().features.missing(keys(few)) == []
    assert opened().activations.missing(keys(few)) == keys(few.of("test"))


def test_without_fine_tuning_no_activations_are_kept(extract, opened, few):
    extract(few, activations=False)
    assert len(opened().activations) == 0


def test_activations_that_were_not_kept_are_computed_when_they_are_needed(extract, opened, few):
    extract(few, activations=False)
    receipt = extract(few)
    assert receipt.computed == len(few.of("train", "val"))
    assert opened().activations.missing(keys(few.of("train", "val"))) == []


@pytest.mark.parametrize("part", ["features", "activations"])
def test_a_damaged_shard_is_set_aside_and_its_images_are_computed_again(extract, opened, few, part):
    extract(few)
    before = opened().features.read(keys(few))
    folder = getattr(opened(), part).folder
    (shard,) = folder.glob("*.arrow")
    contents = bytearray(shard.read_bytes())
    contents[len(contents) // 2] ^= 0xFF  # far from the headers, among the values
    shard.write_bytes(contents)
    receipt = extract(few)
    assert receipt.computed == (8 if part == "features" else len(few.of("train", "val")))
    assert np.abs(opened().features.read(keys(few)) - before).max() <= 1e-4  # as above
    assert [path.suffix for path in folder.iterdir() if path.stem == shard.stem] == [".damaged"]


@pytest.mark.parametrize("last", [1, 2])
def test_after_a_kill_between_the_two_writes_the_next_run_completes_both(extract, opened, few, monkeypatch, last):
    class Killed(BaseException): ...

    calls, flush = [], Namespace.flush

    def flush_or_die(self):
        calls.append(self)
        if len(calls) == last:
            raise Killed
        flush(self)

    with monkeypatch.context() as patch:
        patch.setattr(Namespace, "flush", flush_or_die)
        with pytest.raises(Killed):
            extract(few)
    extract(few)
    assert opened().features.missing(keys(few)) == []
    assert opened().activations.missing(keys(few.of("train", "val"))) == []


def test_a_photo_that_changed_since_it_was_validated_is_refused_by_name(extract, few, raw, photo, tmp_path):
    copy = shutil.copytree(raw, tmp_path / "raw")
    path = copy / few.rows.path[2]
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(InvalidData, match=rf"{re.escape(str(path))} has changed since it was validated\. Run again"):
        extract(few, raw=copy)


def test_a_photo_that_is_gone_is_refused_by_name(extract, few, raw, tmp_path):
    copy = shutil.copytree(raw, tmp_path / "raw")
    path = copy / few.rows.path[2]
    path.unlink()
    with pytest.raises(InvalidData, match=rf"{re.escape(str(path))} cannot be read any more: No such file"):
        extract(few, raw=copy)


@pytest.mark.parametrize(
    "change",
    [{"digest": "other graph"}, {"feature_dim": 640}, {"activation_shape": (2, 2, 112)}],
    ids=lambda change: next(iter(change)),
)
def test_another_backbone_has_a_store_of_its_own(trunk, preparation, tmp_path, change):
    ours, theirs = (open_feature_store(tmp_path, one, preparation) for one in (trunk, replace(trunk, **change)))
    assert (ours.features.folder, ours.activations.folder) != (theirs.features.folder, theirs.activations.folder)


@pytest.mark.parametrize("other", [Preparation(64, 1.0), Preparation(65, 0.875)])
def test_another_preprocessing_has_a_store_of_its_own(trunk, preparation, tmp_path, other):
    ours, theirs = (open_feature_store(tmp_path, trunk, one) for one in (preparation, other))
    assert ours.features.folder != theirs.features.folder
    assert ours.activations.folder != theirs.activations.folder


def test_the_report_is_rounded_to_milliseconds():
    report = Receipt(1, 1, 1, 0, 1, 1.23456, 0.81, 0.0, 100, "engine").as_report()
    assert (report["seconds"], report["images"], report["engine"]) == (1.235, 1, "engine")
