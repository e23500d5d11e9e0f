"""A bucket, or a prefix of one, as a folder of photos: every object is a row, and none is opened.

S3 is listed page by page, so a listing takes as much memory with a million objects as with a thousand; other stores
folder by folder.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath

from regraft.converters.records import NO_CLASS, SCHEMES, LeftOut, Row, are_splits, read_path
from regraft.core.addresses import EXPECTED, is_address, named, shown
from regraft.core.errors import InvalidData, RegraftError, is_invisible
from regraft.photos.class_names import normalised, problem_of
from regraft.photos.fetching import plain_etag
from regraft.photos.photo_urls import problem_of_url, scheme_of

_BAD_NAME = "whose name has `?`, `#`, `..`, `//` or letters that cannot be seen, or is too long"
_S3 = ("s3", "s3a")
# Of the formats that are read; a name without any suffix may be a photo.
_NAMES = (
    "jpg jpeg jpe jfif jif png apng gif bmp dib tif tiff webp jp2 j2k jpc jpf jpx j2c pgm ppm pbm pnm mpo avif avifs "
    "heic heif heics heifs"
)
_SUFFIXES = frozenset(f".{name}" for name in _NAMES.split())


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

            self._files, root = fsspec.core.url_to_fs(self._address, use_listings_cache=False)
            self._root = root.rstrip("/")
            tops = self._folders(self._root)
            train = [top for top in tops if top.lower() == "train"]
            nested = any(self._folders(f"{self._root}/{top}") for top in train)
            self.has_splits = are_splits(tops, are_nested=nested)
        except Exception as error:  # every kind of store has exceptions of its own, whose texts may hold secrets
            raise self._error(error) from None

    def rows(self, left_out: LeftOut) -> Iterator[Row]:
        """Yield a row for each photo, in the order of their paths; RegraftError if the listing breaks off."""
        try:
            for path, size, etag in self._pages() if scheme_of(self._address) in _S3 else self._walked():
                if row := self._row(path, size, etag, left_out):
                    yield row
        except Exception as error:
            raise error if isinstance(error, RegraftError) else self._error(error) from None

    def _row(self, path: str, size: int, etag: str | None, left_out: LeftOut) -> Row | None:
        if any(part.startswith(".") and part.strip(".") for part in path.split("/")):
            return None  # hidden
        url = f"{self._address}/{path}"
        if (suffix := PurePosixPath(path).suffix.lower()) and suffix not in _SUFFIXES:
            left_out.add("not named as an image", path)
        elif size == 0:
            left_out.add("empty", path)
        elif problem_of_url(url, SCHEMES) or any(map(is_invisible, path)) or path != path.strip():
            left_out.add(_BAD_NAME, path)
        elif not (found := read_path(path, has_splits=self.has_splits)):
            left_out.add(NO_CLASS, path)
        elif problem_of(class_name := normalised(found[0])):
            left_out.add(_BAD_NAME, path)
        else:
            return Row(url, class_name, split=found[1], etag=plain_etag(etag))
        return None

    def _folders(self, folder: str) -> list[str]:
        """The names of the folders in a folder; hidden ones are none."""
        entries = self._files.ls(folder, detail=True)
        names = [PurePosixPath(each["name"].rstrip("/")).name for each in entries if each["type"] == "directory"]
        return [name for name in names if not name.startswith(".")]

    def _pages(self) -> Iterator[tuple[str, int, str | None]]:
        """Yield path, size in bytes and ETag of each object in S3."""
        bucket, _, prefix = self._root.partition("/")
        prefix = f"{prefix}/" if prefix else ""
        request = {"Bucket": bucket, "Prefix": prefix}
        while True:
            page = self._files.call_s3("list_objects_v2", **request)
            for found in page.get("Contents", []):
                if not found["Key"].endswith("/"):  # consoles make such a key for an empty folder
                    yield found["Key"][len(prefix) :], found["Size"], found.get("ETag")
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def _walked(self) -> Iterator[tuple[str, int, str | None]]:
        """The same of another store, a folder at a time; `walk` of fsspec leaves out folders that it cannot list."""
        waiting = [self._root]
        while waiting:
            entries = sorted(self._files.ls(waiting.pop(), detail=True), key=lambda each: each["name"])
            waiting += [each["name"] for each in reversed(entries) if each["type"] == "directory"]
            for each in entries:
                if each["type"] == "file":
                    etag = each.get("ETag") or each.get("etag")
                    yield each["name"][len(self._root) + 1 :], each.get("size") or 0, etag

    def _error(self, error: Exception) -> RegraftError:
        return RegraftError(
            f"{shown(self._address)} cannot be listed: {named(error)}. Check that it is there and has photos, the "
            f"network, the credentials in the environment, and that they may list (s3:ListBucket)."
        )
