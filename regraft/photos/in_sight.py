"""Photos as a worker of a cluster reads them: which it must be able to read, with how much memory, and into what spool.

Workers see the same data folder, mounted at the same path, or fetch photos from their addresses.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from regraft.cluster.jobs import NotInSight, Seat
from regraft.core.errors import printable
from regraft.photos.dataset import Dataset, Photo
from regraft.photos.elsewhere import Elsewhere
from regraft.photos.memory import FILE_MEMORY, PHOTO_MEMORY
from regraft.photos.photo_urls import is_url
from regraft.photos.spool import Spool

_PLACES = 8  # hosts of which a worker tries a photo
_TRIED = 16  # photos of the folder, until one is there
_MEMORY = {budget: budget.total for budget in (FILE_MEMORY, PHOTO_MEMORY)}


@dataclass(frozen=True, slots=True)
class InSight:
    """What a worker is told of photos."""

    dataset: Dataset  # without rows
    samples: list[Photo]  # which it must be able to read

    @classmethod
    def of(cls, dataset: Dataset, photos: Iterable[Photo]) -> "InSight":
        """Take what photos are read from, and those that are to be read."""
        travels = replace(dataset, rows=dataset.rows.head(0), folder=dataset.folder.absolute())
        return cls(travels, samples_of(dataset, photos))

    def seen_from(self, seat: Seat) -> Dataset:
        """Return the data set as a worker reads it.

        Raises:
            NotInSight: it lacks photos of the folder.
            RegraftError: it reaches no host that has some of the others.
        """
        share_memory(seat.neighbours)
        dataset = self.dataset
        if dataset.elsewhere:
            dataset = replace(dataset, elsewhere=with_spool(dataset.elsewhere, seat))
        for photo in self.samples:
            # One that is not there any more at its address has been asked for, and a worker can do no more.
            if not dataset.is_there(photo) and not is_url(photo.path):
                raise not_in_sight(photo.path, dataset.folder)
        return dataset


def samples_of(dataset: Dataset, photos: Iterable[Photo]) -> list[Photo]:
    """Return a photo of each place: of the folder one that is there, and one of each host, of a few hosts."""
    found: dict[str, Photo] = {}
    tried = 0
    for photo in photos:
        place = place_of(photo.path)
        if place in found:
            continue
        if len(found) > _PLACES:
            break
        if not place:
            tried += 1
            if tried > _TRIED or not dataset.is_there(photo):
                continue
        found[place] = photo
    return list(found.values())


def place_of(path: str) -> str:
    """Return scheme and host of an address; empty for a path in the data folder."""
    return "://".join(urlsplit(path)[:2]) if is_url(path) else ""


def not_in_sight(path: str, folder: Path) -> NotInSight:
    """Return the error of a worker that lacks a file."""
    return NotInSight(
        f"It cannot read {printable(path)} in {folder}, or finds another file there. Mount the same data folder, or "
        "give photos by addresses that every worker reaches."
    )


def share_memory(neighbours: int) -> None:
    """Let all workers of a machine together take as much memory for photos as one process would."""
    for budget, whole in _MEMORY.items():
        budget.total = whole // neighbours


def with_spool(elsewhere: Elsewhere, seat: Seat) -> Elsewhere:
    """Return what fetches photos, with a spool where the worker may write."""
    return replace(elsewhere, spool=Spool(seat.folder / "photos", elsewhere.spool.bound))


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was fetched from elsewhere."""

    photos: int
    bytes: int

    @classmethod
    def by(cls, elsewhere: Elsewhere | None) -> "Fetched":
        """Return what was fetched until now."""
        return cls(elsewhere.fetches.photos, elsewhere.fetches.bytes) if elsewhere else cls(0, 0)

    def __sub__(self, before: "Fetched") -> "Fetched":
        return Fetched(self.photos - before.photos, self.bytes - before.bytes)

    def count(self, elsewhere: Elsewhere | None) -> None:
        """Count it as fetched for this process."""
        if elsewhere:
            with elsewhere.fetches.lock:
                elsewhere.fetches.photos += self.photos
                elsewhere.fetches.bytes += self.bytes
