import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regraft.backbones.torch_file import read_tensors
from regraft.errors import InvalidWeights
from tests.support.torch_files import STORAGES, Storage, Tensor, tensor_of, write


class RunsACommand:
    """What a hostile pickle does when an ordinary unpickler reads it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A file with two tensors in one storage."""
    storage = Storage("0", np.arange(12, dtype=np.float32))
    state = OrderedDict(weight=Tensor(storage, 0, (2, 4), (4, 1)), bias=Tensor(storage, 8, (4,), (1,)))
    return write(tmp_path / "good.pth", state, [storage])


@pytest.mark.parametrize("dtype", STORAGES)
def test_a_tensor_comes_back_with_its_values_and_dtype(tmp_path, dtype):
    values = np.arange(6, dtype=dtype).reshape(2, 3)
    tensor, storage = tensor_of(values)
    read = read_tensors(write(tmp_path / "a.pth", {"w": tensor}, [storage]))["w"]
    assert (read.dtype, read.tolist()) == (values.dtype, values.tolist())


def test_tensors_may_share_a_storage(good):
    tensors = read_tensors(good)
    assert (tensors["weight"].tolist(), tensors["bias"].tolist()) == ([[0, 1, 2, 3], [4, 5, 6, 7]], [8, 9, 10, 11])


@pytest.mark.parametrize(
    ("shape", "strides", "expected"),
    [
        ((3, 2), (1, 3), [[0, 3], [1, 4], [2, 5]]),
        ((), (), 0),
        ((0, 4), (4, 1), []),
        ((1, 6), (6, 1), [[0, 1, 2, 3, 4, 5]]),
    ],
)
def test_a_tensor_may_be_any_view_of_its_storage(tmp_path, shape, strides, expected):
    storage = Storage("0", np.arange(6, dtype=np.float32))
    path = write(tmp_path / "a.pth", {"w": Tensor(storage, 0, shape, strides)}, [storage])
    assert read_tensors(path)["w"].tolist() == expected


def test_a_pickle_that_runs_a_command_is_refused_and_the_command_did_not_run(tmp_path):
    victim = tmp_path / "it ran"
    path = write(tmp_path / "evil.pth", {"w": RunsACommand(f"touch '{victim}'")}, [])
    with pytest.raises(
        InvalidWeights,
        match=r"evil\.pth holds '(posix|nt)\.system', not only tensors\. Expected a state_dict.*Nothing .*was run",
    ):
        read_tensors(path)
    assert not victim.exists()


def test_the_command_of_that_test_does_run_in_an_ordinary_unpickler(tmp_path):
    victim = tmp_path / "it ran"
    pickle.loads(pickle.dumps(RunsACommand(f"touch '{victim}'")))
    assert victim.exists()


@pytest.mark.parametrize("place", ["first pickle", "after the tensors"])
def test_a_command_is_refused_wherever_it_stands(tmp_path, good, place):
    victim, path = tmp_path / "it ran", tmp_path / "evil.pth"
    evil = pickle.dumps(RunsACommand(f"touch '{victim}'"), protocol=2)
    if place == "first pickle":
        path.write_bytes(evil + good.read_bytes())
    else:
        tensors = good.read_bytes()
        path.write_bytes(tensors[: tensors.index(pickle.dumps(["0"], protocol=2))] + evil)
    with pytest.raises(InvalidWeights, match="system"):
        read_tensors(path)
    assert not victim.exists()


@pytest.mark.parametrize("function", [eval, exec, getattr, __import__, open, os.remove, np.load, bytearray])
def test_no_function_can_be_named(tmp_path, function):
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(function, protocol=2))
    with pytest.raises(InvalidWeights, match="not only tensors"):
        read_tensors(path)


@pytest.mark.parametrize("value", [1, "text", [1.0], {"nested": 1}, None])
def test_values_that_are_no_tensors_are_refused(tmp_path, value):
    with pytest.raises(InvalidWeights, match=r"holds values of other types, not only tensors"):
        read_tensors(write(tmp_path / "a.pth", {"w": value}, []))


def test_a_file_that_is_truncated_anywhere_is_refused_by_name(good, tmp_path):
    contents, path = good.read_bytes(), tmp_path / "half.pth"
    for length in range(len(contents)):
        path.write_bytes(contents[:length])
        with pytest.raises(
            InvalidWeights, match=r"half\.pth is truncated or not a PyTorch weights file.*from its publisher"
        ):
            read_tensors(path)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (1, (12,), (1,)),  # one too far
        (0, (13,), (1,)),
        (-1, (12,), (1,)),
        (11, (2,), (-1,)),
        (0, (1000, 1000), (0, 0)),  # gigabytes out of twelve numbers
        (2**62, (1,), (1,)),
        (0, (1,), (2**80,)),
        (0, (2**40, 2**40), (0, 0)),
        (0, (2, 2), (1,)),
        (0, ("2",), (1,)),
    ],
)
def test_a_tensor_that_is_not_inside_its_storage_is_refused(tmp_path, offset, shape, strides):
    storage = Storage("0", np.arange(12, dtype=np.float32))
    with pytest.raises(InvalidWeights):
        read_tensors(write(tmp_path / "a.pth", {"w": Tensor(storage, offset, shape, strides)}, [storage]))


@pytest.mark.parametrize("elements", [11, 13, -1, 2**60])
def test_a_storage_of_another_size_than_it_says_is_refused(tmp_path, elements):
    tensor, storage = tensor_of(np.arange(12, dtype=np.float32))
    with pytest.raises(InvalidWeights):
        read_tensors(write(tmp_path / "a.pth", {"w": tensor}, [storage], counts={"0": elements}))


def test_a_kind_of_number_that_no_backbone_has_is_refused(tmp_path):
    tensor, storage = tensor_of(np.zeros(3, np.complex64))
    with pytest.raises(InvalidWeights, match="ComplexFloatStorage"):
        read_tensors(write(tmp_path / "a.pth", {"w": tensor}, [storage]))


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"PK\x03\x04" + bytes(50), r"torch 1\.6 and later; save it with _use_new_zipfile_serialization=False"),
        (pickle.dumps(1), "wrong magic number"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "is truncated or not a PyTorch weights file"),
    ],
)
def test_another_format_is_refused_by_name(tmp_path, contents, message):
    (tmp_path / "a.pth").write_bytes(contents)
    with pytest.raises(InvalidWeights, match=rf"a\.pth .*{message}"):
        read_tensors(tmp_path / "a.pth")


def test_a_missing_file_is_named_with_the_setting_to_correct(tmp_path):
    with pytest.raises(InvalidWeights, match=r"a\.pth does not exist\. Correct backbone\.weights in params\.yaml"):
        read_tensors(tmp_path / "a.pth")
