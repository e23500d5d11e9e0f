"""Writing files so that nobody ever reads half of one."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regraft.errors import RegraftError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_ACCESS = {errno.EACCES, errno.EPERM, errno.EROFS}  # numbers of an OSError: who may not write can still read


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success its contents reach the disk and take the place of `path` whole.

    After an error, or a kill at any moment, `path` is what it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last because Keras and matplotlib choose the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def put_in_place(temporary: Path, path: Path) -> None:
    """Give a finished file its name, once its contents are on the disk."""
    with temporary.open("rb") as file:
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
        if error.errno in _NO_ROOM:
            raise RegraftError(
                f"There is no room in {folder}, where {needed} needed ({error.strerror}). Free some, for instance by "
                "`regraft store gc`, and run the same command again: what was written before is kept."
            ) from error
        if error.errno in NO_ACCESS:
            raise RegraftError(
                f"{folder} cannot be written to ({error.strerror}), and {needed} to be kept there. Make it writable, "
                "or set paths.store in params.yaml to a folder that is."
            ) from error
        raise


def write_bytes(path: Path, contents: bytes) -> None:
    """Write `contents` to `path`, replacing it whole."""
    with replacing(path) as temporary:
        temporary.write_bytes(contents)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, replacing it whole."""
    write_bytes(path, text.encode())


def write_json(path: Path, report: Any) -> None:
    """Write `report` as indented JSON, keys in the given order; NaN, which others cannot read, is refused."""
    write_text(path, json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Return what a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def md5_of(path: Path) -> str:
    """Return the MD5 of a file's bytes, by which DVC names a file, as 32 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def fingerprint(facts: Any) -> str:
    """Return the SHA-256 of JSON-able `facts`, whatever the order of keys, as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def readable_bytes(count: float) -> str:
    """Return a size as a person reads it, in decimal units: 1234567 -> '1.2 MB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
