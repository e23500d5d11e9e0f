import random
from dataclasses import replace

import numpy as np
import pytest

from regraft.features import table as module
from regraft.features.forward_passes import FeatureStore
from regraft.features.table import read_features, write_features
from regraft.store.namespace import open_namespace


def test_features_come_back_view_by_view_in_the_order_of_the_data_set(features, dataset):
    assert list(features.digests) == [*dataset.rows.digest, *dataset.of("train").rows.digest]
    assert list(features.views) == [0] * len(dataset) + [1] * len(dataset.of("train"))


def test_a_file_of_many_parts_is_read_as_one(features, dataset, extractor, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_WRITE_ROWS", 7)
    write_features(tmp_path / "features.arrow", extractor, dataset)
    every = np.arange(len(features.digests))
    assert np.array_equal(read_features(tmp_path / "features.arrow").read(every), features.read(every))


@pytest.fixture
def named(dataset, extractor, tmp_path):
    """A file that names rows of the store."""
    write_features(tmp_path / "named.arrow", extractor, dataset, is_named=True)
    return tmp_path / "named.arrow"


def test_a_file_that_names_rows_says_the_same_as_one_that_holds_them(features, named, store):
    opened = read_features(named, find_rows=store.find_rows)
    every = np.arange(len(opened.digests))
    assert list(opened.digests) == list(features.digests)
    for name in ("views", "splits", "class_indices", "class_names", "namespace", "dim"):
        assert np.array_equal(getattr(opened, name), getattr(features, name))
    assert np.array_equal(opened.read(every[::-1]), features.read(every[::-1]))


def test_which_rows_are_named_does_not_depend_on_how_the_store_was_filled(dataset, extractor, named, store, tmp_path):
    facts = {name: fact for name, fact in store.features.facts.items() if name not in ("kind", "shape", "dtype")}
    shape, dtype = store.features.shape, store.features.dtype.name
    other = open_namespace(tmp_path / "store", "features", facts, shape=shape, dtype=dtype)
    for key in reversed(extractor.keys(dataset)):
        other.append([key], store.features.read([key]), seconds=1)
        if random.random() < 0.3:
            other.flush()
    other.flush()
    elsewhere = replace(extractor, store=FeatureStore(other, store.activations))
    write_features(tmp_path / "again.arrow", elsewhere, dataset, is_named=True)
    assert (tmp_path / "again.arrow").read_bytes() == named.read_bytes()


def test_rows_that_are_only_named_are_not_read_without_a_store(named):
    with pytest.raises(ValueError, match="names rows of the store"):
        read_features(named).read(np.arange(1))
