"""WebDataset: tar files in which files that follow each other and share a key are one sample: 0.jpg, 0.cls, 0.json.

The key is the path up to the first dot of the name. Nothing is unpacked by its name: members are read as they come, and
links, devices, files with holes and whatever is no regular file are passed over.
"""

import gzip
import json
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

from regraft.converters.photo_files import MOST_BYTES
from regraft.converters.records import (
    NO_LABEL,
    NO_PHOTO,
    LeftOut,
    Record,
    Wanted,
    files_of,
    split_in,
    split_named,
    text_of,
    texts_in,
)
from regraft.errors import InvalidData, printable
from regraft.files import most_unpacked, readable_bytes
from regraft.photos.folder import open_inside

SUFFIXES = (".tar", ".tar.gz", ".tgz")
_PHOTOS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic", "jp2", "ppm", "img", "image")
_LABELS = ("cls", "txt", "text", "label")  # kinds of files that hold the label alone, the most telling first
_KEYS = ("label", "class", "class_name", "cls")  # of a JSON file
_MOST_TEXT = 2**20  # bytes of a label or of a JSON file
_MOST_HEADER = 5_000  # bytes of a member's name and attributes; no path of a file is longer than 4,096
_MOST_PARSED = 10**9  # sum of the squares of these: some versions of Python take so long to parse them
_MOST_READS = 100  # behind the end of a file, before it counts as cut off
_SPLIT = re.compile(r"((?:.*/)?[^/.]*)\.([^/]+)")
_LONG_HEADERS = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)


class _Member(tarfile.TarInfo):
    """A member whose header is read into memory only if it is as small as headers are."""

    parsed = 0  # of the tar file that it is of; less for a large one

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0:
            raise tarfile.ReadError("a member of less than no bytes")
        if member.type in _LONG_HEADERS and member.size > _MOST_HEADER:
            raise tarfile.ReadError(f"a header of {member.size:,} bytes; at most {_MOST_HEADER:,} are read")
        cls.parsed += member.size**2 if member.type in _LONG_HEADERS else 0
        if cls.parsed > _MOST_PARSED:
            raise tarfile.ReadError("more long headers than any tar file of photos has")
        return member


class _Unpacked:
    """What a file holds, unpacked where it is packed: up to a total, and not for ever behind its end."""

    def __init__(self, file: BinaryIO, shown: str) -> None:
        self._shown, self._size = shown, os.fstat(file.fileno()).st_size
        is_packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        self._file = gzip.GzipFile(fileobj=file) if is_packed else file
        self._left, self._bytes_left = _MOST_READS, most_unpacked(self._size)

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes.

        Raises:
            EOFError: nothing has been left for long.
            InvalidData: the file unpacks to more than photos do.
        """
        content = self._file.read(size)
        self._left -= not content
        if not self._left:
            raise EOFError("it ends within a file that should be longer")
        self._bytes_left -= len(content)
        if self._bytes_left < 0:
            raise InvalidData(
                f"{self._shown} has {readable_bytes(self._size)} and must unpack to at most "
                f"{readable_bytes(most_unpacked(self._size))}, since photos hardly shrink. Received: more. If it is "
                f"what it should be, unpack it (gunzip), and name the .tar file."
            )
        return content


def read_webdataset(source: Path, wanted: Wanted, left_out: LeftOut) -> Iterator[Record]:
    """Yield the samples of a tar file, or of all below a folder."""
    root, names = files_of(source, SUFFIXES)
    for name in names:
        shown = printable(str(root / name))
        try:
            with open_inside(root, name) as file, _opened(file, shown) as tar:
                for key, members in _samples(tar, name, left_out):
                    if record := _record(f"{name}: {key}", members, wanted, left_out, split_in(name)):
                        yield record
        except (OSError, tarfile.TarError, EOFError, ValueError, IndexError, RecursionError, zlib.error) as error:
            reason = printable(getattr(error, "strerror", None) or str(error))
            raise InvalidData(f"{shown} is no sound tar file: {reason}. Write or download it again.") from None


def _opened(file: BinaryIO, shown: str) -> tarfile.TarFile:
    member = type("_Member", (_Member,), {"parsed": -100 * os.fstat(file.fileno()).st_size})  # for this file alone
    # tarfile would unpack each piece that it reads whole, to gigabytes of one of bzip2.
    return tarfile.open(fileobj=cast(BinaryIO, _Unpacked(file, shown)), mode="r|", tarinfo=member)


def _samples(tar: tarfile.TarFile, name: str, left_out: LeftOut) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield key and members of each sample, by their kind: what follows the first dot, in small letters."""
    key, members = None, {}
    for member in tar:
        tar.members = []  # type: ignore[attr-defined] - or it keeps all headers that it has read
        tar.pax_headers = {}  # those for all members, which it copies for each
        match = _SPLIT.fullmatch(member.name)
        if not match or not member.isreg() or member.issparse() or _is_hidden(member.name):
            continue
        if match[1] != key:
            if key is not None and members:
                yield key, members
            key, members = match[1], {}
        kind = match[2].lower()
        is_photo, is_text = kind in _PHOTOS, kind in (*_LABELS, "json")
        if member.size > (MOST_BYTES if is_photo else _MOST_TEXT):
            if is_photo or is_text:
                left_out.add("with a file that is too large", f"{name}: {member.name} ({member.size:,} bytes)")
        elif is_photo and any(other in _PHOTOS and other != kind for other in members):
            members[kind] = b""  # the sample cannot be used, and need not be held
        elif (is_photo or is_text) and (file := tar.extractfile(member)):
            members.pop(kind, None)
            members[kind] = file.read()
    if key is not None and members:
        yield key, members


def _record(
    where: str, members: dict[str, bytes], wanted: Wanted, left_out: LeftOut, split: str | None
) -> Record | None:
    photos = [kind for kind in members if kind in _PHOTOS]
    if len(photos) != 1:
        left_out.add("with several photos" if photos else NO_PHOTO, where)
        return None
    fields = _fields(members.get("json"), where)
    label = _label(members, fields, wanted, where)
    if label is None:
        left_out.add(NO_LABEL, where)
        return None
    return Record(where, label, members[photos[0]], split=split or split_named(fields.get("split")), fields=fields)


def _fields(text: bytes | None, where: str) -> dict[str, str]:
    if text is None:
        return {}
    try:
        contents: Any = json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InvalidData(f"{where}.json is no JSON: {printable(str(error))}. Write it again.") from None
    return texts_in(contents) if isinstance(contents, dict) else {}


def _label(members: dict[str, bytes], fields: dict[str, str], wanted: Wanted, where: str) -> str | None:
    if wanted.label:
        return fields.get(wanted.label)
    for kind in _LABELS:
        if kind in members:
            try:
                return text_of(members[kind].decode("utf-8-sig"))
            except UnicodeDecodeError:
                raise InvalidData(f"{where}.{kind} must be text in UTF-8. Write it again.") from None
    return next((fields[key] for key in _KEYS if key in fields), None)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part.strip(".") for part in name.split("/"))
