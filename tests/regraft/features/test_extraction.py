import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from regraft.backbones.trunk import Trunk
from regraft.core.errors import InvalidData, RegraftError
from regraft.features.extraction import Activations, Receipt
from regraft.features.forward_passes import FeatureStore, open_feature_store
from regraft.photos.dataset import Dataset
from regraft.photos.views import Views
from regraft.store.namespace import Namespace
from tests.support.library import extractor_of, ignore_progress

Extract = Callable[..., Receipt]


@pytest.fixture
def few(dataset: Dataset) -> Dataset:
    """Eight photos, some of each split."""
    rows = dataset.rows.groupby("split").head(3).head(8)
    return dataset.with_rows(rows.reset_index(drop=True))


@pytest.fixture
def extract(views: Views, trunk: Trunk, tmp_path: Path) -> Extract:
    """A function that fills a store of its own, opened anew as by another process."""

    def run(
        dataset: Dataset,
        *,
        count: int = 0,
        activations: Activations = "verified",
        trunk: Trunk = trunk,
        on_progress=ignore_progress,
    ):
        extractor = extractor_of(replace(views, count=count), trunk, tmp_path)
        return extractor.fill_store(dataset, activations=activations, on_progress=on_progress)

    return run


@pytest.fixture
def opened(trunk: Trunk, tmp_path: Path) -> Callable[[], FeatureStore]:
    """A function that opens the store that `extract` fills."""
    return lambda: open_feature_store(tmp_path, trunk)


@pytest.fixture
def keys(views: Views) -> Callable[..., list[bytes]]:
    """A function that returns the keys of one view of every image."""
    return lambda dataset, view=0: [views.key(digest, view) for digest in dataset.rows.digest]


def test_an_image_has_exactly_the_same_values_whatever_else_is_computed(extract, opened, few, store, keys):
    extract(few.head(3))
    extract(few)  # `store` was filled with more images in one go
    ours, trained_on = opened(), keys(few.of("train", "val"))
    assert np.array_equal(ours.features.read(keys(few)), store.features.read(keys(few)))
    assert np.array_equal(ours.activations.read(trained_on), store.activations.read(trained_on))


def test_tensorflow_computes_the_same_in_batches(extract, few, batching, store, keys, views, tmp_path):
    receipt = extract(few, count=1, trunk=batching)
    theirs = open_feature_store(tmp_path, batching)
    wanted = [*keys(few), *keys(few.of("train"), 1)]
    # float32 through fifty layers, summed in another order by another engine; values are of size one.
    assert np.abs(theirs.features.read(wanted) - store.features.read(wanted)).max() <= 1e-4
    trained_on = [*keys(few.of("train", "val")), *keys(few.of("train"), 1)]
    ours = [part.activations.read(trained_on).astype(np.float32) for part in (theirs, store)]
    # float16 has 11 bits, so a value that lies between two may be rounded to either: 2 ** -10 of its size.
    assert np.allclose(*ours, rtol=2**-10, atol=1e-4)
    assert receipt.engine == f"tensorflow {tf.__version__} (CPU)"


class Spoilt:
    """The runner of a trunk, with one value of a pass replaced."""

    is_parallel = True

    def __init__(self, trunk: Trunk, output: int, value: float) -> None:
        self.name, self._run, self._output, self._value = trunk.engine, trunk.runner.run, output, value

    def run(self, images: np.ndarray, *, with_activations: bool):
        outputs = self._run(images, with_activations=with_activations)
        if (values := outputs[self._output]) is not None:
            values.flat[7] = self._value
        return outputs


@pytest.mark.parametrize(
    ("output", "value", "expected"),
    [
        (0, np.nan, "features of .+ are not finite numbers"),
        (0, np.inf, "features of .+ are not finite numbers"),
        (1, 65_520.0, r"activations of .+ at the layer backbone\.cut are larger than float16 holds \(65,504\)"),
        (1, np.nan, "activations of .+ at the layer backbone"),
    ],
)
def test_what_the_store_cannot_hold_is_an_error_that_names_the_photo_and_no_row(
    extract, opened, few, trunk, keys, output, value, expected
):
    (photo,) = (one := few.of("train").head(1)).photos()
    with pytest.raises(RegraftError, match=expected) as caught:
        extract(one, trunk=replace(trunk, runner=Spoilt(trunk, output, value)))
    assert f"{photo.path} (SHA-256 {photo.digest[:12]})" in str(caught.value)
    assert opened().features.missing(keys(one)) == opened().activations.missing(keys(one)) == keys(one)


def test_a_second_run_computes_nothing(extract, few, monkeypatch):
    first = extract(few)
    monkeypatch.setattr(Trunk, "run", lambda *_, **__: pytest.fail("a forward pass"))
    monkeypatch.setattr(Dataset, "opened", lambda *_, **__: pytest.fail("a photo was read"))
    second = extract(few)
    assert (first.computed, second.computed, second.from_store) == (8, 0, 8)


def test_only_new_images_cost_a_forward_pass(extract, few, monkeypatch):
    extract(few.head(5))
    passed, run = [], Trunk.run
    monkeypatch.setattr(
        Trunk, "run", lambda self, images, **options: passed.append(len(images)) or run(self, images, **options)
    )
    extract(few)
    assert passed == [1, 1, 1]


def test_only_training_images_are_augmented(extract, opened, few, keys):
    receipt = extract(few, count=1)
    rest = few.of("val", "test")
    assert opened().features.missing(keys(rest, 1)) == keys(rest, 1)
    assert (receipt.views, receipt.rows) == (2, len(few) + len(few.of("train")))


def test_a_file_in_two_splits_has_what_either_needs(extract, opened, few, keys):
    row = few.of("train").rows.head(1)
    for splits in (["test", "train"], ["train", "test"]):
        extract(few.with_rows(pd.concat([row, row]).assign(split=splits)), count=1)
        assert opened().activations.missing([*keys(few.of("train").head(1)), *keys(few.of("train").head(1), 1)]) == []


def test_test_images_have_features_and_no_activations(extract, opened, few, keys):
    extract(few)
    assert opened().features.missing(keys(few)) == []
    assert opened().activations.missing(keys(few)) == keys(few.of("test"))


@pytest.mark.parametrize("last", [1, 2])
def test_after_a_kill_between_the_two_writes_the_next_run_completes_both(extract, opened, few, monkeypatch, last, keys):
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


def test_a_photo_that_changed_since_it_was_validated_is_refused_by_name(extract, few, raw, tmp_path):
    copy = shutil.copytree(raw, tmp_path / "raw")
    path = copy / few.rows.path[2]
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(InvalidData, match=rf"{re.escape(str(path))} has changed since it was validated\. Run again"):
        extract(replace(few, folder=copy))
