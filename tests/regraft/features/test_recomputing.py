"""What was computed before: rows of a features file that was pulled, and what another engine or Pillow costs."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from regraft.features.extraction import Extractor
from regraft.features.table import write_features
from regraft.photos.dataset import Dataset
from regraft.store.namespace import Namespace, open_namespace


@pytest.fixture
def pulled(dataset: Dataset, extractor: Extractor, tmp_path: Path) -> Path:
    """A features file."""
    write_features(tmp_path / "features.arrow", extractor, dataset)
    return tmp_path / "features.arrow"


@pytest.fixture
def clone(extractor: Extractor, tmp_path: Path) -> Extractor:
    """The same on a machine whose store has nothing."""
    return with_features(extractor, open_like(extractor.store.features, tmp_path / "clone"))


def with_features(extractor: Extractor, features: Namespace) -> Extractor:
    return replace(extractor, store=replace(extractor.store, features=features))


def open_like(namespace: Namespace, root: Path, **facts: str) -> Namespace:
    kept = {key: value for key, value in namespace.facts.items() if key not in ("kind", "shape", "dtype")}
    return open_namespace(root, "features", {**kept, **facts}, shape=namespace.shape, dtype=namespace.dtype.name)


def test_a_clone_takes_every_row_that_it_misses_from_the_features_that_it_pulled(dataset, extractor, clone, pulled):
    wanted, empty = extractor.keys(dataset), clone.store.features
    assert clone.take_known(dataset, lambda: [pulled]) == (len(wanted), None)
    assert np.array_equal(empty.read(wanted), extractor.store.features.read(wanted))
    assert clone.take_known(dataset, lambda: pytest.fail("looked for")) == (0, None)


def test_where_rows_are_only_named_it_is_said_how_many_are_computed_again(dataset, extractor, clone, pulled):
    write_features(pulled, extractor, dataset, is_named=True)
    taken, again = clone.take_known(dataset, lambda: [pulled])
    assert again
    assert (taken, again.rows) == (0, len(extractor.keys(dataset)))
    assert "names them, and no store here has them; `machine.shared_store`" in again.words


@pytest.mark.parametrize("kind", ["missing", "damaged"])
def test_features_that_cannot_be_read_are_passed_over(dataset, clone, pulled, kind):
    pulled.unlink() if kind == "missing" else pulled.write_bytes(pulled.read_bytes()[:-1])
    assert clone.take_known(dataset, lambda: [pulled]) == (0, None)


def test_features_of_another_engine_are_not_taken_and_it_is_said_what_they_cost(dataset, extractor, pulled, tmp_path):
    wanted, old = extractor.keys(dataset), extractor.store.features
    shutil.copytree(old.folder, tmp_path / "store" / old.folder.name)
    other = with_features(extractor, open_like(old, tmp_path / "store", engine="another 1.0"))
    taken, again = other.take_known(dataset, lambda: [pulled])
    assert again
    assert (taken, again.rows) == (0, len(wanted))
    assert again.seconds == pytest.approx(old.seconds_for(wanted))
    assert f"that was with {old.facts['engine']}, and this is another 1.0." in again.words


def test_photos_that_are_drawn_otherwise_are_told_from_new_photos_and_new_views(dataset, extractor, pulled):
    fewer = dataset.with_rows(dataset.rows[5:].reset_index(drop=True))
    views = replace(extractor.views, preparation=replace(extractor.views.preparation, crop_fraction=0.5))
    again = replace(extractor, views=views).take_known(fewer, lambda: [pulled])[1]
    assert again
    assert again.rows == len(extractor.keys(fewer))
    assert "another version of Pillow, or other settings in `preprocess`, draw them otherwise" in again.words
    more = replace(extractor, views=replace(extractor.views, count=extractor.views.count + 1))
    assert more.take_known(dataset, lambda: [pulled]) == (0, None)
    strangers = dataset.with_rows(dataset.rows.assign(digest=[f"{row:064x}" for row in range(len(dataset))]))
    assert extractor.take_known(strangers, lambda: [pulled]) == (0, None)
