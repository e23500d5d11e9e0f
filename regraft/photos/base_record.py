"""The record of the base: the photos and the settings that the last full fine-tuning was made of.

A night with few changes starts from the base instead of training anew. So the record stays as it is from night to
night, until `regraft.photos.base_choice.choose_record` finds that too much has changed.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from regraft.core.files import fingerprint, reading
from regraft.core.sealed import read_frame, write_table
from regraft.photos.dataset import COLUMNS, Dataset
from regraft.photos.elsewhere import Elsewhere
from regraft.photos.left_out import GIVEN, HASH, Today
from regraft.photos.sample import draws, training_sample


@dataclass(frozen=True, slots=True)
class BaseRecord:
    """What a base is made of."""

    photos: Dataset  # train and val as they were, with hashes and given groups; none where nothing is fine-tuned
    settings: dict[str, Any]  # that it is trained with: sections of params.yaml, as JSON
    code: str  # digest of the code and the libraries that train it
    of: int = 0  # photos of train and val that there were; more than `photos` has where it is a sample of them
    parts: dict[str, dict[str, int]] = field(default_factory=dict)  # these by split and class; a former sample has none

    @property
    def is_sample(self) -> bool:
        """Whether it was made of a sample of the photos that there were."""
        return self.of > len(self.photos)

    @property
    def sample_words(self) -> str:
        """Return in a sentence, with a space before it, of how many photos it is a sample; nothing where it is none."""
        words = f" It is made of a sample of {len(self.photos):,} of {self.of:,} photos (fine_tune.max_photos)."
        return words if self.is_sample else ""

    @property
    def name(self) -> str:
        """What it is called where a new one is asked for: 16 hexadecimal digits; only names of files do not count."""
        rows = self.photos.rows[["digest", "class_name", "split"]]
        return fingerprint([rows.to_numpy(str).tolist(), self.settings, self.code])[:16]

    def trained_on(self) -> set[str]:
        """Return the digests of the photos that its weights follow from."""
        rows = self.photos.rows
        return set(rows.digest[rows.split == "train"])

    def saw(self) -> set[str]:
        """Return the digests of these and of those that its settings were chosen on."""
        return set(self.photos.rows.digest)

    def given_groups(self, digests: Collection[str]) -> set[str]:
        """Return the SHA-256 of the groups that a person gave some of its photos; none of records from before."""
        rows = self.photos.rows
        return set(rows[GIVEN][rows.digest.isin(digests)].dropna()) if GIVEN in rows else set()

    def not_left_out(self, dataset: Dataset) -> pd.Series:
        """Return which photos of a data set its sample has, or would have if they had been there: bool, by row.

        A sample has the photos of each class of each split that have drawn the smallest numbers. So a photo that has
        drawn more is none that came since: it was left out, or would have been. Where the sample has all photos of a
        class, it left out none.
        """
        rows, then = dataset.rows, self.photos.rows
        if not self.is_sample:
            return pd.Series(True, rows.index)
        largest: dict[tuple[str, str], int] = {}
        for part, drawn in zip(zip(then.split, then.class_name, strict=True), draws(then.digest).tolist(), strict=True):
            largest[part] = max(drawn, largest.get(part, 0))
        for split, counts in _parts(then).items():
            for name, count in counts.items():
                if count == self.parts.get(split, {}).get(name):
                    del largest[split, name]
        drawn = zip(zip(rows.split, rows.class_name, strict=True), draws(rows.digest).tolist(), strict=True)
        return pd.Series([number <= largest.get(part, number) for part, number in drawn], rows.index, bool)


def write_base_record(path: Path, record: BaseRecord) -> None:
    """Write a record; equal ones give equal bytes."""
    rows = record.photos.rows.copy()
    rows.attrs = {"class_names": record.photos.class_names, "settings": record.settings, "code": record.code}
    rows.attrs |= {"of": record.of, "parts": record.parts} if record.is_sample else {}
    write_table(path, rows)


def read_base_record(path: Path, folder: Path, elsewhere: Elsewhere | None = None) -> BaseRecord:
    """Return what `write_base_record` wrote; `folder` and `elsewhere` are as for `read_dataset`.

    Raises:
        FileNotFoundError: there is no such file.
        Damaged: it is damaged.
    """
    rows = read_frame(path, COLUMNS, texts=f"{HASH}|{GIVEN}")  # those of old have no hashes
    with reading(path, "what a base was trained with"):
        settings, code, names = (rows.attrs[fact] for fact in ("settings", "code", "class_names"))
        if [names[index] for index in rows.class_index] != rows.class_name.tolist() or not isinstance(settings, dict):
            raise ValueError("something else")
        of, parts = int(rows.attrs.get("of", len(rows))), rows.attrs.get("parts", {})
        parts = {split: {name: int(count) for name, count in counts.items()} for split, counts in parts.items()}
    return BaseRecord(Dataset(rows, list(names), folder, elsewhere), settings, str(code), of, parts)


def record_of(
    today: Today, settings: dict[str, Any], code: str, *, is_off: bool, max_photos: int | None = None
) -> BaseRecord:
    """Return the record of a base that is trained on today's photos, or a sample of at most `max_photos` of them.

    It has no photos where fine-tuning is off.
    """
    everything = today.dataset.of() if is_off else today.dataset.of("train", "val")
    photos = everything if max_photos is None else training_sample(everything, max_photos)
    hashes = pd.array([today.hashes.get(digest) for digest in photos.rows.digest], dtype="str")
    photos = photos.with_rows(photos.rows.assign(**{HASH: hashes}))
    given = pd.array([today.given.get(digest) for digest in photos.rows.digest], dtype="str")
    if today.given:
        photos = photos.with_rows(photos.rows.assign(**{GIVEN: given}))
    names = [] if is_off else photos.class_names
    return BaseRecord(replace(photos, class_names=names), settings, code, len(everything), _parts(everything.rows))


def _parts(rows: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Return how many photos there are of each split and class."""
    counts: dict[str, dict[str, int]] = {}
    for (split, name), count in sorted(Counter(zip(rows.split, rows.class_name, strict=True)).items()):
        counts.setdefault(split, {})[name] = count
    return counts


def located(record: BaseRecord, dataset: Dataset) -> Dataset:
    """Return the photos of a record, each at the path that it has in a data set, if it is there: it may be renamed."""
    paths = dict(zip(dataset.rows.digest, dataset.rows.path, strict=True))
    rows = record.photos.rows
    now = [paths.get(digest, path) for digest, path in zip(rows.digest, rows.path, strict=True)]
    return record.photos.with_rows(rows.assign(path=now))
