"""Whether the base is kept: what has changed since its record was made, and whether that is too much."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from regraft.core.errors import printable, some
from regraft.photos.base_record import BaseRecord
from regraft.photos.dataset import Dataset
from regraft.photos.duplicates import near_groups
from regraft.photos.left_out import HASH, Today, left_out_of

# A warm run visits a photo twice at a small learning rate: it adds to what a base knows and unlearns next to nothing.
# So labels that were corrected, and classes that became others, count for more than `fine_tune.renew_after` says.
_LABELS = 0.01  # largest share of all labels that may have changed
_LABELS_OF_CLASS = 0.1  # the same of the labels of one class; a small class is less than 1 % of all labels
_HALF = 0.5  # of a class: once so many photos are new, or gone, the base knows another class
_FEWEST = 2  # photos; a single one renews nothing, be it a tenth of a class of ten or a third of a class of three


@dataclass(frozen=True, slots=True)
class OfClass:
    """What changed of one class: photos of train and val."""

    before: int  # that the base saw under it
    now: int  # that a base would be trained on today
    new: int
    gone: int
    relabelled: int  # they came from another class, or went to one
    came: int  # of these

    def words(self, name: str) -> str | None:
        """Return why a base that knows this class is out of date; None where it is not."""
        labels = self.before + self.came
        if self.relabelled >= _FEWEST and self.relabelled > _LABELS_OF_CLASS * labels:
            limit = f"{_LABELS_OF_CLASS:.0%}"
            return f"{self.relabelled:,} of {labels:,} labels of class {name} have changed since, more than {limit}"
        for what, count, photos in (("new", self.new, self.now), ("gone", self.gone, self.before)):
            if count >= _FEWEST and count >= _HALF * photos:
                return f"half of class {name} is {what}: {count:,} of {photos:,} photos"
        return None


@dataclass(frozen=True, slots=True)
class Changes:
    """In what today's photos of train and val differ from those of a base: digests."""

    new: set[str]  # the base has not seen them
    gone: set[str]  # they are not in the data set any more
    relabelled: set[str]  # the base saw them, or other files of the same picture, under another label
    moved: set[str]  # the base saw them in another split
    photos: int  # of train and val today, or those of the base if these are more
    is_sample: bool = False  # whether they are a sample of what there is, or was
    classes: dict[str, OfClass] = field(default_factory=dict)  # by name

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

    def unlearnt(self) -> list[str]:
        """Return as reasons what the base learnt and a warm run would not unlearn."""
        count, reasons = len(self.relabelled), []
        if count >= _FEWEST and count > _LABELS * self.photos:
            reasons.append(f"{count:,} of {self.photos:,} labels have changed since, more than {_LABELS:.0%}")
        classes = [part.words(printable(name)) for name, part in sorted(self.classes.items())]
        return reasons + ([some(classes)] if (classes := [words for words in classes if words]) else [])

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
        return _of_today(new, today, "A base is trained on today's photos: there is no record of an earlier one.")
    left_out = left_out_of(before, today)
    changes = changes_since(before, today, new.photos)
    reasons = _reasons(before, new, changes, _too_much_left_out(today, left_out, renew_after), renew_after)
    if before.name in asked:
        reasons.append(f"it was asked for: {printable(asked[before.name])}")
    if reasons and before.name != new.name:
        return _of_today(new, today, f"The base is renewed: {'; '.join(reasons)}.")
    words = f"The base is kept: {changes.words()}; fine_tune.renew_after is {renew_after:.0%}."
    if reasons:
        words = "The base is of today's photos, settings and code: there is nothing to renew."
    return Choice(before, False, words, changes, left_out)


