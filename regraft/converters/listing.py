"""Photos as a source lists them: one record each, which of its fields are wanted, and folders of classes on a disk or
in a bucket.

Every object of a bucket is a row, and none is opened.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from regraft.core.addresses import EXPECTED, is_address, named, shown
from regraft.core.errors import InvalidData, RegraftError, is_invisible, printable, some
from regraft.photos.class_names import normalised, problem_of
from regraft.photos.fetching import plain_etag
from regraft.photos.folder import walk_around
from regraft.photos.label_rows import LABELS_FILES, OWN
from regraft.photos.labels_file import SPLIT_NAMES
from regraft.photos.photo_urls import NOT_SHOWN, may_hold_secret, problem_of_url, scheme_of

# Of the addresses that a table may have; machine.photo_schemes says which of them a run may fetch.
SCHEMES = ("https", "http", "s3", "s3a", "gs", "gcs", "az", "abfs", "oss")
NO_LABEL, SEVERAL_LABELS = "without a label", "with several labels"
NO_PHOTO, NO_CLASS = "of which the source names no photo", "not inside a class folder"
MOST_BYTES = 1024 * 2**20  # of one photo's file
_BAD_NAME = "whose name has `?`, `#`, `..`, `//` or letters that cannot be seen, or is too long"
_NAMED = 5  # photos that are named for each reason
# Of the formats that are read; a name without any suffix may be a photo.
_NAMES = re.compile(
    r"\.(jpe?g|jpe|jf?if|a?png|gif|bmp|dib|tiff?|webp|jp[2cfx]|j2[kc]|p[gpbn]m|mpo|avifs?|hei[cf]s?)", re.I
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The fields that a person asks for, in a source whose fields have names of their own."""

    label: str | None = None  # the field with the label, where a source has several
    group: str | None = None  # the field with the group: photos that must not be parted
    slices: tuple[str, ...] = ()  # the fields by which figures are to be reported

    @classmethod
    def parsed(cls, texts: list[str]) -> "Wanted":
        """Return the fields that texts such as group=patient name; InvalidData for any other text."""
        given: dict[str, list[str]] = {"label": [], "group": [], "slice": []}
        for text in texts:
            what, _, name = text.partition("=")
            is_twice = name in given["slice"] + [*OWN] if what == "slice" else bool(given.get(what))
            if what not in given or not name or is_twice:
                raise InvalidData(
                    f"--field must be label=FIELD, group=FIELD or slice=FIELD, the first two once, and no slice may be "
                    f"named as another column. Received: {printable(text)}."
                )
            given[what].append(name)
        label, group = (given[what][0] if given[what] else None for what in ("label", "group"))
        return cls(label, group, tuple(given["slice"]))

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of all fields but that of the label."""
        return (*((self.group,) if self.group else ()), *self.slices)


@dataclass(frozen=True, slots=True)
class Record:
    """A photo and its label; the photo itself, or a name of it."""

    where: str  # in the source, for messages
    label: str
    content: bytes | None = None  # the bytes of the photo's file, where the source holds them
    name: str = ""  # else an address, or a path relative to the photos' folder
    folders: tuple[str, ...] = ("",)  # within the photos' folder; the first that has the photo counts
    split: str | None = None  # train, val or test
    fields: Mapping[str, str] = field(default_factory=dict)


class Row(NamedTuple):
    """A row of the table."""

    path: str
    label: str
    split: str | None = None
    group: str | None = None
    sha256: str | None = None
    etag: str | None = None
    slices: tuple[str | None, ...] = ()


class LeftOut:
    """Counts the photos that are left out, by reason, and stores the first few of each."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._first: dict[str, list[str]] = {}

    def add(self, reason: str, where: str) -> None:
        """Count a photo; `reason` is one of few, and continues the sentence "3 photos are left out: "."""
        self._counts[reason] = self._counts.get(reason, 0) + 1
        first = self._first.setdefault(reason, [])
        if len(first) < _NAMED:
            first.append(_without_secrets(where))

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self._counts.values())

    def lines(self) -> list[str]:
        """Return a printable line for each reason."""
        return [
            f"{count:,} {reason}: {some(self._first[reason])}{', ...' if count > _NAMED else ''}"
            for reason, count in self._counts.items()
        ]


