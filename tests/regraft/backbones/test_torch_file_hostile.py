"""Files of weights that were made to do harm, or damaged: numbers of the right shape, or a refusal by name."""

import pickle
import struct
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regraft.backbones.torch_file import read_tensors
from regraft.errors import InvalidWeights
from tests.support.torch_files import MAGIC, PROTOCOL, Storage, Tensor, tensor_of, write

MANGLED = 3000


def file_of(state: bytes, path: Path, *, keys: tuple[str, ...] = (), rest: bytes = b"") -> Path:
    """A file whose pickle of the tensors is made by hand."""
    parts = [pickle.dumps(part, protocol=2) for part in (MAGIC, PROTOCOL, {"little_endian": True})]
    path.write_bytes(b"".join([*parts, state, pickle.dumps(list(keys), protocol=2), rest]))
    return path
    return path


def refused(path: Path, message: str = "publisher") -> None:
    with pytest.raises(InvalidWeights, match=message):
        read_tensors(path)


class Hostile(Tensor):
    """A tensor with anything as its arguments."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments


@pytest.mark.parametrize("odd", [np.int64(4), np.float64(4), True, 4.0, "4", None, [4], (4,), 2**200, -4])
@pytest.mark.parametrize("place", ["offset", "shape", "strides"])
def test_only_whole_numbers_say_where_a_tensor_lies(tmp_path, odd, place):
    storage = Storage("0", np.arange(6, dtype=np.float32))
    arguments: dict[str, Any] = {"offset": 0, "shape": (1,), "strides": (1,)}
    arguments[place] = odd if place == "offset" else (odd,)
    if (odd, place) == (True, "offset"):
        arguments["shape"] = (1,)
    if place == "strides" and odd == 2**200:  # a step that is never taken, but NumPy would have to hold it
        arguments["shape"] = (2,)
    path = write(tmp_path / "a.pth", {"w": Hostile(storage, *arguments.values(), False, OrderedDict())}, [storage])
    refused(path)


@pytest.mark.parametrize("container", [list, np.array])
def test_shape_and_strides_are_tuples(tmp_path, container):
    storage = Storage("0", np.arange(6, dtype=np.float32))
    refused(write(tmp_path / "a.pth", {"w": Hostile(storage, 0, container([2]), (1,), False, None)}, [storage]))
    refused(write(tmp_path / "a.pth", {"w": Hostile(storage, 0, (2,), container([1]), False, None)}, [storage]))


@pytest.mark.parametrize("name", ["numpy.int64", "numpy._core.multiarray.scalar", "numpy.dtype", "builtins.int"])
def test_a_number_of_numpy_cannot_even_be_named(tmp_path, name):
    module, _, attribute = name.rpartition(".")
    path = file_of(b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + b".", tmp_path / "a.pth")
    refused(path, f"holds '{name}', not only tensors")


def test_torch_may_note_the_versions_of_layers_as_attributes_of_the_dict_and_they_are_dropped(tmp_path):
    class Noted(OrderedDict):
        pass

    tensor, storage = tensor_of(np.arange(3, dtype=np.float32))
    path = write(tmp_path / "a.pth", OrderedDict(w=tensor), [storage])
    contents = path.read_bytes()
    # BUILD, as torch writes it: the dict's attributes are another dict.
    end = contents.index(pickle.dumps(["0"], protocol=2))
    path.write_bytes(contents[: end - 1] + b"}X\x09\x00\x00\x00_metadata}sb." + contents[end:])
    assert read_tensors(path)["w"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "state",
    [
        b"\x80\x02ctorch\nFloatStorage\n}b.",  # attributes of a dtype
        b"\x80\x02ccollections\nOrderedDict\n}b.",  # of a function
        b"\x80\x02]}b.",  # of a list
        b"\x80\x02}]b.",  # a list as attributes
        b"\x80\x02}N\x86b.",
    ],
)
def test_attributes_are_set_nowhere_else(tmp_path, state):
    refused(file_of(state, tmp_path / "a.pth"))


@pytest.mark.parametrize(
    "state",
    [
        b"\x80\x02ctorch\nFloatStorage\n)R.",  # a call of what is no function
        b"\x80\x02})R.",
        b"\x80\x02ccollections\nOrderedDict\n]R.",  # arguments in a list
        b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"\x80\x02" + b"}" * 3 + b".",  # three results
        b"\x80\x02.",
        b"\x80\x02(.",
        b"\x80\x02(}.",
        b"\x80\x02}(K\x01K\x02u.",  # keys that are no text
        b"\x80\x02}(}}u.",
        b"\x80\x02}(X\x01\x00\x00\x00au.",  # a key without a value
        b"\x80\x02](K\x01t",
        b"\x80\x02h\x07.",  # never remembered
        b"\x80\x02q\x00.",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",  # LONG4 of two gigabytes
        b"\x80\x02B\xff\xff\xff\x7f.",  # bytes of two gigabytes
        b"\x80\x02X\xff\xff\xff\xff.",  # text of four
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.",  # a frame of all that there is
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a byte array
        b"\x80\x02r\xff\xff\xff\xff.",
        b"\x80\x02c" + b"a" * 5000,
        b"\x80\x02Q.",
        b"\x80\x02)Q.",
        b"\x80\x02NQ.",
        b"\x80\x02P0\n.",
        b"\x80\x02ios\nsystem\n.",  # INST
        b"\x80\x02(os\nsystem\no.",
        b"\x80\x02\x82\x01.",  # extension registry
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",  # STACK_GLOBAL
        b"\x80\x02)\x81.",  # NEWOBJ
        b"I01\n.",
        b"L9999999999L\n.",
        b"V\\ud800\n.",
        b"S'a'\n.",
        b"\x80\x022.",  # DUP
        b"\x80\x020.",
    ],
)
def test_no_other_instruction_is_carried_out(tmp_path, state):
    refused(file_of(state, tmp_path / "a.pth"))


@pytest.mark.parametrize(
    "state",
    [
        b"]" * 3_000_000,  # lists in memory: 56 bytes for one
        b"(" * 3_000_000,
        b"]q\x00" + b"h\x00\x86" * 900_000,
        b"\x80\x02" + b"]" * 400_000 + b"a" * 399_999 + b".",  # one in the other, far deeper than Python calls
        b"\x80\x02]" + b"q\x00h\x00h\x00\x86" * 100_000 + b".",  # doubled 100,000 times, as far as one walks it
    ],
    ids=["lists", "marks", "pairs", "depth", "doubling"],
)
def test_a_pickle_that_grows_in_memory_is_refused(tmp_path, state):
    refused(file_of(state, tmp_path / "a.pth"))


def test_keys_of_storages_are_named_once_each_and_agree(tmp_path):
    first, same_key = Storage("0", np.zeros(4, np.float32)), Storage("0", np.zeros(4, np.float64))
    tensors = {"a": Tensor(first, 0, (4,), (1,)), "b": Tensor(same_key, 0, (4,), (1,))}
    refused(write(tmp_path / "a.pth", tensors, [first]), "two sizes")
    other = Storage("1", np.zeros(4, np.float32))
    one = {"a": Tensor(first, 0, (4,), (1,))}
    for keys in ([first, first], [], [first, other], [other]):
        refused(write(tmp_path / "a.pth", one, keys), "does not name each")


def test_many_views_of_one_storage_do_not_make_more_numbers_than_the_file_has_room_for(tmp_path):
    storage = Storage("0", np.zeros(100_000, np.float32))
    views = {f"view {number}": Tensor(storage, 0, (100_000,), (1,)) for number in range(50)}
    refused(write(tmp_path / "a.pth", views, [storage]), "far larger than the file")
    tied = {name: views[name] for name in ("view 0", "view 1")}
    assert len(read_tensors(write(tmp_path / "tied.pth", tied, [storage]))) == 2


def test_an_empty_tensor_of_impossible_sides_is_refused_and_an_empty_storage_is_not(tmp_path):
    storage = Storage("0", np.zeros(0, np.float32))
    path = write(tmp_path / "a.pth", {"w": Tensor(storage, 0, (0, 2**62, 2**62), (1, 1, 1))}, [storage])
    refused(path, "no array has")
    assert read_tensors(write(tmp_path / "b.pth", {"w": Tensor(storage, 0, (0, 3), (3, 1))}, [storage]))["w"].size == 0


def test_a_folder_or_an_unreadable_file_is_refused_by_name(tmp_path):
    refused(tmp_path, "cannot be read")


def test_a_file_mangled_anywhere_gives_numbers_of_the_right_shape_or_a_refusal_in_little_memory(tmp_path, root):
    """3,000 times, in a process that could not hold much more than the interpreter."""
    storage = Storage("0", np.arange(40, dtype=np.float32))
    tensors = {"weight": Tensor(storage, 0, (2, 16), (16, 1)), "bias": Tensor(storage, 32, (8,), (1,))}
    path = write(tmp_path / "good.pth", OrderedDict(tensors), [storage])
    program = f"""
