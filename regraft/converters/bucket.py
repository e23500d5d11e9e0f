"""A bucket, or a prefix of one, as a folder of photos: every object is a row, and none is opened.

S3 is listed page by page, so a listing takes as much memory with a million objects as with a thousand; other stores
folder by folder. Both are in the order of their paths.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from regraft.addresses import EXPECTED, is_address, named, shown
from regraft.converters.layout import NO_CLASS, Layout, layout_of
from regraft.converters.records import SCHEMES, LeftOut, Row
from regraft.errors import InvalidData, RegraftError, is_invisible
from regraft.photos.class_names import normalised, problem_of
from regraft.photos.fetching import plain_etag
from regraft.photos.photo_urls import problem_of_url, scheme_of

NO_IMAGE_NAME = "not named as an image"
_BAD_NAME = "whose name has `?`, `#`, `..`, `//` or letters that cannot be seen, or is too long"
_EMPTY = "empty"
_S3 = ("s3", "s3a")
# Of the formats that are read; a name without any suffix may be a photo.
_NAMES = (
    ".jpg .jpeg .jpe .jfif .jif .png .apng .gif .bmp .dib .tif .tiff .webp .jp2 .j2k .jpc .jpf .jpx .j2c .pgm .ppm "
    ".pbm .pnm .mpo .avif .avifs .heic .heif .heics .heifs"
)
_SUFFIXES = frozenset(_NAMES.split())


class Bucket:
    """The objects below an address."""

    def __init__(self, address: str) -> None:
        """Look at the folders at the top.

        Raises:
            InvalidData: it is no address of a bucket or of a folder in one.
            RegraftError: it cannot be listed.
        """
        if not is_address(address) or scheme_of(address) not in SCHEMES:
            raise InvalidData(f"what is listed must be {EXPECTED}. Received: {shown(address)}.")
        self._address = address.rstrip("/")
        try:
            import fsspec

            self._files, self._root = fsspec.core.url_to_fs(self._address, use_listings_cache=False)
            self._root = self._root.rstrip("/")
            self.layout = self._find_layout()
        except Exception as error:  # every kind of store has exceptions of its own, whose texts may hold secrets
            raise self._error(error) from None

    def rows(self, left_out: LeftOut) -> Iterator[Row]:
        """Yield a row for each photo, in the order of their paths; RegraftError if the listing breaks off."""
        try:
            for path, size, etag in self._objects():
                if row := self._row(path, size, etag, left_out):
                    yield row
        except Exception as error:
            if isinstance(error, RegraftError):
                raise
            raise self._error(error) from None

    def _row(self, path: str, size: int, etag: str | None, left_out: LeftOut) -> Row | None:
        if any(part.startswith(".") and part.strip(".") for part in path.split("/")):
            return None  # hidden
        url = f"{self._address}/{path}"
        if (suffix := PurePosixPath(path).suffix.lower()) and suffix not in _SUFFIXES:
            left_out.add(NO_IMAGE_NAME, path)
        elif size == 0:
            left_out.add(_EMPTY, path)
        elif problem_of_url(url, SCHEMES) or any(map(is_invisible, path)) or path != path.strip():
            left_out.add(_BAD_NAME, path)
        elif not (found := self.layout.read(path)):
            left_out.add(NO_CLASS, path)
        elif problem_of(class_name := normalised(found[0])):
            left_out.add(_BAD_NAME, path)
        else:
            return Row(url, class_name, split=found[1], etag=plain_etag(etag))
        return None

    def _find_layout(self) -> Layout:
        tops = [PurePosixPath(top).name for top in self._folders(self._root)]
        train = [top for top in tops if top.lower() == "train"]
        return layout_of(tops, are_nested=any(next(self._folders(f"{self._root}/{top}"), None) for top in train))

    def _folders(self, folder: str) -> Iterator[str]:
        """The folders in a folder; hidden ones are none."""
        if scheme_of(self._address) in _S3:
            found = (common["Prefix"] for page in self._pages(folder, "/") for common in page.get("CommonPrefixes", []))
        else:
            found = (each["name"] for each in self._files.ls(folder, detail=True) if each["type"] == "directory")
        return (name for each in found if not PurePosixPath(name := each.rstrip("/")).name.startswith("."))

    def _objects(self) -> Iterator[tuple[str, int, str | None]]:
        """Yield path, size in bytes and ETag of each object."""
        if scheme_of(self._address) not in _S3:
            yield from self._walked()
            return
        start = len(self._root.partition("/")[2]) + 1 if "/" in self._root else 0
        for page in self._pages(self._root, ""):
            for found in page.get("Contents", []):
                if not found["Key"].endswith("/"):  # what consoles make for an empty folder
                    yield found["Key"][start:], found["Size"], found.get("ETag")

    def _pages(self, folder: str, delimiter: str) -> Iterator[dict[str, Any]]:
        bucket, _, prefix = folder.partition("/")
        request = {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else "", "Delimiter": delimiter}
        while True:
            page = self._files.call_s3("list_objects_v2", **request)
            yield page
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def _walked(self) -> Iterator[tuple[str, int, str | None]]:
        """As `_objects`, a folder at a time."""
        start = len(self._root) + 1
        waiting = [self._root]
        while waiting:
            entries = self._files.ls(waiting.pop(), detail=True)
            files = sorted((each for each in entries if each["type"] == "file"), key=lambda each: each["name"])
            folders = sorted(each["name"] for each in entries if each["type"] == "directory")
            waiting += reversed(folders)
            for each in files:
                etag = each.get("ETag") or each.get("etag")
                yield each["name"][start:], each.get("size") or 0, etag

    def _error(self, error: Exception) -> RegraftError:
        return RegraftError(
            f"{shown(self._address)} cannot be listed: {named(error)}. Check the network, the credentials in the "
            f"environment, and that they may list (s3:ListBucket)."
        )
