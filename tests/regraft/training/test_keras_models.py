import tempfile
import time

import keras
import numpy as np
import pytest
from keras import layers

from regraft.core.errors import Damaged
from regraft.core.files import write_text
from regraft.training.keras_models import load_model, save_model, start_keras

VALUES = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
CLASSES = (VALUES[:, 0] > 0).astype(int) + (VALUES[:, 1] > 0)  # three classes that can be learnt


def build() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(3, activation="softmax"),
        ]
    )


def trained(seed: int) -> keras.Model:
    start_keras(seed)
    model = build()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(VALUES, CLASSES, epochs=2, verbose=0)
    return model


# Repeatable.


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> bytes:
    """The file of a model that was trained with seed 0."""
    path = tmp_path_factory.mktemp("first") / "model.keras"
    save_model(path, trained(0))
    return path.read_bytes()


@pytest.mark.parametrize(("seed", "expected"), [(0, True), (1, False)])
def test_two_trainings_give_equal_bytes_if_the_seed_is_the_same(first, tmp_path, seed, expected):
    build().predict(VALUES, verbose=0)  # whatever this process does in between
    save_model(tmp_path / "model.keras", trained(seed))
    assert ((tmp_path / "model.keras").read_bytes() == first) is expected


# Files.


def test_a_saved_model_computes_the_same(tmp_path):
    model = build()
    save_model(tmp_path / "model.keras", model)
    assert np.array_equal(
        load_model(tmp_path / "model.keras").predict(VALUES, verbose=0), model.predict(VALUES, verbose=0)
    )


def test_saving_at_another_time_gives_equal_bytes(tmp_path, monkeypatch):
    model = build()
    save_model(tmp_path / "one.keras", model)
    tomorrow = time.time() + 86_400
    monkeypatch.setattr(time, "time", lambda: tomorrow)
    save_model(tmp_path / "two.keras", model)
    assert (tmp_path / "one.keras").read_bytes() == (tmp_path / "two.keras").read_bytes()


@pytest.mark.parametrize("step", ["zipfile.ZipFile.writestr", "regraft.core.files.os.replace"])
def test_an_error_while_saving_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, step):
    def fail(*_, **__):
        raise OSError("no space left on device")

    path, model = tmp_path / "models" / "model.keras", build()
    write_text(path, "old")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # Keras leaves a temporary folder behind when it fails
    monkeypatch.setattr(step, fail)
    with pytest.raises(OSError, match="no space"):
        save_model(path, model)
    assert {path.name: path.read_text() for path in path.parent.iterdir()} == {"model.keras": "old"}


def test_a_file_cannot_bring_code_of_its_own(tmp_path):
    image = keras.Input((6,))
    path = tmp_path / "evil.keras"
    keras.Model(image, layers.Lambda(lambda x: x + 1)(image)).save(path)
    with pytest.raises(Damaged, match=r"evil\.keras is damaged: .*deserialization of a `Lambda` layer"):
        load_model(path)


def test_a_file_that_is_damaged_anywhere_is_named_or_has_the_same_weights(tmp_path):
    image = keras.Input((6,))
    model = keras.Model(image, layers.Dense(3)(image))
    path = tmp_path / "model.keras"
    save_model(path, model)
    good = path.read_bytes()
    refused = 0
    for place in range(0, len(good), len(good) // 40):
        for bad in (good[:place], good[:place] + bytes([good[place] ^ 16]) + good[place + 1 :]):
            path.write_bytes(bad)
            try:
                found = load_model(path).get_weights()
            except Damaged:
                refused += 1
                continue
            assert all(map(np.array_equal, found, model.get_weights()))
    assert refused > 60
