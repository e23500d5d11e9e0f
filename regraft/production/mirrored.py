"""The files of a mirror of production: how each looks from outside, and of which pointer they are.

<folder>/.mirror.json    the pointer that the files are from, and how each of them looked when that was so
"""

import json
import os
import stat
from contextlib import suppress
from pathlib import Path

from regraft.core.files import sha256_of, write_bytes
from regraft.production import lock
from regraft.production.pointer import MODEL, Pointer, Stored, is_name, read_pointer

PENDING = "change.json"  # a change of this machine that is under way (`regraft.production.registry`)
_OWN = (lock.FILE, PENDING)  # what concerns nobody else
_STATE = ".mirror.json"
Look = tuple[int, int, int]  # size in bytes, time of the last change, inode


def looks_of(folder: Path) -> dict[str, Look]:
    """Return how each file of production looks, by its name; no link is among them, and nothing that is hidden."""
    found: dict[str, Look] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            if relative in _OWN or not is_name(relative):
                continue
            with suppress(FileNotFoundError):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    found[relative] = (status.st_size, status.st_mtime_ns, status.st_ino)
    return found


def has_state(folder: Path) -> bool:
    """Whether the folder was a mirror before."""
    return (folder / _STATE).is_file()


def read_state(folder: Path) -> tuple[Pointer | None, dict[str, Look]]:
    """Return the pointer that the files are from and how they looked; None where that is not known."""
    try:
        state = json.loads((folder / _STATE).read_bytes())
        looks = {str(name): (int(look[0]), int(look[1]), int(look[2])) for name, look in state["looks"].items()}
        return read_pointer(json.dumps(state["pointer"]).encode()), looks
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None, {}


def write_state(folder: Path, pointer: Pointer) -> None:
    """Note that the files are those of a pointer."""
    state = {"pointer": json.loads(pointer.as_bytes()), "looks": looks_of(folder)}
    write_bytes(folder / _STATE, json.dumps(state).encode())


def can_wait(name: str) -> bool:
    """Whether a file is big, and needed only by a rollback, a comparison with its model, or a promotion by hand."""
    return name.endswith(".onnx") and name != MODEL


def is_stand_in(look: Look | None, stored: Stored) -> bool:
    """Whether an empty file stands for one that was not fetched yet."""
    return look is not None and look[0] == 0 < stored.size


def compare(folder: Path, pointer: Pointer) -> tuple[list[str], dict[str, str]]:
    """Return which files of a pointer are missing here or differ, and of those that do not, one name by each digest.

    Of the former those that have to be here come first. A file that looks as it did is not read.
    """
    before, looks = read_state(folder)
    known, here = before.files if before else {}, looks_of(folder)
    sound: dict[str, str] = {}
    wanted: list[str] = []
    for name, stored in pointer.files.items():
        is_known = name in here and here[name] == looks.get(name) and known.get(name) == stored
        is_whole = name in here and not is_stand_in(here[name], stored)
        if is_whole and (is_known or sha256_of(folder / name) == stored.sha256):
            sound[stored.sha256] = name
        else:
            wanted.append(name)
    return sorted(wanted, key=can_wait), sound


def remove_others(folder: Path, pointer: Pointer) -> None:
    """Remove what the pointer does not name: files, folders that are empty then, and a change that was killed."""
    for name in looks_of(folder).keys() - pointer.files.keys():
        (folder / name).unlink(missing_ok=True)
    (folder / PENDING).unlink(missing_ok=True)
    for parent, _, _ in os.walk(folder, topdown=False):
        if Path(parent) != folder:
            with suppress(OSError):  # it is not empty
                Path(parent).rmdir()