def changes_since(record: BaseRecord, today: Today, sample: Dataset | None = None) -> Changes:
    """Return in what a data set differs from the photos of a base.

    Args:
        record: of the base.
        today: the photos.
        sample: those of train and val that a base would be trained on today; None: all. Only these can be new.
    """
    trainable = today.dataset.of("train", "val")
    now, then = trainable.rows, record.photos.rows
    sample = sample or trainable
    may_be_new = set(sample.rows.digest[record.not_left_out(sample)])
    labels_now, labels_then = _by_digest(now, "class_name"), _by_digest(then, "class_name")
    splits_now, splits_then = _by_digest(today.dataset.rows, "split"), _by_digest(then, "split")
    known, here = labels_then.keys(), splits_now.keys()
    new, gone = may_be_new - known, known - here
    # By digest, its labels of then and of now.
    pairs = {each: (labels_then[each], labels_now[each]) for each in known & labels_now.keys()}
    pairs |= _saved_anew(
        record, today, {each: labels_now[each] for each in new}, {each: labels_then[each] for each in gone}
    )
    pairs = {each: (old, label) for each, (old, label) in pairs.items() if old != label}
    moved = {each for each in known & here if splits_now[each] != splits_then[each]} - pairs.keys()
    new -= pairs.keys()
    return Changes(
        new,
        gone,
        set(pairs),
        moved,
        photos=max(len(sample), len(then)),
        is_sample=record.is_sample or len(sample) < len(now),
        classes=_classes(record, sample, new, gone, pairs),
    )


def _saved_anew(
    record: BaseRecord, today: Today, new: Mapping[str, set[str]], gone: Mapping[str, set[str]]
) -> dict[str, tuple[set[str], set[str]]]:
    """Return the labels of then and of now of new photos that are near-duplicates of photos that are gone.

    Where one that is gone had the same label, this is none that was corrected.

    Args:
        record: of the base, with hashes.
        today: the photos.
        new: labels by digest.
        gone: the same.
    """
    rows = record.photos.rows
    if today.max_hash_distance is None or HASH not in rows:
        return {}
    then = dict(rows.loc[rows.digest.isin(list(gone)), ["digest", HASH]].dropna().itertuples(index=False))
    now = {digest: today.hashes[digest] for digest in new if digest in today.hashes}
    groups, labels = near_groups([*then.values(), *now.values()], today.max_hash_distance), dict[int, set[str]]()
    for digest, group in zip(then, groups[: len(then)], strict=True):
        labels.setdefault(group, set()).update(gone[digest])
    pairs = {
        digest: (labels.get(group, set()), new[digest]) for digest, group in zip(now, groups[len(then) :], strict=True)
    }
    return {digest: pair for digest, pair in pairs.items() if pair[0] and not pair[0] & pair[1]}


def _classes(
    record: BaseRecord,
    sample: Dataset,
    new: set[str],
    gone: set[str],
    relabelled: Mapping[str, tuple[set[str], set[str]]],
) -> dict[str, OfClass]:
    """Return what changed of each class; `relabelled` are labels of then and of now."""
    now, then = sample.rows, record.photos.rows
    went = Counter(name for old, label in relabelled.values() for name in old - label)
    came = Counter(name for old, label in relabelled.values() for name in label - old)
    counts = [
        Counter(rows.class_name.tolist())
        for rows in (then, now, now[now.digest.isin(new)], then[then.digest.isin(gone)])
    ]
    return {
        name: OfClass(*(count[name] for count in counts), relabelled=went[name] + came[name], came=came[name])
        for name in set(then.class_name) | set(now.class_name)
    }


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
        reasons.append(f"{changes.words()}, and fine_tune.renew_after is {renew_after:.0%}")
    return reasons + changes.unlearnt() or left_out


def _too_much_left_out(today: Today, left_out: Mapping[str, set[str]], renew_after: float) -> list[str]:
    """Return of which splits too many photos cannot judge what comes from a base."""
    counts = Counter(today.dataset.rows.split)
    return [
        f"it saw {len(digests):,} of the {counts[split]:,} photos that are in {split} now, or near-duplicates of them, "
        f"and fine_tune.renew_after is {renew_after:.0%}"
        for split, digests in left_out.items()
        if len(digests) > renew_after * counts[split]
    ]


def _of_today(new: BaseRecord, today: Today, words: str) -> Choice:
    return Choice(new, True, words, changes_since(new, today, new.photos), {})


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
