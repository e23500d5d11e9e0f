"""Whether the base is kept: what has changed since its record was made, and whether that is too much."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from regraft.errors import printable, some
from regraft.photos.base_record import BaseRecord
from regraft.photos.dataset import Dataset
from regraft.photos.left_out import Today, left_out_of


@dataclass(frozen=True, slots=True)
class Changes:
    """In what today's photos of train and val differ from those of a base: digests."""

    new: set[str]  # the base has not seen them
    gone: set[str]  # they are not in the data set any more
    relabelled: set[str]  # the base saw them under another label
    moved: set[str]  # the base saw them in another split
    photos: int  # of train and val today, or those of the base if these are more
    is_sample: bool = False  # whether they are a sample of what there is, or was

    @property
    def share(self) -> float:
        """Of the photos that are compared."""
        return self._total / max(1, self.photos)

    def by_kind(self) -> dict[str, set[str]]:
        """Return them by what happened, as it stands in a sentence."""
        kinds = {"new": self.new, "gone": self.gone, "under another label": self.relabelled}
        return kinds | {"in another split": self.moved}

    def words(self) -> str:
        """Return counts, such as `37 of 3,781 photos have changed since (1.0%: 30 new, 7 gone)`."""
        counts = ", ".join(f"{len(digests):,} {what}" for what, digests in self.by_kind().items() if digests)
        share = f" ({self.share:.1%}: {counts})" if counts else ""
        sample = " of the sample" if self.is_sample else ""
        return f"{self._total:,} of {self.photos:,} photos{sample} have changed since{share}"

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
    changes = changes_since(before, today.dataset, new.photos)
    reasons = _reasons(before, new, changes, _too_much_left_out(today, left_out, renew_after), renew_after)
    if before.name in asked:
        reasons.append(f"it was asked for: {printable(asked[before.name])}")
    if reasons and before.name != new.name:
        return _renewed(new, today, "; ".join(reasons))
    words = f"The base is kept: {changes.words()}; fine_tune.renew_after is {renew_after:.0%}."
    if reasons:
        words = "The base is of today's photos, settings and code: there is nothing to renew."
    return Choice(before, False, words, changes, left_out)


def changes_since(record: BaseRecord, dataset: Dataset, sample: Dataset | None = None) -> Changes:
    """Return in what a data set differs from the photos of a base.

    Args:
        record: of the base.
        dataset: today's photos.
        sample: those of train and val that a base would be trained on today; None: all. Only these can be new.
    """
    now, then = dataset.of("train", "val").rows, record.photos.rows
    sample = sample or dataset.of("train", "val")
    may_be_new = set(sample.rows.digest[record.not_left_out(sample)])
    labels, splits = (
        ({"now": _by_digest(now, name), "then": _by_digest(then, name)}) for name in ("class_name", "split")
    )
    known, here = set(then.digest), set(dataset.rows.digest)
    everywhere = _by_digest(dataset.rows, "split")
    both = known & here
    relabelled = {each for each in both & set(now.digest) if labels["now"][each] != labels["then"][each]}
    moved = {each for each in both if everywhere[each] != splits["then"][each]} - relabelled
    is_sample = record.is_sample or len(sample) < len(now)
    return Changes(may_be_new - known, known - here, relabelled, moved, max(len(sample), len(then)), is_sample)


def _reasons(
    before: BaseRecord, new: BaseRecord, changes: Changes, left_out: list[str], renew_after: float
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
    if before.is_sample and len(new.photos) > len(before.photos):
        reasons.append(f"it is made of {len(before.photos):,} photos, and {len(new.photos):,} may be trained on now")
    if reasons:
        return reasons
    if changes.share > renew_after:
        return [f"{changes.words()}, and fine_tune.renew_after is {renew_after:.0%}"]
    return left_out


def _too_much_left_out(today: Today, left_out: Mapping[str, set[str]], renew_after: float) -> list[str]:
    """Return of which splits too many photos cannot judge what comes from a base."""
    counts = Counter(today.dataset.rows.split)
    return [
        f"it saw {len(digests):,} of the {counts[split]:,} photos that are in {split} now, or near-duplicates of them, "
        f"and fine_tune.renew_after is {renew_after:.0%}"
        for split, digests in left_out.items()
        if len(digests) > renew_after * counts[split]
    ]


def _renewed(new: BaseRecord, today: Today, why: str) -> Choice:
    return Choice(new, True, f"The base is renewed: {why}.", changes_since(new, today.dataset, new.photos), {})


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
