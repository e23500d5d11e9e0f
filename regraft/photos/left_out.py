"""Photos of val and test that may not judge what comes from a base: it saw them, or near-duplicates of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from regraft.core.sealed import read_frame, write_table
from regraft.photos.dataset import Dataset
from regraft.photos.duplicates import has_near
from regraft.photos.groups import hashed_given_groups

if TYPE_CHECKING:
    from regraft.photos.base_record import BaseRecord

HASH = "phash"  # as in the manifest: a photo may be gone one day, and a near-duplicate of it come
GIVEN = "given_group"  # SHA-256 of the group that a person gave it: the same of another photo of a patient
_LEFT_OUT = {"digest": "str", "split": "str"}


@dataclass(frozen=True, slots=True)
class Today:
    """The photos of today, and what they have to do with each other."""

    dataset: Dataset
    groups: dict[str, str] = field(default_factory=dict)  # names by digest, also of photos that the data set left out
    hashes: dict[str, str] = field(default_factory=dict)  # perceptual ones, of photos that have one
    max_hash_distance: int | None = None  # bits in which those of near-duplicates may differ
    given: dict[str, str] = field(default_factory=dict)  # SHA-256 of the groups that a person gave, by digest

    @classmethod
    def of(cls, dataset: Dataset, manifest: pd.DataFrame, max_hash_distance: int | None) -> "Today":
        """Return it from a manifest with its groups, and the distance that they were found with."""
        used = manifest[manifest.verdict == "use"]
        hashed = used[used[HASH].notna()]
        groups = dict(zip(used.digest.tolist(), used.group.tolist(), strict=True))
        hashes = dict(zip(hashed.digest.tolist(), hashed[HASH].tolist(), strict=True))
        given = hashed_given_groups(used)
        of_person = dict(zip(used.digest[given.notna()].tolist(), given.dropna().tolist(), strict=True))
        return cls(dataset, groups, hashes, max_hash_distance, of_person)


def left_out_of(record: "BaseRecord", today: Today) -> dict[str, set[str]]:
    """Return the digests of the photos of val and test that may not judge what comes from a base, by split.

    Of val those that it was trained on, of test also those that its settings were chosen on, the near-duplicates of
    these and the photos of the groups that a person gave these, whether they are there today or gone. Photos keep their
    splits, so there are hardly any unless a person moves photos, gives splits of their own, or saves photos anew.
    """
    rows, left_out = today.dataset.rows, {}
    for split, seen in (("val", record.trained_on()), ("test", record.saw())):
        digests = rows.digest[rows.split == split].tolist()
        groups = {today.groups[digest] for digest in seen & today.groups.keys()}
        given = record.given_groups(seen)
        groups |= {today.groups.get(digest, digest) for digest, name in today.given.items() if name in given}
        out = {digest for digest in digests if digest in seen or today.groups.get(digest, digest) in groups}
        out |= _near_to_gone(record, seen - today.groups.keys(), digests, today)
        if out:
            left_out[split] = out
    return left_out


def _near_to_gone(record: "BaseRecord", gone: set[str], digests: list[str], today: Today) -> set[str]:
    """Return which photos are near-duplicates of photos that are gone: they have no group with those."""
    rows = record.photos.rows
    if today.max_hash_distance is None or not gone or HASH not in rows:
        return set()
    hashes = rows[HASH][rows.digest.isin(gone)].dropna().tolist()
    hashed = [digest for digest in digests if digest in today.hashes]
    is_near = has_near([today.hashes[digest] for digest in hashed], hashes, today.max_hash_distance)
    return {digest for digest, near in zip(hashed, is_near, strict=True) if near}


def write_left_out(path: Path, left_out: Mapping[str, set[str]]) -> None:
    """Write which photos judge nothing; equal ones give equal bytes."""
    rows = [(digest, split) for split in sorted(left_out) for digest in sorted(left_out[split])]
    write_table(path, pd.DataFrame(rows, columns=list(_LEFT_OUT)).astype(_LEFT_OUT))


def unseen(dataset: Dataset, path: Path) -> Dataset:
    """Return a data set without the photos of val and test that `write_left_out` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        Damaged: it is damaged.
    """
    rows = read_frame(path, _LEFT_OUT)
    return without(dataset, {split: set(part.digest) for split, part in rows.groupby("split")})


def without(dataset: Dataset, left_out: Mapping[str, set[str]]) -> Dataset:
    """Return a data set without photos that are named by split and digest."""
    rows, nothing = dataset.rows, set[str]()
    stays = [digest not in left_out.get(split, nothing) for digest, split in zip(rows.digest, rows.split, strict=True)]
    return dataset if all(stays) else dataset.with_rows(rows[stays].reset_index(drop=True))
