"""The record of the base: the photos and the settings that the last full fine-tuning was made of.

A night with few changes starts from the base instead of training anew. So the record stays as it is from night to
night, until `choose_record` finds that too much has changed.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from regraft.errors import printable, some
from regraft.files import fingerprint, reading
from regraft.photos.dataset import COLUMNS, Dataset
from regraft.photos.elsewhere import Elsewhere
from regraft.photos.left_out import HASH, Today, left_out_of
from regraft.sealed import read_frame, write_table


@dataclass(frozen=True, slots=True)
class BaseRecord:
    """What a base is made of."""

    photos: Dataset  # train and val as they were, with their hashes; none where nothing is fine-tuned
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
    left_out: dict[str, set[str]]  # by split, digests of the photos that cannot judge it: see `left_out_of`


def write_base_record(path: Path, record: BaseRecord) -> None:
    """Write a record; equal ones give equal bytes."""
    rows = record.photos.rows.copy()
    rows.attrs = {"class_names": record.photos.class_names, "settings": record.settings, "code": record.code}
    write_table(path, rows)


def read_base_record(path: Path, folder: Path, elsewhere: Elsewhere | None = None) -> BaseRecord:
    """Return what `write_base_record` wrote; `folder` and `elsewhere` are as for `read_dataset`.

    Raises:
        FileNotFoundError: there is no such file.
        Damaged: it is damaged.
    """
    rows = read_frame(path, COLUMNS, texts=HASH)  # those of old have no hashes
    with reading(path, "what a base was trained with"):
        settings, code, names = (rows.attrs[fact] for fact in ("settings", "code", "class_names"))
        if [names[index] for index in rows.class_index] != rows.class_name.tolist() or not isinstance(settings, dict):
            raise ValueError("something else")
    return BaseRecord(Dataset(rows, list(names), folder, elsewhere), settings, str(code))


def record_of(today: Today, settings: dict[str, Any], code: str, *, is_off: bool) -> BaseRecord:
    """Return the record of a base that is trained on today's photos; without photos where fine-tuning is off."""
    photos = today.dataset.of() if is_off else today.dataset.of("train", "val")
    hashes = pd.array([today.hashes.get(digest) for digest in photos.rows.digest], dtype="str")
    photos = photos.with_rows(photos.rows.assign(phash=hashes))
    return BaseRecord(replace(photos, class_names=[] if is_off else photos.class_names), settings, code)


def choose_record(
    before: BaseRecord | None, new: BaseRecord, today: Today, *, asked: Mapping[str, str], renew_after: float
) -> Choice:
    """Keep the record, or take that of today's photos, and say in words which and why.

    Args:
        before: the record of the base that is there; None where there is none.
        new: the record of a base that would be trained on today's photos, with today's settings and code.
        today: the photos.
        asked: reasons by the name of a base that is to be renewed.
        renew_after: largest share of photos that may have changed; also of val and of test that the base may have seen.
    """
    if not len(new.photos):
        nothing = Changes(set(), set(), set(), set(), photos=0)
        return Choice(new, False, "Fine-tuning is off, so there is no base.", nothing, {})
    if before is None:
        return _renewed(new, today, "there was none, or its record could not be read")
    left_out = left_out_of(before, today)
    reasons = _reasons(before, new, today.dataset, left_out, renew_after)
    if before.name in asked:
        reasons.append(f"it was asked for: {printable(asked[before.name])}")
    if reasons and before.name != new.name:
        return _renewed(new, today, "; ".join(reasons))
    changes = changes_since(before, today.dataset)
    words = f"The base is kept: {changes.words()}; fine_tune.renew_after is {renew_after:.0%}."
    if reasons:
        words = "The base is of today's photos, settings and code: there is nothing to renew."
    return Choice(before, False, words, changes, left_out)


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


def located(record: BaseRecord, dataset: Dataset) -> Dataset:
    """Return the photos of a record, each at the path that it has in a data set, if it is there: it may be renamed."""
    paths = dict(zip(dataset.rows.digest, dataset.rows.path, strict=True))
    rows = record.photos.rows
    now = [paths.get(digest, path) for digest, path in zip(rows.digest, rows.path, strict=True)]
    return record.photos.with_rows(rows.assign(path=now))


def _reasons(
    before: BaseRecord, new: BaseRecord, dataset: Dataset, left_out: Mapping[str, set[str]], renew_after: float
) -> list[str]:
    """Return why a base cannot be kept, whatever was asked for."""
    reasons = []
    if not len(before.photos):
        return ["fine-tuning was off"]
    then, now = set(before.photos.class_names), set(new.photos.class_names)
    reasons += [f"class {_names(now - then)} came"] if now - then else []
    reasons += [f"class {_names(then - now)} went"] if then - now else []
    if settings := _differing(before.settings, new.settings):
        reasons.append(f"other settings: {some(settings)}")
    if before.code != new.code:
        reasons.append("the code or a library that trains it changed")
    if reasons:
        return reasons
    changes, limit = changes_since(before, dataset), f"fine_tune.renew_after is {renew_after:.0%}"
    if changes.share > renew_after:
        return [f"{changes.words()}, and {limit}"]
    counts = Counter(dataset.rows.split)
    for split, digests in left_out.items():
        if len(digests) > renew_after * counts[split]:
            saw = f"it saw {len(digests):,} of the {counts[split]:,} photos that are in {split} now"
            reasons.append(f"{saw}, or near-duplicates of them, and {limit}")
    return reasons


def _renewed(new: BaseRecord, today: Today, why: str) -> Choice:
    return Choice(new, True, f"The base is renewed: {why}.", changes_since(new, today.dataset), {})


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
