"""The record of the base: the photos and the settings that the last full fine-tuning was made of.

A night with few changes starts from the base instead of training anew. So the record stays as it is from night to
night, until `choose_record` finds that too much has changed. What was trained on its photos is told here as well:
nothing may be judged on those.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from regraft.errors import printable, some
from regraft.files import fingerprint, reading
from regraft.photos.dataset import Dataset, Split, read_dataset
from regraft.sealed import write_table

_JUDGES: tuple[Split, ...] = ("val", "test")


@dataclass(frozen=True, slots=True)
class BaseRecord:
    """What a base is made of."""

    photos: Dataset  # train and val as they were; none where nothing is fine-tuned
    settings: dict[str, Any]  # that it is trained with: sections of params.yaml, as JSON
    code: str  # digest of the code and the libraries that train it

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


@dataclass(frozen=True, slots=True)
class Changes:
    """In what today's photos of train and val differ from those of a base: digests."""

    new: set[str]  # the base has not seen them
    gone: set[str]  # they are not in the data set any more
    relabelled: set[str]  # the base saw them under another label
    moved: set[str]  # the base saw them in another split
    photos: int  # of train and val today

    @property
    def share(self) -> float:
        """Of the photos of today."""
        return self._total / max(1, self.photos)

    def by_kind(self) -> dict[str, set[str]]:
        """Return them by what happened, as it stands in a sentence."""
        kinds = {"new": self.new, "gone": self.gone, "under another label": self.relabelled}
        return kinds | {"in another split": self.moved}

    def words(self) -> str:
        """Return counts, such as `37 of 3,781 photos have changed since (1.0%: 30 new, 7 gone)`."""
        counts = ", ".join(f"{len(digests):,} {what}" for what, digests in self.by_kind().items() if digests)
        share = f" ({self.share:.1%}: {counts})" if counts else ""
        return f"{self._total:,} of {self.photos:,} photos have changed since{share}"

    @property
    def _total(self) -> int:
        return len(set[str]().union(*self.by_kind().values()))


@dataclass(frozen=True, slots=True)
class Choice:
    """Which record counts today."""

    record: BaseRecord
    is_renewed: bool
    words: str  # which of the two, and why
    changes: Changes  # since the record that counts
    left_out: dict[str, int]  # by split, photos of val and test that the base saw, and so cannot judge it


def write_base_record(path: Path, record: BaseRecord) -> None:
    """Write a record; equal ones give equal bytes."""
    rows = record.photos.rows.copy()
    rows.attrs = {"class_names": record.photos.class_names, "settings": record.settings, "code": record.code}
    write_table(path, rows)


def read_base_record(path: Path, folder: Path) -> BaseRecord:
    """Return what `write_base_record` wrote; the paths in it are relative to the data folder.

    Raises:
        FileNotFoundError: there is no such file.
        Damaged: it is damaged.
    """
    photos = read_dataset(path, folder)
    with reading(path, "what a base was trained with"):
        settings, code = photos.rows.attrs["settings"], photos.rows.attrs["code"]
        if not isinstance(settings, dict):
            raise ValueError("something else")
    return BaseRecord(photos, settings, str(code))


def record_of(dataset: Dataset, settings: dict[str, Any], code: str, *, is_off: bool) -> BaseRecord:
    """Return the record of a base that is trained on a data set; without photos where fine-tuning is off."""
    photos = dataset.of() if is_off else dataset.of("train", "val")
    return BaseRecord(replace(photos, class_names=[] if is_off else dataset.class_names), settings, code)


def choose_record(
    before: BaseRecord | None, today: BaseRecord, dataset: Dataset, *, asked: Mapping[str, str], renew_after: float
) -> Choice:
    """Keep the record, or take that of today's photos, and say in words which and why.

    Args:
        before: the record of the base that is there; None where there is none.
        today: the record of a base that would be trained on today's photos, with today's settings and code.
        dataset: today's photos.
        asked: reasons by the name of a base that is to be renewed.
        renew_after: largest share of photos that may have changed; also of val and of test that the base may have seen.
    """
    if not len(today.photos):
        return Choice(today, False, "Fine-tuning is off, so there is no base.", changes_since(today, dataset), {})
    if before is None:
        return _renewed(today, dataset, "there was none, or its record could not be read")
    reasons = _reasons(before, today, dataset, renew_after)
    if before.name in asked:
        reasons.append(f"it was asked for: {printable(asked[before.name])}")
    if reasons and before.name != today.name:
        return _renewed(today, dataset, "; ".join(reasons))
    changes = changes_since(before, dataset)
    words = f"The base is kept: {changes.words()}; fine_tune.renew_after is {renew_after:.0%}."
    if reasons:
        words = "The base is of today's photos, settings and code: there is nothing to renew."
    return Choice(before, False, words, changes, _left_out(before, dataset))


