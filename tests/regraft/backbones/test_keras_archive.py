"""Model files that were made to do harm: each is refused by name, and nothing outside of it is read or run."""

import json
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from regraft.backbones.keras_archive import CONFIG, METADATA, WEIGHTS, _checked_config, checked_copy
from regraft.backbones.keras_file import build_from_file, image_size_of
from regraft.backbones.keras_weights import size_of_numbers
from regraft.errors import InvalidWeights

SECRET = np.full((3, 3, 3, 8), 42, np.float32)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier of images, as Keras saves it."""
    path = tmp_path_factory.mktemp("model") / "good.keras"
    image = keras.Input((32, 32, 3))
    maps = layers.Conv2D(8, 3, name="maps")(image)
    keras.Model(image, layers.Dense(3, name="last")(layers.GlobalAveragePooling2D()(maps))).save(path)
    return path


@pytest.fixture
def changed(model_file: Path, tmp_path: Path) -> Callable[..., Path]:
    """Make a file in which members are others; None leaves one out."""

    def change(compression: int = zipfile.ZIP_STORED, **others: Any) -> Path:
        path = tmp_path / "mine.keras"
        with zipfile.ZipFile(model_file) as archive:
            members: dict[str, Any] = {name: archive.read(name) for name in archive.namelist()}
        members |= {name.replace("__", "."): contents for name, contents in others.items()}
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, contents in members.items():
                if contents is not None:
                    archive.writestr(name, contents)
        return path

    return change


@pytest.fixture
def with_config(model_file: Path, changed: Callable[..., Path]) -> Callable[..., Path]:
    """Make a file in whose config one layer is changed."""

    def change(edit: Callable[[dict[str, Any]], None], layer: str = "last") -> Path:
        with zipfile.ZipFile(model_file) as archive:
            config = json.loads(archive.read(CONFIG))
        (entry,) = [entry for entry in config["config"]["layers"] if entry["config"]["name"] == layer]
        edit(entry)
        return changed(config__json=json.dumps(config))

    return change


@pytest.fixture
def with_weights(model_file: Path, changed: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Make a file in whose weights something is changed."""

    def change(edit: Callable[[h5py.File], None]) -> Path:
        weights = tmp_path / "weights.h5"
        with zipfile.ZipFile(model_file) as archive, archive.open(WEIGHTS) as source, weights.open("wb") as target:
            shutil.copyfileobj(source, target)
        with h5py.File(weights, "a") as file:
            edit(file)
        return changed(**{WEIGHTS: weights.read_bytes()})

    return change


def refused(path: Path, message: str) -> None:
    with pytest.raises(InvalidWeights, match=message):
        build_from_file(path, 32, "none", path)


def test_the_file_that_all_others_are_made_from_is_accepted(changed):
    assert image_size_of(changed()) == 32


def test_how_a_model_was_compiled_is_left_out(tmp_path):
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, layers.Conv2D(2, 1)(image))
    model.compile(optimizer="adam", loss="mse")
    path = tmp_path / "compiled.keras"
    keras.Model(image, model(image)).save(path)
    with checked_copy(path) as (copy, _), zipfile.ZipFile(copy) as archive:
        assert b"compile_config" not in archive.read(CONFIG)
    assert image_size_of(path) == 8


@pytest.mark.parametrize(
    ("module", "name", "settings"),
    [
        ("keras.layers", "Lambda", {"function": {"class_name": "__lambda__", "config": {"value": "x"}}}),
        ("keras.layers", "TFSMLayer", {"filepath": "somewhere"}),
        ("keras.layers", "TorchModuleWrapper", {"module": "gASVAAAAAAAAAACMAm9zlIwGc3lzdGVtlJOULg=="}),
        ("keras.layers", "JaxLayer", {}),
        ("keras.layers", "FlaxLayer", {}),
        ("keras.layers", "StringLookup", {"vocabulary": "/etc/passwd"}),
        ("keras.layers", "IntegerLookup", {"vocabulary": "/etc/passwd"}),
        ("keras.layers", "TextVectorization", {"vocabulary": "https://example.org"}),
        ("keras.layers", "Wrapper", {"layer": {"module": "keras.layers", "class_name": "Lambda", "config": {}}}),
        ("keras.layers", "Discretization", {}),
        ("keras.layers", "deserialize", {}),
        ("keras.utils", "get_file", {"origin": "https://example.org"}),
        ("keras.saving", "load_model", {"filepath": "other.keras"}),
        ("keras.config", "enable_unsafe_deserialization", {}),
        ("keras.src.legacy.saving.legacy_h5_format", "load_model_from_hdf5", {}),
        ("keras.src.saving.saving_api", "load_model", {}),
        ("keras.src.ops.core", "Map", {}),
        ("keras.src.ops.numpy", "load", {}),
        ("keras_hub.layers", "Dense", {}),
        ("os", "system", {}),
        ("builtins", "eval", {}),
        ("tests.support.networks", "Anything", {}),
        (None, "Dense", {}),
        (["keras"], "Dense", {}),
        ("keras.layers", ["Dense"], {}),
        ("keras.layers", "__lambda__", {"value": "x"}),
        ("keras.layers", "__typespec__", []),
        ("builtins", "function", "eval"),
        ("os", "function", "system"),
    ],
)
def test_only_layers_of_image_networks_are_let_through(with_config, module, name, settings):
    def edit(entry):
        entry |= {"module": module, "class_name": name, "config": settings}

    def nest(entry):
        entry["config"]["kernel_regularizer"] = {"module": module, "class_name": name, "config": settings}

    for change in (edit, nest):
        refused(with_config(change), r"mine\.keras cannot be loaded \((the (class|function)|a class without)")


