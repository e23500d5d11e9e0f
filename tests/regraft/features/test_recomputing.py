"""What was computed before: rows of a features file that was pulled, and what another engine or Pillow costs."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from regraft.features.extraction import Extractor
from regraft.features.recomputing import take_known
from regraft.features.table import write_features, write_named_features
from regraft.photos.dataset import Dataset
from regraft.store.namespace import Namespace, open_namespace


@pytest.fixture
def pulled(dataset: Dataset, extractor: Extractor, tmp_path: Path) -> Path:
    """A features file."""
    write_features(tmp_path / "features.arrow", extractor, dataset)
    return tmp_path / "features.arrow"


@pytest.fixture
def empty(extractor: Extractor, tmp_path: Path) -> Namespace:
    """The namespace of the features in a store that has nothing."""
    return open_like(extractor.store.features, tmp_path / "clone")


def open_like(namespace: Namespace, root: Path, **facts: str) -> Namespace:
    kept = {key: value for key, value in namespace.facts.items() if key not in ("kind", "shape", "dtype")}
    return open_namespace(root, "features", {**kept, **facts}, shape=namespace.shape, dtype=namespace.dtype.name)


def test_a_clone_takes_every_row_from_the_features_that_it_pulled(dataset, extractor, empty, pulled):
    wanted, digests = extractor.keys(dataset), dataset.rows.digest
    assert take_known(empty, wanted, digests, lambda: [pulled]) == (len(wanted), None)
    assert empty.missing(wanted) == []
    assert np.array_equal(empty.read(wanted), extractor.store.features.read(wanted))


def test_only_what_is_needed_and_missing_is_taken(dataset, extractor, empty, pulled):
    wanted, digests = extractor.keys(dataset)[:10], dataset.rows.digest
    assert take_known(empty, wanted, digests, lambda: [pulled])[0] == 10
    assert take_known(empty, wanted, digests, lambda: pytest.fail("looked for")) == (0, None)
    assert len(empty) == 10


def test_where_rows_are_only_named_it_is_said_how_many_are_computed_again(dataset, extractor, empty, pulled):
    write_named_features(pulled, extractor, dataset)
    wanted = extractor.keys(dataset)
    taken, again = take_known(empty, wanted, dataset.rows.digest, lambda: [pulled])
    assert again
    assert (taken, again.rows) == (0, len(wanted))
    assert "names them, and no store here has them; `machine.shared_store`" in again.words


@pytest.mark.parametrize("kind", ["missing", "damaged"])
def test_features_that_cannot_be_read_are_passed_over(dataset, extractor, empty, pulled, kind):
    pulled.unlink() if kind == "missing" else pulled.write_bytes(pulled.read_bytes()[:-1])
    assert take_known(empty, extractor.keys(dataset), dataset.rows.digest, lambda: [pulled]) == (0, None)


def test_features_of_another_engine_are_not_taken_and_it_is_said_what_they_cost(dataset, extractor, pulled, tmp_path):
    wanted, digests = extractor.keys(dataset), dataset.rows.digest
    old = extractor.store.features
    shutil.copytree(old.folder, tmp_path / "store" / old.folder.name)
    other = open_like(old, tmp_path / "store", engine="another 1.0")
    taken, again = take_known(other, wanted, digests, lambda: [pulled])
    assert again
    assert (taken, again.rows) == (0, len(wanted))
    assert again.seconds == pytest.approx(old.seconds_for(wanted))
    assert f"that was with {old.facts['engine']}, and this is another 1.0." in again.words


def test_photos_that_are_drawn_otherwise_are_told_from_new_ones(dataset, extractor, pulled, monkeypatch):
    old = extractor.store.features
    fewer = dataset.with_rows(dataset.rows[5:].reset_index(drop=True))
    views = replace(extractor.views, preparation=replace(extractor.views.preparation, crop_fraction=0.5))
    wanted = replace(extractor, views=views).keys(fewer)
    again = take_known(old, wanted, fewer.rows.digest, lambda: [pulled])[1]
    assert again
    assert again.rows == len(fewer.rows.digest.unique())  # the centre squares; augmented views are as they were
    assert "another version of Pillow, or other settings in `preprocess`, draw them otherwise" in again.words
    strangers = [bytes(32) + view.to_bytes(2, "big") for view in range(3)]
    assert take_known(old, [*extractor.keys(dataset), *strangers], dataset.rows.digest, lambda: [pulled]) == (0, None)