import random, resource
from pathlib import Path
from regraft.backbones.torch_file import read_tensors
from regraft.errors import InvalidWeights

good, path = Path({str(path)!r}).read_bytes(), Path({str(tmp_path / "bad.pth")!r})
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 2**26, held + 2**26))
chance, counts, header = random.Random(0), {{"read": 0, "refused": 0}}, len(good) - 168
for number in range({MANGLED}):
    bad = bytearray(good)
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(header) if chance.random() < 0.9 else chance.randrange(len(bad))
        match chance.randrange(4):
            case 0: bad[place] ^= 1 << chance.randrange(8)
            case 1: bad[place] = chance.choice(b"()]}}.abceghjqrstuKMJXQR0\\x85\\x86\\x87\\x88\\x8a\\x8b\\xff\\x00")
            case 2: del bad[place : place + chance.randint(1, 4)]
            case 3: bad[place:place] = bad[place : place + chance.randint(1, 30)]
    path.write_bytes(bad)
    try:
        tensors = read_tensors(path)
    except InvalidWeights:
        counts["refused"] += 1
        continue
    counts["read"] += 1
    for value in tensors.values():
        assert value.nbytes <= 2 * len(bad) and value.dtype.kind in "fi" and value.flags.owndata
        value.sum()
print(counts)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("{'read': "), done.stdout
    assert "'read': 0," not in done.stdout, "no mutation was harmless: the test looks at refusals alone"


def test_a_storage_of_terabytes_is_refused_before_it_is_reserved(tmp_path):
    state = b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    state += b"\x8a\x06" + (2**40).to_bytes(6, "little") + b"NtQ."
    refused(file_of(state, tmp_path / "a.pth", keys=("0",), rest=struct.pack("<q", 2**40)))