def changes_since(record: BaseRecord, dataset: Dataset) -> Changes:
    """Return in what a data set differs from the photos of a base."""
    now, then = dataset.of("train", "val").rows, record.photos.rows
    labels, splits = (
        ({"now": _by_digest(now, name), "then": _by_digest(then, name)}) for name in ("class_name", "split")
    )
    known, here = set(then.digest), set(dataset.rows.digest)
    everywhere = _by_digest(dataset.rows, "split")
    both = known & here
    relabelled = {each for each in both & set(now.digest) if labels["now"][each] != labels["then"][each]}
    moved = {each for each in both if everywhere[each] != splits["then"][each]} - relabelled
    return Changes(set(now.digest) - known, known - here, relabelled, moved, len(now))


def unseen(dataset: Dataset, record: BaseRecord) -> Dataset:
    """Return a data set without the photos of val and test that may not judge what comes from a base.

    Of val those that it was trained on, of test also those that its settings were chosen on. Photos keep their splits,
    so there are none unless a person moves them.
    """
    rows = dataset.rows
    is_out = (rows.split == "val") & rows.digest.isin(record.trained_on())
    is_out |= (rows.split == "test") & rows.digest.isin(record.saw())
    return dataset.with_rows(rows[~is_out].reset_index(drop=True)) if is_out.any() else dataset


def located(record: BaseRecord, dataset: Dataset) -> Dataset:
    """Return the photos of a record, each at the path that it has in a data set, if it is there: it may be renamed."""
    paths = dict(zip(dataset.rows.digest, dataset.rows.path, strict=True))
    rows = record.photos.rows
    now = [paths.get(digest, path) for digest, path in zip(rows.digest, rows.path, strict=True)]
    return record.photos.with_rows(rows.assign(path=now))


def _reasons(before: BaseRecord, today: BaseRecord, dataset: Dataset, renew_after: float) -> list[str]:
    """Return why a base cannot be kept, whatever was asked for."""
    reasons = []
    if not len(before.photos):
        return ["fine-tuning was off"]
    old, new = set(before.photos.class_names), set(today.photos.class_names)
    reasons += [f"class {_names(new - old)} came"] if new - old else []
    reasons += [f"class {_names(old - new)} went"] if old - new else []
    if settings := _differing(before.settings, today.settings):
        reasons.append(f"other settings: {some(settings)}")
    if before.code != today.code:
        reasons.append("the code or a library that trains it changed")
    if reasons:
        return reasons
    changes, limit = changes_since(before, dataset), f"fine_tune.renew_after is {renew_after:.0%}"
    if changes.share > renew_after:
        return [f"{changes.words()}, and {limit}"]
    counts = Counter(dataset.rows.split)
    for split, number in _left_out(before, dataset).items():
        if number > renew_after * counts[split]:
            reasons.append(f"it saw {number:,} of the {counts[split]:,} photos that are in {split} now, and {limit}")
    return reasons


def _renewed(today: BaseRecord, dataset: Dataset, why: str) -> Choice:
    return Choice(today, True, f"The base is renewed: {why}.", changes_since(today, dataset), {})


def _left_out(record: BaseRecord, dataset: Dataset) -> dict[str, int]:
    before, after = (Counter(part.rows.split) for part in (dataset, unseen(dataset, record)))
    return {split: before[split] - after[split] for split in _JUDGES if before[split] > after[split]}


def _by_digest(rows: pd.DataFrame, column: str) -> dict[str, set[str]]:
    """The values that a photo has: one file may be in a data set under two labels."""
    values: dict[str, set[str]] = {}
    for digest, value in zip(rows.digest, rows[column], strict=True):
        values.setdefault(digest, set()).add(value)
    return values


def _differing(before: Mapping[str, Any], now: Mapping[str, Any], section: str = "") -> list[str]:
    """Return the names of settings that differ."""
    names: list[str] = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            names += _differing(old, new, f"{section}{key}.")
        elif old != new:
            names.append(f"{section}{key}")
    return names


def _names(names: Iterable[str]) -> str:
    return some([printable(name) for name in sorted(names)])
