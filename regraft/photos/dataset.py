"""The data set: one row per image that is used, with its class and its split."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from regraft.core.errors import InvalidData, MissingPhotos, printable
from regraft.core.files import fingerprint, reading
from regraft.core.sealed import read_frame, write_table
from regraft.photos.elsewhere import Elsewhere
from regraft.photos.fetching import Refused
from regraft.photos.folder import open_inside
from regraft.photos.images import heif_version, load_rgb
from regraft.photos.memory import FILE_MEMORY, PHOTO_MEMORY, memory_of
from regraft.photos.photo_urls import is_url

_PART = 20_000  # values at a time
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
COLUMNS = {
    "digest": "str",  # SHA-256 of the file's bytes
    "path": "str",  # relative to the data folder, or an address
    "class_name": "str",
    "class_index": "int32",
    "split": "str",
    "format": "str",  # of the file, as Pillow calls it; HEIF for HEIC
}


@dataclass(frozen=True, slots=True)
class Photo:
    """One image of the data set."""

    digest: str  # SHA-256 of the file's bytes
    path: str  # relative to the data folder, or an address
    class_name: str
    class_index: int
    split: str
    format: str  # of the file

    @property
    def source(self) -> str:
        """What its pixels follow from: see `source_of`."""
        return source_of(self.digest, self.format)


@dataclass(frozen=True, slots=True)
class Dataset:
    """The images that are used: `rows` has the columns of `COLUMNS`, ordered by digest."""

    rows: pd.DataFrame
    class_names: list[str]  # in the order of class_index
    folder: Path  # the data folder, which the paths are relative to
    elsewhere: Elsewhere | None = None  # that fetches photos at addresses; None: it has no such photos

    def of(self, *splits: Split) -> "Dataset":
        """Return the images of some splits only."""
        return self.with_rows(self.rows.loc[self.rows.split.isin(splits)].reset_index(drop=True))

    def head(self, count: int) -> "Dataset":
        """Return the first `count` images; ordered by digest, they are as good as drawn at random."""
        return self.with_rows(self.rows.head(count))

    def with_rows(self, rows: pd.DataFrame) -> "Dataset":
        """Return a part of the images, in the order of `rows`."""
        return replace(self, rows=rows)

    def photos(self) -> list[Photo]:
        """Return the images one by one, in the order of the rows."""
        return [Photo(*values) for values in zip(*(self.rows[column].tolist() for column in COLUMNS), strict=True)]

    def sources(self) -> list[str]:
        """Return what the pixels of each image follow from, in the order of the rows: see `source_of`."""
        return [source_of(*values) for values in zip(self.rows.digest, self.rows.format, strict=True)]

    @contextmanager
    def opened(self, photo: Photo, *, shorter_side: int | None = None) -> Iterator[np.ndarray]:
        """Yield what `read_photo` returns, as soon as there is memory for it (`regraft.photos.memory`)."""
        with self.file_of(photo) as file, FILE_MEMORY.take(_bytes_of(file)):
            contents = self._contents_of(photo, file)
            with PHOTO_MEMORY.take(memory_of(contents, shorter_side=shorter_side)):
                yield load_rgb(BytesIO(contents), shorter_side=shorter_side)

    def read_photo(self, photo: Photo, *, shorter_side: int | None = None) -> np.ndarray:
        """Return a photo as uint8 RGB, shape (height, width, 3), upright and not resized.

        Args:
            photo: its digest must be that of the file: values are stored under it, and a wrong one would poison the
                store.
            shorter_side: pixels that are enough, as for `load_rgb`; None for all there are.

        Raises:
            InvalidData: the file is gone, or is not the one that was validated.
            RegraftError: it lies elsewhere, and that cannot be reached.
        """
        with self.file_of(photo) as file:
            return load_rgb(BytesIO(self._contents_of(photo, file)), shorter_side=shorter_side)

    def is_there(self, photo: Photo) -> bool:
        """Whether the file of a photo is still the one that was validated; one that lies elsewhere is fetched."""
        try:
            with self.file_of(photo) as file:
                return bool(self._contents_of(photo, file))
        except InvalidData:
            return False

    @contextmanager
    def file_of(self, photo: Photo) -> Iterator[Path]:
        """Yield the file of a photo, fetched if it lies elsewhere; whoever reads it compares its digest.

        Raises:
            InvalidData: it lies elsewhere, and is not there any more or has other bytes.
            RegraftError: it cannot be reached.
        """
        if not is_url(photo.path):
            yield self.folder / photo.path
            return
        if not self.elsewhere:
            raise InvalidData(f"{printable(photo.path)} lies elsewhere, and nothing here may fetch it.")
        with ExitStack() as stack:
            try:
                file = stack.enter_context(self.elsewhere.file_of(photo.path, photo.digest))
            except Refused as error:
                raise InvalidData(
                    f"{printable(photo.path)} cannot be fetched any more: {error}. "
                    f"A new version needs another address, or its sha256 in the table."
                ) from None
            yield file

    def _contents_of(self, photo: Photo, path: Path) -> bytes:
        # Nothing is made of the bytes before they are known to be those that an inspector found harmless.
        shown = printable(str(photo.path if is_url(photo.path) else path))
        try:
            with path.open("rb") if is_url(photo.path) else open_inside(self.folder, photo.path) as file:
                contents = file.read()
        except FileNotFoundError as error:
            raise MissingPhotos(f"{shown} cannot be read any more: {error.strerror}. Run again.") from None
        except OSError as error:
            raise InvalidData(f"{shown} cannot be read any more: {error.strerror}. Run again.") from None
        if hashlib.sha256(contents).hexdigest() != photo.digest:
            raise InvalidData(f"{shown} has changed since it was validated. Run again, and it is seen as new.")
        return contents

    def __len__(self) -> int:
        return len(self.rows)


def _bytes_of(file: Path) -> int:
    with suppress(OSError):  # it is gone; to read it says so
        return file.stat().st_size
    return 0


def texts_of(column: pd.Series) -> Iterator[Any]:
    """Yield the values of a column of text, of which a list would take more memory than the column."""
    for start in range(0, len(column), _PART):
        yield from column.iloc[start : start + _PART].tolist()


def source_of(digest: str, format_name: str) -> str:
    """Return what stands for the pixels of a photo in the store: 64 hexadecimal digits.

    That is the SHA-256 of its file, since the version of Pillow is part of how it is drawn. Only a few photos are HEIC,
    and all others must not be computed again when the library for HEIC has a new version.
    """
    return fingerprint([digest, heif_version()]) if format_name == "HEIF" else digest


def write_dataset(path: Path, dataset: Dataset) -> None:
    """Write the data set as Parquet; class names travel in the table's `attrs`."""
    dataset.rows.attrs = {"class_names": dataset.class_names}
    write_table(path, dataset.rows)


def read_dataset(path: Path, folder: Path, elsewhere: Elsewhere | None = None) -> Dataset:
    """Return what `write_dataset` wrote.

    Args:
        path: of the file.
        folder: the data folder, which its paths are relative to.
        elsewhere: that fetches photos at addresses; whoever reads no photo needs none.

    Raises:
        FileNotFoundError: there is no such file.
        Damaged: it is damaged.
    """
    rows = read_frame(path, COLUMNS)
    with reading(path, "the names of its classes"):
        class_names = list(rows.attrs["class_names"])
        if [class_names[index] for index in rows.class_index] != rows.class_name.tolist():
            raise ValueError("others")
    return Dataset(rows, class_names, folder, elsewhere)
