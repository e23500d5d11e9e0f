"""Photos of a source as files that a table can name: where they lie, or as copies beside the table.

What a source names is not trusted: only what lies within the photos' folder is opened, and only what begins as an image
does is copied. A copy is named after its content, so whatever a source calls its photos, nothing is overwritten.

Copies wait in a hidden folder until the table stands: a folder of copies without a table would be taken for a class.
Its name is drawn at random, and only what this conversion has copied is moved: the folder of the table may have come
with somebody's data, and a link in it would lead to other files, or let copies be written elsewhere. Who stops a
conversion (Ctrl-C, SIGTERM) finds no trace of it, or all of it. `kill -9` leaves what no retraining sees and the next
conversion removes; while copies are moved, a table that names photos that are not there, which is said, and made good
by the same conversion.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from regraft.converters.records import NO_PHOTO, SCHEMES, LeftOut, Record
from regraft.errors import RegraftError, is_invisible
from regraft.files import check_room, folder_within
from regraft.photos.folder import open_inside
from regraft.photos.labels_file import path_inside
from regraft.photos.photo_urls import carries_secret, is_url, problem_of_url

COPIES = "photos"  # the folder beside the table
_WAITING = ".photos-of-a-conversion-"  # how the folder begins where they lie until there is a table
_COPY = re.compile(r"[0-9a-f]{64}\.[a-z0-9]+")
MOST_BYTES = 1024 * 2**20  # of one photo's file
_STAYS_FREE = 256 * 2**20  # bytes of the disk that copies leave to others
NO_IMAGE = "whose content is no image that is read"
_BAD_NAME = "whose path a table cannot hold: it leaves the folder, or has letters that cannot be seen"
_BAD_URL = "whose address a table must not hold: a user, a password, a query, `..` or an unknown scheme"
_GONE = "of which there is no file that may be read"
_TOO_LARGE = "larger than 1 GiB"
# By the first bytes; the formats that are read.
_SUFFIXES = [
    (re.compile(start, re.DOTALL), suffix)
    for start, suffix in (
        (rb"\xff\xd8\xff", ".jpg"),
        (rb"\x89PNG\r\n\x1a\n", ".png"),
        (rb"GIF8[79]a", ".gif"),
        (rb"RIFF....WEBP", ".webp"),
        (rb"II[*+]\0|MM\0[*+]", ".tif"),
        (rb"BM....\0\0\0\0", ".bmp"),
        (rb"....ftyp(....){0,30}?(avif|avis)", ".avif"),
        (rb"....ftyp(....){0,30}?(he[iv][cfxms]|mif[12]|msf1)", ".heic"),
        (rb"\0\0\0\x0cjP  \r\n\x87\n", ".jp2"),
        (rb"\xff\x4f\xff\x51", ".j2k"),
        (rb"P[1-6]\s", ".ppm"),
    )
]


class PhotoFiles:
    """Finds the photos of one source, and copies those that do not lie below the folder of the table."""

    def __init__(self, photos: Path | str, table_folder: Path) -> None:
        """Names are relative to `photos`, a folder or an address."""
        self._photos, self._folder = photos, table_folder
        self._waiting: Path | None = None  # made with the first copy
        self._base = _base(photos, table_folder) if isinstance(photos, Path) else None
        self.copied: set[str] = set()  # paths of the files that were written

    def place(self, record: Record, left_out: LeftOut) -> tuple[str, str | None] | None:
        """Return the path and the SHA-256 of a photo, which is None where it stays at an address; or leave it out."""
        if record.content is not None:
            return self._copy(record.content, record.where, left_out)
        if not record.name:
            left_out.add(NO_PHOTO, record.where)
        elif is_url(record.name):
            return _address(record.name, record.where, left_out)
        elif carries_secret(record.name):
            left_out.add(_BAD_URL, f"{record.where} ({record.name})")
        elif path_inside(record.name) != record.name or any(map(is_invisible, record.name)):
            left_out.add(_BAD_NAME, f"{record.where} ({record.name})")
        elif isinstance(self._photos, str):
            return _address(f"{self._photos.rstrip('/')}/{record.name}", record.where, left_out)
        else:
            return self._find(self._photos, record, left_out)
        return None

    @contextmanager
    def kept_if_listed(self, table: Path) -> Iterator[None]:
        """Move the copies to their place if the table was written within; remove them if that fails.

        A conversion that is told to stop ends after that: it takes a moment.
        """
        made = [folder for folder in (self._folder, *self._folder.parents) if not folder.exists()]
        with suppress(OSError):
            _remove_left(self._folder)
        before = _version_of(table)
        try:
            yield
        finally:
            is_listed = _version_of(table) != before
            _to_its_end(self._move if is_listed else lambda: self._discard(made))

    def _move(self) -> None:
        """Move the copies that still wait."""
        if self._waiting is None:
            return
        target = folder_within(self._folder, COPIES)
        for path in sorted(self.copied):
            copy, place = self._waiting / Path(path).name, target / Path(path).name
            try:
                copy.replace(place)
            except FileNotFoundError:
                if not _is_plain_file(place):  # else moved before this was begun again
                    raise RegraftError(
                        f"the copy {path} is gone: another conversion into {self._folder} ran at the same time. Run "
                        f"this one again."
                    ) from None
        shutil.rmtree(self._waiting, ignore_errors=True)

    def _discard(self, made: list[Path]) -> None:
        """Remove the copies, and the folders that this conversion has made."""
        if self._waiting:
            shutil.rmtree(self._waiting, ignore_errors=True)
        for folder in made:
            with suppress(OSError):  # others have put something into it
                folder.rmdir()

    def remove(self, path: str) -> None:
        """Remove a copy that this run has written and the table does not name."""
        if path in self.copied and self._waiting:
            (self._waiting / Path(path).name).unlink()
            self.copied.remove(path)

    def _find(self, photos: Path, record: Record, left_out: LeftOut) -> tuple[str, str | None] | None:
        for folder in record.folders:
            name = str(PurePosixPath(folder, record.name))
            try:
                with open_inside(photos, name) as file:
                    if os.fstat(file.fileno()).st_size > MOST_BYTES:
                        left_out.add(_TOO_LARGE, f"{record.where} ({name})")
                        return None
                    content = file.read()
            except (OSError, ValueError):
                continue
            if self._base is None:
                return self._copy(content, f"{record.where} ({name})", left_out)
            if not _suffix(content):
                left_out.add(NO_IMAGE, f"{record.where} ({name})")
                return None
            return str(PurePosixPath(self._base, name)), hashlib.sha256(content).hexdigest()
        left_out.add(_GONE, f"{record.where} ({record.name})")
        return None

    def _copy(self, content: bytes, where: str, left_out: LeftOut) -> tuple[str, str] | None:
        """Write a photo beside the table, unless it is there."""
        suffix = _suffix(content)
        if suffix is None:
            left_out.add(NO_IMAGE, where)
            return None
        digest = hashlib.sha256(content).hexdigest()
        path = f"{COPIES}/{digest}{suffix}"
        file = self._folder / path
        if os.path.lexists(file.parent):
            folder_within(self._folder, COPIES)  # a link is refused before anything is written
        if file.is_dir():
            raise RegraftError(f"{file} is a folder. Expected a photo, or nothing. Move it away, and run again.")
        if path not in self.copied and not (_is_plain_file(file) and _digest(file) == digest):
            check_room(self._folder, len(content) + _STAYS_FREE, "a photo of the source and what must stay free")
            if self._waiting is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._waiting = Path(tempfile.mkdtemp(prefix=_WAITING, dir=self._folder))  # for its owner alone
            # Not forced to the disk one by one: the table has its SHA-256.
            (self._waiting / file.name).write_bytes(content)
            self.copied.add(path)
        return path, digest


def _remove_left(table_folder: Path) -> None:
    """Remove copies that a killed conversion has left, and nothing else that lies in a folder of that name."""
    for folder in table_folder.glob(f"{_WAITING}*"):
        if folder.is_dir() and not folder.is_symlink():
            for file in folder.iterdir():
                if _COPY.fullmatch(file.name) and not file.is_dir():
                    file.unlink()
            with suppress(OSError):  # others have put something into it
                folder.rmdir()


def _is_plain_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _address(url: str, where: str, left_out: LeftOut) -> tuple[str, None] | None:
    if problem_of_url(url, SCHEMES):
        left_out.add(_BAD_URL, f"{where} ({url})")
        return None
    return url, None


def _base(photos: Path, table_folder: Path) -> str | None:
    """Return the path of the photos' folder within that of the table; None where it lies elsewhere."""
    inside, outside = photos.resolve(), table_folder.resolve()
    return inside.relative_to(outside).as_posix() if inside.is_relative_to(outside) else None


def _suffix(content: bytes) -> str | None:
    return next((suffix for start, suffix in _SUFFIXES if start.match(content)), None)


def _version_of(table: Path) -> tuple[int, int] | None:
    """Return what changes whenever a table is written anew; None where there is none."""
    try:
        found = table.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _to_its_end(act: Callable[[], None]) -> None:
    """Do something that can be begun again; who presses Ctrl-C meanwhile, however often, is heard afterwards."""
    stop = None
    while True:
        try:
            act()
            break
        except KeyboardInterrupt as error:
            stop = error
    if stop:
        raise stop


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
