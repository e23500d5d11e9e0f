"""Today's test photos in the record of a former model: by their bytes, and by perceptual hashes where these changed.

A photo that is saved anew has another SHA-256 and the same pixels. By digests alone the record would know nothing of
it: neither that the model saw it in training nor which label it had.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from regraft.photos.duplicates import has_near, nearest_of
from regraft.photos.groups import groups_of_digests, hashed_given_groups
from regraft.photos.left_out import HASH
from regraft.production.training_data import Reference, Seen

# A photo that went and one that came cannot be told from one photo under another label. Photos also age out, so the
# share is larger than promote.max_relabelled: it is that of fine_tune.renew_after, from which on a base is too old.
REPLACED = 0.1
REPLACED_OF_CLASS = 0.5  # two classes of fifty that were swapped are 4 % of all photos, and all of theirs
_FEWEST = 5  # photos of a class that went: the loss of fewer is never shown (exact McNemar: 1/16)


@dataclass(frozen=True, slots=True)
class RecordMatch:
    """What a record says of today's test photos."""

    seen: frozenset[str] = frozenset()  # today's groups of which the model saw a photo in training or val
    labels: dict[str, set[str]] | None = None  # by digest of a test photo that the record knows: the labels there
    replaced: str = ""  # a sentence where so many photos went, and as many came, that a person has to look

    def other_label(self, digest: str, label: str) -> str | None:
        """Return the label that a photo has in the record, if it is another one."""
        before = (self.labels or {}).get(digest, {label})
        return None if label in before else min(before)


def match_record(
    test: pd.DataFrame, used: pd.DataFrame, reference: Reference | None, distance: int | None
) -> RecordMatch:
    """Find today's test photos in a record.

    Args:
        test: rows of the test split.
        used: of all of today's photos digest and group, and phash and given_group where these are known.
        reference: the record; of one from before records had perceptual hashes only equal files are found.
        distance: bits in which perceptual hashes of near-duplicates may differ; None: only equal files are found.
    """
    if reference is None:
        return RecordMatch()
    then, hashes = reference.rows, _hashes_of(used) if distance is not None else {}
    known = set(then.digest)
    strangers = [digest for digest in test.digest.tolist() if digest not in known]
    labels: dict[str, set[str]] = {}
    for digest, label in zip(then.digest.tolist(), then.label.tolist(), strict=True):
        labels.setdefault(digest, set()).add(label)
    hashed = {digest: hashes[digest] for digest in strangers if digest in hashes}
    labels |= _labels_of_near(hashed, then, used, distance)
    # A test photo that moved to another split judges nothing any more: it is gone, as one that left the folder.
    replaced = _replaced(_went(then, set(test.digest), [*hashed.values()], distance), test, ~test.digest.isin(labels))
    return RecordMatch(frozenset(_groups_seen(reference, used, hashed, distance)), labels, replaced)


def _labels_of_near(
    hashed: dict[str, str], then: pd.DataFrame, used: pd.DataFrame, distance: int | None
) -> dict[str, set[str]]:
    """Return the labels of the photos in the record that look most like some that are not there, by digest."""
    if not hashed or HASH not in then or distance is None:
        return {}
    # A photo that is still there, and looks so, is in the same group today: of the others none has to be compared.
    groups = set(groups_of_digests(list(hashed), used))
    beside = used.digest[used.group.isin(groups)]
    old = then[then[HASH].notna() & (~then.digest.isin(used.digest) | then.digest.isin(beside))]
    found, names = nearest_of(list(hashed.values()), old[HASH].tolist(), distance), old.label.tolist()
    return {digest: {names[row] for row in rows} for digest, rows in zip(hashed, found, strict=True) if rows}


def _groups_seen(reference: Reference, used: pd.DataFrame, hashed: dict[str, str], distance: int | None) -> set[str]:
    """Return today's groups with a photo that the model saw, a near-duplicate, or one of the same given group."""
    saw = reference.seen()
    digests = [*saw.digests, *used.digest[hashed_given_groups(used).isin(saw.given)].tolist()]
    if distance is not None:
        gone = Seen.of(reference.rows[~reference.rows.digest.isin(used.digest)])
        hashes = sorted((gone.hashes | reference.base_saw.hashes) & saw.hashes)
        is_near = has_near(list(hashed.values()), hashes, distance)
        digests += [digest for digest, near in zip(hashed, is_near, strict=True) if near]
    return set(groups_of_digests(digests, used))


def _went(then: pd.DataFrame, here: set[str], new: list[str], distance: int | None) -> pd.DataFrame:
    """Return the record's test photos, with whether each of them is gone; one that was saved anew is not."""
    test = then[then.split == "test"]
    gone = (~test.digest.isin(here)).to_numpy(copy=True)
    if HASH in test and distance is not None:
        asked = np.flatnonzero(gone & test[HASH].notna().to_numpy())
        gone[asked] = ~np.array(has_near(test[HASH].iloc[asked].tolist(), new, distance), bool)
    return test.assign(gone=gone)


def _replaced(then: pd.DataFrame, test: pd.DataFrame, came: pd.Series) -> str:
    """Say of how many test photos nobody knows which label they had, if they are many."""
    went = float(then.gone.mean()) if len(then) else 0.0
    share = min(went, float(came.mean()) if len(test) else 0.0)
    end = (
        "One that went and one that came cannot be told from one photo under another label, so a person has to look "
        "whether the labels are right"
    )
    if share >= REPLACED:
        return (
            f"of the {len(then):,} test photos that production's record has {int(then.gone.sum()):,} are gone, and "
            f"{int(came.sum()):,} of today's {len(test):,} are not in it (from {REPLACED:.0%} on that counts). {end}"
        )
    left, new = then.groupby("label").gone, came.groupby(test.class_name)
    went_of, came_of = left.mean()[left.sum() >= _FEWEST], new.mean()
    lost = [name for name, part in went_of.items() if min(part, came_of.get(name, 0.0)) >= REPLACED_OF_CLASS]
    if not lost:
        return ""
    named = ", ".join(f"'{name}'" for name in lost[:5])
    return (
        f"of the test photos of {named} that production's record has at least {REPLACED_OF_CLASS:.0%} are gone, and as "
        f"large a part of today's is not in it. {end}"
    )


def _hashes_of(used: pd.DataFrame) -> dict[str, str]:
    if HASH not in used:
        return {}
    hashed = used[used[HASH].notna()]
    return dict(zip(hashed.digest.tolist(), hashed[HASH].tolist(), strict=True))
