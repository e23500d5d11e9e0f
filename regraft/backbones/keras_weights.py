"""The numbers in a foreign HDF5 file, read once by a process of its own, whose memory is limited.

HDF5 is C code that hostile bytes may crash, and its files may point to others or claim any size.

    python -m regraft.backbones.keras_weights FILE      prints {"problem": null or a text, "bytes": of all numbers}
"""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

_MOST_OBJECTS = 200_000  # groups and arrays
_MEMORY = 2**28  # bytes beside the numbers


def size_of_numbers(path: Path) -> int:
    """Read all arrays of a file and return their bytes.

    Raises:
        ValueError: it holds anything but numbers that lie in it.
        OSError, RuntimeError: it is damaged.
    """
    import h5py

    size, seen = 0, set[int]()
    with h5py.File(path, "r") as file:
        pending: list[Any] = [file]
        while pending:
            group = pending.pop()
            for name in group:
                # Links point to other files, or anywhere in this one.
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise ValueError("the file of weights holds a link")
                member = group[name]
                place = h5py.h5o.get_info(member.id).addr
                if place in seen:  # a group may contain itself
                    continue
                seen.add(place)
                if len(seen) > _MOST_OBJECTS:
                    raise ValueError(f"the file of weights holds more than {_MOST_OBJECTS:,} objects")
                if isinstance(member, h5py.Group):
                    pending.append(member)
                elif isinstance(member, h5py.Dataset):
                    size += _size_of_array(member, path.stat().st_size - size)
                else:
                    raise ValueError("the file of weights holds a type")
    return size


def _size_of_array(array: Any, most: int) -> int:
    if array.is_virtual or array.external:
        raise ValueError("the file of weights takes numbers from other files")
    if array.shape is None or array.dtype.kind not in "fiubV" or array.dtype.names or array.dtype.subdtype:
        raise ValueError("the file of weights holds something other than numbers")
    size = array.size * array.dtype.itemsize
    if size > most:  # compressed, or with sides that nothing was ever written for
        raise ValueError("the file of weights claims more numbers than it has room for")
    array[()]
    return size


def main() -> None:
    """Print what the file given as argument comes to."""
    path = Path(sys.argv[1])
    import h5py  # noqa: F401  # before memory is limited: what it reserves depends on the machine

    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    most = held + _MEMORY + 2 * path.stat().st_size
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    answer: dict[str, Any] = {"problem": None, "bytes": 0}
    try:
        answer["bytes"] = size_of_numbers(path)
    except (ValueError, OSError, RuntimeError, KeyError, TypeError, MemoryError) as error:
        answer["problem"] = " ".join(str(error).split())[:200] or type(error).__name__
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
