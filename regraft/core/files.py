"""Writing files so that nobody ever reads half of one."""

import errno
import hashlib
import json
import math
import os
import secrets
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from regraft.core.errors import Damaged, RegraftError

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # numbers of an OSError: the disk, or a quota, is full
_WRONG_KIND = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ELOOP}
NO_FILE = "it is no regular file"  # of a named pipe, a socket, a device or a folder
NO_ACCESS = {errno.EACCES, errno.EPERM, errno.EROFS}  # numbers of an OSError: who may not write can still read


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty file beside `path`; on success its contents reach the disk and take the place of `path` whole.

    After an error, or a kill at any moment, `path` is what it was before. A link at `path` is replaced, and its target
    stays; folders above it may be links.

    Raises:
        RegraftError: the disk is full, or the file cannot be written for another reason that a person can change.
    """
    temporary = _unguessable(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _make_empty(temporary)
        yield temporary
        put_in_place(temporary, path)
    except OSError as error:
        ours = {None, str(temporary), str(path), *map(str, path.parents)}
        name = error.filename
        if error.errno is None or (name if name is None else os.fspath(name)) not in ours:
            raise  # of another file, which was read
        raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def temporary_beside(path: Path) -> Path:
    """Make an empty file beside `path`, under a name at which nobody can have put a link, and return it."""
    temporary = _unguessable(path)
    _make_empty(temporary)
    return temporary


def _unguessable(path: Path) -> Path:
    # The number of the process tells `regraft.store.names` what a kill has left. The suffix stays last because Keras
    # and matplotlib choose the format by it; they open the file by its name.
    return path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(8)}.tmp{path.suffix}")


def _make_empty(file: Path) -> None:
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))


def folder_within(folder: Path, name: str) -> Path:
    """Return a folder within one that others fill, such as the data folder; it is made if it is not there.

    A folder that a person names may be a link to another disk. One that came with data leads what is written out of it.

    Raises:
        RegraftError: a link, or something else, lies there.
    """
    path = folder / name
    with suppress(FileExistsError):
        path.mkdir(parents=True)
    if path.is_symlink() or not path.is_dir():
        found = f"a link to {path.readlink()}" if path.is_symlink() else "none"
        raise RegraftError(
            f"{path} must be a folder that is no link, and is {found}. Remove it, and run the same command again."
        )
    return path


def _unwritable(path: Path, error: OSError) -> RegraftError:
    """The error that says what to do so that `path` can be written."""
    if error.errno in NO_ROOM:
        return RegraftError(
            f"There is no room in {path.parent} for {path.name} ({error.strerror}). Free some, for instance by "
            f"`regraft store --gc 10`, and run the same command again: {path} is as it was before."
        )
    return RegraftError(
        f"{path.parent} cannot be written to ({error.strerror}), and {path.name} belongs there. Make it writable, or "
        f"name another folder below `paths` in params.yaml, and run the same command again."
    )


# What parsers raise where bytes or types are other than they expect.
DAMAGE = (ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError)
DAMAGE += (RuntimeError, TypeError, ValueError, zipfile.BadZipFile, zlib.error)


@contextmanager
def reading(path: Path, expected: str) -> Iterator[None]:
    """Turn whatever a damaged file of ours leads to into one error that names it; a missing one is FileNotFoundError.

    Args:
        path: of the file; nothing else is read meanwhile.
        expected: what should be in it, for the message.

    Raises:
        Damaged: it holds something else, or cannot be read.
        RegraftError: it is no file, or one may not read it.
    """
    if not path.is_dir():
        refuse_special(path)
    try:
        yield
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno in (*NO_ACCESS, errno.EISDIR, errno.EIO):
            raise RegraftError(
                f"{path} cannot be read ({error.strerror}). Make it a file that you may read, or remove it."
            ) from error
        reason = " ".join(str(error).split())[:200]
        raise Damaged.of(path, expected, f"{type(error).__name__} {reason}".strip()) from error


def open_regular(path: Path, flags: int = 0) -> BufferedReader:
    """Open a file to read it; OSError if it is none. A named pipe would wait for its other end: O_NONBLOCK."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | flags)
    if stat.S_ISREG(os.fstat(file).st_mode):
        return os.fdopen(file, "rb")
    os.close(file)
    raise OSError(errno.EINVAL, NO_FILE, str(path))