def test_a_class_that_was_registered_in_this_process_cannot_be_named(with_config):
    @keras.saving.register_keras_serializable("own")
    class Dense(layers.Dense):
        pass

    refused(with_config(lambda entry: entry.update(registered_name="own>Dense")), "the class own>Dense")


@pytest.mark.parametrize("kind", ["__numpy__", "__tensor__"])
@pytest.mark.parametrize("dtype", ["S2000000000", "U2000000000", "object", None, ["float32"]])
def test_an_array_in_the_config_holds_numbers(with_config, kind, dtype):
    array = {"class_name": kind, "config": {"value": ["a"], "dtype": dtype}}
    refused(with_config(lambda entry: entry["config"].update(kernel_constraint=array)), "of another kind than numbers")


@pytest.mark.parametrize(
    "config",
    [
        "[" * 200_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        '{"class_name": "Functional", "config": ' + "[" * 900 + "]" * 900 + "}",
        "{",
        "[]",
        "1",
        "null",
        "",
        '"',
        "\ud800".encode("utf-8", "surrogatepass"),
        "{}",
        '{"module": "keras", "class_name": "Functional", "config": null}',
        '{"module": "keras", "class_name": "Functional", "config": {}}',
        '{"module": "keras", "class_name": "Functional", "config": {"layers": 3}}',
        '{"module": "keras", "class_name": "Sequential", "config": {"layers": [1, 2]}}',
        '{"module": "keras", "class_name": "Sequential", "config": {"name": [1], "layers": []}}',
        '{"a": ' + "9" * 5000 + "}",
    ],
    ids=range(17),
)
def test_a_config_that_is_none_is_refused(changed, config):
    refused(changed(config__json=config), r"mine\.keras ")


@pytest.mark.parametrize(
    ("layer", "settings", "message"),
    [
        ("last", {"units": 10**10}, r"its layers have 90,000,000,\d+ weights, and the file has"),
        ("maps", {"filters": 10**12}, r"mine\.keras"),
        ("maps", {"kernel_size": [10**6, 10**6], "padding": "same"}, "its layers have"),
        ("maps", {"strides": 0}, r"mine\.keras"),
        ("maps", {"filters": -1}, r"mine\.keras"),
        ("maps", {"filters": "8"}, r"mine\.keras"),
        ("maps", {"filters": 10**30}, r"mine\.keras"),
        ("maps", {"dtype": "string"}, r"mine\.keras"),
        ("last", {"activation": "no such"}, r"mine\.keras"),
    ],
)
def test_a_layer_of_impossible_size_is_refused_before_it_is_made(with_config, layer, settings, message):
    def edit(entry):
        entry["config"] |= settings
        entry.pop("build_config", None)

    refused(with_config(edit, layer), message)


def test_a_layer_outside_of_the_graph_may_not_be_huge_either(model_file, changed):
    with zipfile.ZipFile(model_file) as archive:
        config = json.loads(archive.read(CONFIG))
    aside = json.loads(json.dumps(config["config"]["layers"][-1]))
    aside["name"] = aside["config"]["name"] = "aside"
    aside["config"]["units"], aside["inbound_nodes"] = 10**10, []
    config["config"]["layers"].append(aside)
    refused(changed(config__json=json.dumps(config)), "its layers have 90,000,000")


@pytest.mark.parametrize("side", [3000, 10**6])
def test_a_picture_that_no_machine_can_hold_is_refused(tmp_path, side):
    image = keras.Input((32, 32, 3))
    path = tmp_path / "mine.keras"
    keras.Model(image, layers.UpSampling2D(side)(image)).save(path)
    refused(path, "at most 1024 values per pixel")
    image = keras.Input((side, side, 3))
    keras.Model(image, layers.Conv2D(1, 1)(image)).save(path)
    with pytest.raises(InvalidWeights, match="Expected at most 2048"):
        image_size_of(path)


