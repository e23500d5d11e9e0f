import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regraft.backbones.torch_backbones import read_tensors
from regraft.core.errors import InvalidWeights
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


def test_tensors_may_share_a_storage_and_be_any_view_of_it(good, tmp_path):
    tensors = read_tensors(good)
    assert (tensors["weight"].tolist(), tensors["bias"].tolist()) == ([[0, 1, 2, 3], [4, 5, 6, 7]], [8, 9, 10, 11])
    storage = Storage("0", np.arange(6, dtype=np.float32))
    path = write(tmp_path / "a.pth", {"w": Tensor(storage, 0, (3, 2), (1, 3))}, [storage])
    assert read_tensors(path)["w"].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("place", ["alone", "first", "as a value", "after the tensors"])
def test_a_command_is_refused_wherever_it_stands_and_not_run(tmp_path, good, place):
    victim, path = tmp_path / "it ran", tmp_path / "evil.pth"
    command = RunsACommand(f"touch '{victim}'")
    evil, contents = pickle.dumps(command, protocol=2), good.read_bytes()
    if place == "as a value":
        write(path, {"w": command}, [])
    else:
        end = contents.index(pickle.dumps(["0"], protocol=2))
        path.write_bytes({"alone": evil, "first": evil + contents}.get(place, contents[:end] + evil))
    with pytest.raises(InvalidWeights, match=r"evil\.pth holds '(posix|nt)\.system', not only tensors\. .*was run"):
        read_tensors(path)
    assert not victim.exists()
    pickle.loads(evil)  # in an ordinary unpickler it does run
    assert victim.exists()


@pytest.mark.parametrize("value", [eval, getattr, __import__, np.load, np.dtype("f4"), 1, "text", {"nested": 1}, None])
def test_only_tensors_can_be_named_and_be_values(tmp_path, value):
    with pytest.raises(InvalidWeights, match="not only tensors"):
        read_tensors(write(tmp_path / "a.pth", {"w": value}, []))


def test_a_file_that_is_truncated_anywhere_is_refused_by_name(good, tmp_path):
    contents, path = good.read_bytes(), tmp_path / "half.pth"
    for length in range(len(contents)):
        path.write_bytes(contents[:length])
        with pytest.raises(InvalidWeights, match=r"half\.pth is truncated or not a PyTorch .*from its publisher"):
            read_tensors(path)


@pytest.mark.parametrize(("offset", "shape", "strides"), [(1, (12,), (1,)), (-1, (12,), (1,)), (0, (2, 2), (1,))])
def test_a_tensor_that_is_not_inside_its_storage_is_refused(tmp_path, offset, shape, strides):
    storage = Storage("0", np.arange(12, dtype=np.float32))
    with pytest.raises(InvalidWeights):
        read_tensors(write(tmp_path / "a.pth", {"w": Tensor(storage, offset, shape, strides)}, [storage]))


@pytest.mark.parametrize("elements", [11, 13, -1, 2**60])
def test_a_storage_of_another_size_than_it_says_is_refused(tmp_path, elements):
    tensor, storage = tensor_of(np.arange(12, dtype=np.float32))
    with pytest.raises(InvalidWeights):
        read_tensors(write(tmp_path / "a.pth", {"w": tensor}, [storage], counts={"0": elements}))


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
    with pytest.raises(InvalidWeights, match="cannot be read"):
        read_tensors(tmp_path)
