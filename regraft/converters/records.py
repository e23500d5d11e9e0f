"""One photo as a source has it, which of its fields are wanted, and which photos are left out and why."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from regraft.core.errors import InvalidData, printable, some
from regraft.photos.folder import walk_around
from regraft.photos.label_rows import OWN
from regraft.photos.labels_file import SPLIT_NAMES
from regraft.photos.photo_urls import NOT_SHOWN, may_hold_secret, shown_url

# Of the addresses that a table may have; machine.photo_schemes says which of them a run may fetch.
SCHEMES = ("https", "http", "s3", "s3a", "gs", "gcs", "az", "abfs", "oss")
NO_LABEL, SEVERAL_LABELS = "without a label", "with several labels"
NO_PHOTO, NO_CLASS = "of which the source names no photo", "not inside a class folder"
MOST_BYTES = 1024 * 2**20  # of one photo's file
_NAMED = 5  # photos that are named for each reason
_ADDRESS = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]{0,30})?://.*", re.DOTALL)  # to the end of the text


@dataclass(frozen=True, slots=True)
class Wanted:
    """The fields that a person asks for, in a source whose fields have names of their own."""

    label: str | None = None  # the field with the label, where a source has several
    group: str | None = None  # the field with the group: photos that must not be parted
    slices: tuple[str, ...] = ()  # the fields by which figures are to be reported

    @classmethod
    def parsed(cls, texts: list[str]) -> "Wanted":
        """Return the fields that texts such as group=patient name; InvalidData for any other text."""
        named: dict[str, list[str]] = {"label": [], "group": [], "slice": []}
        for text in texts:
            what, _, field_name = text.partition("=")
            is_twice = field_name in named["slice"] + [*OWN] if what == "slice" else bool(named.get(what))
            if what not in named or not field_name or is_twice:
                raise InvalidData(
                    f"--field must be label=FIELD, group=FIELD or slice=FIELD, the first two once, and no slice may be "
                    f"named as another column. Received: {printable(text)}."
                )
            named[what].append(field_name)
        return cls(next(iter(named["label"]), None), next(iter(named["group"]), None), tuple(named["slice"]))

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
            first.append(without_secrets(where))

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


def without_secrets(where: str) -> str:
    """Return a text with each address in it as it may be shown: many sources name photos by nothing else.

    A text that is no address and may hold a secret is not shown; of "a.json: u:password@host/a.jpg" the first part is.
    """
    address = _ADDRESS.search(where)
    text, rest = (where[: address.start()], shown_url(address[0])) if address else (where, "")
    if may_hold_secret(text):
        source, colon, _ = text.partition(": ")
        text = NOT_SHOWN if may_hold_secret(source) else f"{source}{colon}{NOT_SHOWN}"
    return text + rest


def text_of(value: Any) -> str | None:
    """Return a text or a number as text, without spaces around it; None for anything else, and for an empty one."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value).strip() or None


def texts_in(fields: Mapping[Any, Any]) -> dict[str, str]:
    """Return those fields of a JSON object that are texts or numbers."""
    return {str(name): text for name, value in fields.items() if (text := text_of(value)) is not None}


def split_in(path: str) -> str | None:
    """Return the split in a file's name or in those of the folders above it, the nearest one: train-00000.parquet."""
    for part in reversed(PurePosixPath(path.lower()).parts):
        named = {SPLIT_NAMES[word] for word in re.findall(r"[a-z]+", part) if word in SPLIT_NAMES}
        if len(named) == 1:
            return named.pop()
    return None


def split_named(text: str | None) -> str | None:
    """Return the split that a field names as a whole; or None."""
    return SPLIT_NAMES.get(text.strip().lower()) if text else None


def one_label(labels: Iterable[str], where: str, left_out: LeftOut) -> str | None:
    """Return the label of a photo; where there is none, or more than one, the photo is left out."""
    different = sorted(set(labels))
    if len(different) == 1:
        return different[0]
    left_out.add(*((SEVERAL_LABELS, f"{where} ({', '.join(different)})") if different else (NO_LABEL, where)))
    return None


def only_field(names: list[str], wanted: str | None, what: str, shown: str) -> str:
    """Return the wanted field, or the only one there is.

    Raises:
        InvalidData: the wanted one is not among them, or there are none or several and none is wanted.
    """
    if wanted in names or (wanted is None and len(names) == 1):
        return wanted or names[0]
    listed = ", ".join(printable(name) for name in names[:20]) or "none"
    expected = f"one {what}" if wanted is None else f"a {what} '{printable(wanted)}'"
    raise InvalidData(f"{shown} must have {expected}. Received: {listed}. Name the one to use with --field label=NAME.")


def files_of(source: Path, suffix: str) -> tuple[Path, list[str]]:
    """Return a folder and the names of files below it: the source itself, or all files in it that end so, by name."""
    if source.is_file():
        return source.parent, [source.name]
    return source, sorted(name for name in walk_around(source)[0] if name.lower().endswith(suffix))


def read_path(path: str, *, has_splits: bool) -> tuple[str, str | None] | None:
    """Return class folder and split of a photo in <class>/... or in {train,val,test}/<class>/...; or None."""
    top, *rest = path.split("/")
    if not has_splits:
        return (top, None) if rest else None
    return (rest[0], SPLIT_NAMES[top.lower()]) if len(rest) > 1 else None


def are_splits(tops: Iterable[str], *, are_nested: bool) -> bool:
    """Whether folders at the top are splits; `are_nested` says whether any of them has folders of its own."""
    names = {name.lower() for name in tops}
    return "train" in names and names <= SPLIT_NAMES.keys() and are_nested