def _without_secrets(where: str) -> str:
    """Return a text as it may be shown; of "a.json: u:password@host/a.jpg" the first part."""
    if not may_hold_secret(where):
        return where
    source, colon, _ = where.partition(": ")
    return f"{source}: {NOT_SHOWN}" if colon and not may_hold_secret(source) else NOT_SHOWN


def read_folder(root: Path, wanted: Wanted, left_out: LeftOut) -> Iterator[Record]:
    """Yield the photos below a folder, ordered by path; hidden files and folders are no photos."""
    files, refused = walk_around(root)
    for path in sorted(refused):
        left_out.add("that must not be opened", f"{path} ({refused[path]})")
    # A table that an earlier call wrote there is no photo.
    paths = sorted(path for path in files if path not in LABELS_FILES and not path.rpartition("/")[2].startswith("."))
    for path, found in _classes_and_splits(paths).items():
        if found:
            yield Record(path, found[0], name=path, split=found[1])
        else:
            left_out.add(NO_CLASS, path)


def list_bucket(address: str, left_out: LeftOut) -> Iterator[Row]:
    """Yield a row for each photo below an address, in the order of their paths; no object is opened.

    Raises:
        InvalidData: it is no address of a bucket or of a folder in one.
        RegraftError: it cannot be listed.
    """
    if not is_address(address) or scheme_of(address) not in SCHEMES:
        raise InvalidData(f"what is listed must be {EXPECTED}. Received: {shown(address)}.")
    address = address.rstrip("/")
    try:
        objects = {path: (size, etag) for path, size, etag in _objects(address) if not _is_hidden(path)}
    except Exception as error:  # every kind of store has exceptions of its own, whose texts may hold secrets
        raise RegraftError(
            f"{shown(address)} cannot be listed: {named(error)}. Check that it is there and has photos, the network, "
            f"the credentials in the environment, and that they may list (s3:ListBucket)."
        ) from None
    for path, found in _classes_and_splits(sorted(objects)).items():
        (size, etag), url, suffix = objects[path], f"{address}/{path}", PurePosixPath(path).suffix
        if suffix and not _NAMES.fullmatch(suffix):
            left_out.add("not named as an image", path)
        elif size == 0:
            left_out.add("empty", path)
        elif problem_of_url(url, SCHEMES) or any(map(is_invisible, path)) or path != path.strip():
            left_out.add(_BAD_NAME, path)
        elif not found:
            left_out.add(NO_CLASS, path)
        elif problem_of(class_name := normalised(found[0])):
            left_out.add(_BAD_NAME, path)
        else:
            yield Row(url, class_name, split=found[1], etag=plain_etag(etag))


def _objects(address: str) -> Iterator[tuple[str, int, str | None]]:
    """Yield path, size in bytes and ETag of each object."""
    import fsspec

    files, root = fsspec.core.url_to_fs(address, use_listings_cache=False)
    root = root.rstrip("/")
    if scheme_of(address) not in ("s3", "s3a"):
        for name, facts in files.find(root, detail=True).items():
            yield name[len(root) + 1 :], facts.get("size") or 0, facts.get("ETag") or facts.get("etag")
        return
    bucket, _, prefix = root.partition("/")
    prefix = f"{prefix}/" if prefix else ""
    request = {"Bucket": bucket, "Prefix": prefix}
    while True:  # page by page: s3fs takes kilobytes of memory for each object that it finds
        page = files.call_s3("list_objects_v2", **request)
        for found in page.get("Contents", []):
            if not found["Key"].endswith("/"):  # consoles make such a key for an empty folder
                yield found["Key"][len(prefix) :], found["Size"], found.get("ETag")
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") and part.strip(".") for part in path.split("/"))


def _classes_and_splits(paths: list[str]) -> dict[str, tuple[str, str | None] | None]:
    """Return class folder and split of each photo in <class>/... or {train,val,test}/<class>/...; None of others."""
    nested = [parts for path in paths if len(parts := path.split("/")) > 1]
    tops = {parts[0].lower() for parts in nested}
    has_splits = "train" in tops and tops <= SPLIT_NAMES.keys() and any(len(parts) > 2 for parts in nested)

    def found(path: str) -> tuple[str, str | None] | None:
        top, *rest = path.split("/")
        if has_splits:
            return (rest[0], SPLIT_NAMES[top.lower()]) if len(rest) > 1 else None
        return (top, None) if rest else None

    return {path: found(path) for path in paths}
