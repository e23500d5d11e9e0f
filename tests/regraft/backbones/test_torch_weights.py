import os
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from regraft.backbones.torch_backbones import read_tensors
from regraft.core.errors import InvalidWeights
from tests.support.torch_files import Storage, Tensor, write


class RunsACommand:
    """What a hostile pickle does when an ordinary unpickler reads it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch 'it ran'",)


def test_tensors_come_back_as_any_view_of_a_storage_and_a_truncated_file_is_refused(tmp_path):
    storages = [Storage("0", np.arange(12, dtype=np.float32)), Storage("1", np.arange(2))]
    state = OrderedDict(
        weight=Tensor(storages[0], 0, (2, 4), (4, 1)),
        turned=Tensor(storages[0], 8, (2, 2), (1, 2)),
        count=Tensor(storages[1], 1, (), ()),
    )
    path = write(tmp_path / "a.pth", state, storages)
    tensors = read_tensors(path)
    assert {name: values.tolist() for name, values in tensors.items()} == {
        "weight": [[0, 1, 2, 3], [4, 5, 6, 7]],
        "turned": [[8, 10], [9, 11]],
        "count": 1,
    }
    assert [values.dtype.name for values in tensors.values()] == ["float32", "float32", "int64"]
    contents = path.read_bytes()
    for length in range(0, len(contents), 5):
        path.write_bytes(contents[:length])
        with pytest.raises(InvalidWeights, match=r"a\.pth is truncated or no weights file .*from its publisher"):
            read_tensors(path)


@pytest.mark.parametrize("place", ["alone", "as a value"])
def test_a_command_is_refused_and_not_run(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    if place == "alone":
        path.write_bytes(pickle.dumps(RunsACommand(), protocol=2))
    else:
        write(path, {"w": RunsACommand()}, [])
    with pytest.raises(InvalidWeights, match=r"evil\.pth .* holds '(posix|nt)\.system', not only tensors"):
        read_tensors(path)
    assert not (tmp_path / "it ran").exists()