def refuse_special(*places: Path) -> None:
    """Raise RegraftError if a named pipe, a socket or a device lies at, or somewhere below, places of ours.

    Libraries open files by their names, and would wait for the other end. Links to folders within are not followed.
    """
    for place in places:
        try:
            mode = place.stat().st_mode
            entries = list(os.scandir(place)) if stat.S_ISDIR(mode) else []
        except OSError:  # it is not there, or may not be read: who needs it says so
            continue
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise RegraftError(
                f"{place} must be a file, and is a named pipe, a socket or a device, which would be waited for. Remove "
                f"it, and run the same command again."
            )
        others = [entry for entry in entries if not entry.is_file(follow_symlinks=False)]
        refuse_special(*(Path(entry.path) for entry in others if not (entry.is_symlink() and entry.is_dir())))


def put_in_place(temporary: Path, path: Path) -> None:
    """Give a finished file its name, once its contents are on the disk; OSError if a link took its place meanwhile."""
    with open_regular(temporary, os.O_NOFOLLOW) as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def writing(folder: Path, size: int | None = None) -> Iterator[None]:
    """Turn a full disk, and a folder that cannot be written to or is removed, into errors that say what to do.

    Args:
        folder: made if it is not there.
        size: bytes to write, as far as they are known.
    """
    needed = f"{readable_bytes(size)} are" if size else "a few bytes are"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except FileNotFoundError as error:
        raise RegraftError(
            f"{folder} was removed while it was written to. What was in it is missing now: run the same command again."
        ) from error
    except OSError as error:
        if error.errno in NO_ROOM:
            raise RegraftError(
                f"There is no room in {folder}, where {needed} needed ({error.strerror}). Free some, for instance by "
                "`regraft store --gc 10`, and run the same command again: what was written before is kept."
            ) from error
        if error.errno in NO_ACCESS:
            raise RegraftError(
                f"{folder} cannot be written to ({error.strerror}), and {needed} to be kept there. Make it writable, "
                "or set paths.store in params.yaml to a folder that is."
            ) from error
        if error.errno in _WRONG_KIND:
            raise RegraftError(
                f"{folder} cannot be written to ({error.strerror}): expected folders, and files in them. Remove "
                f"{error.filename or 'what is in the way'}, and run the same command again."
            ) from error
        raise


def nearest(folder: Path) -> Path:
    """Return a folder, or the first one above it that is there."""
    return next(each for each in (folder, *folder.absolute().parents) if each.exists())


def free_bytes(folder: Path) -> int:
    """Return how many bytes can still be written on the disk that a folder is on, or will be."""
    return shutil.disk_usage(nearest(folder)).free


def check_room(folder: Path, size: int, what: str) -> None:
    """Raise RegraftError if so many bytes do not fit on the disk of a folder; `what` is to be written, in words."""
    if (free := free_bytes(folder)) < size:
        raise RegraftError(
            f"There is no room in {folder}: {what} take {readable_bytes(size)}, and {readable_bytes(free)} are free. "
            f"Free some, for instance by `regraft store --gc 10`, and run the same command again."
        )


def write_bytes(path: Path, contents: bytes | memoryview) -> None:
    """Write `contents` to `path`, replacing it whole."""
    with replacing(path) as temporary:
        temporary.write_bytes(contents)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, replacing it whole."""
    write_bytes(path, text.encode())


def write_json(path: Path, report: Any) -> None:
    """Write `report` as indented JSON, keys in the given order; NaN, which others cannot read, is refused."""
    write_text(path, json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, *keys: str) -> Any:
    """Return what a JSON file holds.

    Args:
        path: of the file.
        keys: that it must have, as an object; without any it may hold anything.

    Raises:
        FileNotFoundError: there is no such file.
        Damaged: it is no JSON, or lacks a key.
    """
    with reading(path, f"JSON{' with ' if keys else ''}{', '.join(keys)}"):
        contents = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        for key in keys:
            contents[key]
        return contents


def finite(value: Any) -> Any:
    """Return what JSON can hold of a figure, or of lists and objects of figures: numbers that are none become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name}, which is not JSON")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def md5_of(path: Path) -> str:
    """Return the MD5 of a file's bytes, by which DVC names a file, as 32 hexadecimal digits."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def fingerprint(facts: Any) -> str:
    """Return the SHA-256 of JSON-able `facts`, whatever the order of keys, as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def most_unpacked(size: int) -> int:
    """Return how many bytes a packed file, or a part of one, may unpack to: photos and tables stay far below."""
    return 64 * 2**20 + 100 * size


def readable_bytes(count: float) -> str:
    """Return a size as a person reads it, in decimal units: 1234567 -> '1.2 MB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