@pytest.mark.parametrize(
    "others",
    [
        {"assets/vocabulary.txt": "a"},
        {"../outside.txt": "a"},
        {"/outside.txt": "a"},
        {"model.weights.npz": "a"},
        {"model.weights.json": "{}"},
        {"saved_model.pb": "a"},
        {WEIGHTS: None},
        {CONFIG: None},
        {METADATA: None},
    ],
    ids=str,
)
def test_an_archive_holds_what_keras_writes_and_nothing_else(changed, others):
    refused(changed(**others), "an archive of config.json, model.weights.h5 and metadata.json is expected")


def test_a_compressed_archive_is_refused_because_it_may_be_a_bomb(changed):
    refused(changed(zipfile.ZIP_DEFLATED), "members are compressed")


def test_a_config_of_quotes_does_not_take_the_square_of_its_length():
    began = time.process_time()
    with pytest.raises(ValueError, match="Unterminated string"):
        _checked_config(b'"' + b'\\"' * 500_000)
    assert time.process_time() - began < 2


def test_two_members_of_one_name_are_refused(changed):
    path = changed()
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(CONFIG, "{}")
    refused(path, "is expected")


@pytest.mark.parametrize("offset", range(0, 3000, 400))
def test_a_flipped_bit_is_refused_or_changes_nothing(changed, model_file, offset):
    expected = build_from_file(model_file, 32, "none", model_file).get_weights()
    path = changed()
    contents = bytearray(path.read_bytes())
    contents[-1 - offset] ^= 4
    path.write_bytes(contents)
    try:
        found = build_from_file(path, 32, "none", path).get_weights()
    except InvalidWeights:
        return
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


KERNEL = "layers/conv2d/vars/0"


def replace(file: h5py.File, put: Callable[[h5py.File], None]) -> None:
    del file[KERNEL]
    put(file)


@pytest.mark.parametrize("link", ["external", "soft", "storage", "virtual"])
def test_numbers_of_another_file_are_not_read(with_weights, tmp_path, link):
    other = tmp_path / "secret.h5"
    with h5py.File(other, "w") as file:
        file["numbers"] = SECRET
    raw = tmp_path / "secret.bin"
    raw.write_bytes(SECRET.tobytes())

    def put(file: h5py.File) -> None:
        if link == "external":
            file[KERNEL] = h5py.ExternalLink(str(other), "/numbers")
        elif link == "soft":
            file[KERNEL] = h5py.SoftLink("/layers/dense/vars/0")
        elif link == "storage":
            file.create_dataset(KERNEL, SECRET.shape, np.float32, external=[(str(raw), 0, h5py.h5f.UNLIMITED)])
        else:
            layout = h5py.VirtualLayout(SECRET.shape, np.float32)
            layout[:] = h5py.VirtualSource(str(other), "numbers", SECRET.shape)
            file.create_virtual_dataset(KERNEL, layout)

    refused(with_weights(lambda file: replace(file, put)), "weights (holds a link|takes numbers from other)")


@pytest.mark.parametrize(
    "put",
    [
        lambda file: file.create_dataset(KERNEL, (10**6, 10**6), np.float32, chunks=(10, 10)),
        lambda file: file.create_dataset(KERNEL, (3000, 3000), np.float32, chunks=True, compression="gzip"),
        lambda file: file.create_dataset(KERNEL, data=np.array(["a", "b"], dtype=object), dtype=h5py.string_dtype()),
        lambda file: file.create_dataset(KERNEL, data=np.zeros(3, np.dtype([("a", "f4"), ("b", "i8")]))),
        lambda file: file.create_dataset(KERNEL, dtype=h5py.Empty("f").dtype, shape=None, data=h5py.Empty("f")),
        lambda file: file.create_dataset(KERNEL, data=np.array([file.ref], dtype=h5py.ref_dtype)),
        lambda file: file.__setitem__(KERNEL, np.dtype("f4")),
    ],
    ids=["terabytes", "compressed", "text", "records", "empty", "references", "type"],
)
def test_weights_are_numbers_that_lie_in_the_file(with_weights, put):
    refused(with_weights(lambda file: replace(file, put)), "file of weights")


def test_a_group_that_contains_itself_does_not_hold_anything_up(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("a")
        file["a/again"] = file["a"]
        file["a/once more"] = file["a"]
    assert size_of_numbers(tmp_path / "a.h5") == 0


def test_a_crash_of_the_library_that_reads_numbers_is_a_refusal(changed, tmp_path, monkeypatch):
    crash = tmp_path / "h5py"
    crash.mkdir()
    (crash / "__init__.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    refused(changed(), "reading model.weights.h5 ended a process with status -11")
