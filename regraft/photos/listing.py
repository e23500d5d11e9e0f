"""What lies in the data folder, or below an address, by names and times alone: what is new, and has writing settled?

Nothing is opened and no link is followed, so 100,000 files take half a second. Names may be hostile: they are bytes
here, and only a few folders are ever named to a person.
"""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from regraft.core.addresses import EXPECTED, is_address, named, shown
from regraft.core.errors import Damaged, RegraftError, printable
from regraft.core.files import reading
from regraft.core.sealed import read_table, write_table
from regraft.photos.labels_file import SPLIT_NAMES

_LOCAL = ("file", "local")
# What kinds of stores call a digest of a file, or the time at which it was written.
_WRITTEN = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created")
_SHOWN_CLASSES, _SHOWN_LETTERS = 5, 60


class Stamp(NamedTuple):
    """What tells that a file was written anew."""

    size: int  # bytes
    written: str  # when, or a digest that its store keeps


Listing = dict[bytes, Stamp]  # by path, relative to what is listed, with forward slashes


@dataclass(frozen=True, slots=True)
class Change:
    """In what two listings differ."""

    files: int  # that there are now
    added: int
    removed: int
    changed: int
    classes: tuple[tuple[str, int], ...]  # the folders with most of these files, printable, and how many

    def words(self) -> str:
        """Say it to a person."""
        counts = ((self.added, "new"), (self.changed, "changed"), (self.removed, "gone"))
        said = ", ".join(f"{count:,} {word}" for count, word in counts if count)
        where = ", ".join(f"{name} {count:,}" for name, count in self.classes)
        return f"{self.files:,} file{'s' * (self.files != 1)}: {said}" + (f" ({where})" if where else "")


class Settling:
    """Listings of one place, one after the other: a difference counts when writing has settled."""

    def __init__(self, announced: Listing, settle_seconds: float) -> None:
        """Start from the listing that was announced last; settled is what has not changed for so many seconds."""
        self.announced = announced
        self._settle_seconds = settle_seconds
        self._last: Listing | None = None
        self._since = 0.0

    def look(self, listing: Listing, now: float) -> Change | None:
        """Return what is to be announced, or None; `now` is in seconds by a clock that is never set back."""
        if listing != self._last:
            self._last, self._since = listing, now
        if listing == self.announced or now - self._since < self._settle_seconds:
            return None
        return difference(self.announced, listing)


def list_address(address: str) -> Listing:
    """List what lies below an address; hidden folders are left out, as they are of a data set.

    Raises:
        RegraftError: it, or a folder in it, cannot be listed.
    """
    if not is_address(address):
        raise RegraftError(f"what is watched must be {EXPECTED}. Received: {shown(address)}.")
    scheme, _, path = address.rpartition("://")
    if scheme in ("", *_LOCAL):
        return list_folder(Path(path))
    try:
        import fsspec

        files, root = fsspec.core.url_to_fs(address, use_listings_cache=False)
        found = files.find(root, detail=True)
    except Exception as error:  # every kind of store has exceptions of its own, whose texts may hold secrets
        raise RegraftError(
            f"{shown(address)} cannot be listed: {named(error)}. Check the network, and the credentials in "
            "the environment."
        ) from None
    start = len(root.rstrip("/")) + 1
    listing = {name[start:].encode("utf-8", "surrogateescape"): _stamp(facts) for name, facts in found.items()}
    return {path: stamp for path, stamp in listing.items() if not any(map(_is_hidden, path.split(b"/")[:-1]))}


def list_folder(root: Path) -> Listing:
    """List a folder of this machine; RegraftError if it, or a folder in it, cannot be listed."""
    listing: Listing = {}
    top, waiting = os.fsencode(root) + b"/", [b""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(top + folder) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        listing[folder + entry.name] = Stamp(status.st_size, str(status.st_mtime_ns))
                    elif not _is_hidden(entry.name):
                        waiting.append(folder + entry.name + b"/")
        except OSError as error:
            if folder and isinstance(error, FileNotFoundError):
                continue  # it was there a moment ago, and what is there now is found by the next look
            where = printable(os.fsdecode(top + folder).rstrip("/"))
            raise RegraftError(
                f"{where} cannot be listed ({error.strerror}). Make it a folder that can be read."
            ) from None
    return listing


def difference(before: Listing, now: Listing) -> Change:
    """Count in what two listings differ, in all and by class folder."""
    added, removed = now.keys() - before.keys(), before.keys() - now.keys()
    changed = {path for path in now.keys() & before.keys() if now[path] != before[path]}
    folders = Counter(_class_folder(path) for paths in (added, removed, changed) for path in paths)
    folders.pop(None, None)
    classes = sorted(folders.items(), key=lambda item: (-item[1], item[0] or b""))[:_SHOWN_CLASSES]
    names = tuple((_shown(name), count) for name, count in classes if name is not None)
    return Change(len(now), len(added), len(removed), len(changed), names)


def write_listing(path: Path, place: str, listing: Listing) -> None:
    """Keep the listing of a place."""
    columns = {
        "name": pa.array(list(listing), pa.binary()),
        "size": pa.array([stamp.size for stamp in listing.values()], pa.int64()),
        "written": pa.array([stamp.written for stamp in listing.values()], pa.string()),
    }
    write_table(path, pa.table(columns, metadata={"place": place}))


def read_listing(path: Path, place: str) -> Listing:
    """Return what is kept of a place; nothing if there is none of it, or if it is damaged: then all there is is new."""
    try:
        table = read_table(path)
        with reading(path, "a listing"):
            if (table.schema.metadata or {}).get(b"place") != place.encode():
                return {}
            columns = (table.column(name).to_pylist() for name in ("name", "size", "written"))
            return {name: Stamp(size, written) for name, size, written in zip(*columns, strict=True)}
    except (FileNotFoundError, Damaged):
        return {}


def _stamp(facts: dict[str, object]) -> Stamp:
    written = (
        facts.get(name) for name in ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created")
    )
    size = facts.get("size")
    return Stamp(size if isinstance(size, int) else 0, next((str(each) for each in written if each), ""))


def _is_hidden(folder: bytes) -> bool:
    return folder.startswith(b".") or folder == b"__MACOSX"


def _class_folder(path: bytes) -> bytes | None:
    """The folder that gives a photo its label, or None for a file at the top."""
    folders = path.split(b"/")[:-1]
    if len(folders) > 1 and folders[0].lower().decode("ascii", "replace") in SPLIT_NAMES:
        return folders[1]
    return folders[0] if folders else None


def _shown(name: bytes) -> str:
    text = printable(name.decode("utf-8", "backslashreplace"))
    return text if len(text) <= _SHOWN_LETTERS else f"{text[:_SHOWN_LETTERS]}..."
