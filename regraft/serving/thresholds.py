"""The two thresholds of a file, and what its metadata promises of each: of its answers, and of its novelty alarms.

A photo is called novel if it is more novel than the k-th most novel of n val photos. Of n + 1 photos of one kind each
is as likely to have any of the ranks, so a further one is among the k most novel with a chance of k / (n + 1), whatever
the distribution: at most 1 in 100 from 99 photos on, where k = floor(0.01 (n + 1)); below that k is 1. Source: split
conformal prediction (Lei et al., "Distribution-free predictive inference for regression", JASA 113, 2018).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, fields

ABOVE, SHARE, PHOTOS = "novelty_above", "novelty_share", "novelty_photos"  # in the metadata of a file
_ONE_IN = 100
NO_THRESHOLD = "no_threshold"  # in the metadata of a file that answers everything without a promise: `NoPromise`


@dataclass(frozen=True, slots=True)
class Promise:
    """What holds for a model that answers only where its largest probability is `abstain_below` or more."""

    abstain_below: float  # 0: it answers everything
    target_precision: float  # share of right answers among all answers, at least
    confidence: float  # chance, over the draw of val, that it is so

    def as_metadata(self) -> dict[str, str]:
        """Return what an ONNX file says of itself, as numbers in words."""
        return {name: repr(value) for name, value in asdict(self).items()}

    def __str__(self) -> str:
        """The promise in words."""
        where = f"at {self.abstain_below:.6g} and above" if self.abstain_below else "whatever the probability"
        precision, confidence = 100 * self.target_precision, 100 * self.confidence
        return f"{where}, at least {precision:g}% of answers are right ({confidence:g}% confidence)"


@dataclass(frozen=True, slots=True)
class NoPromise:
    """Why a file promises nothing: nobody asked for it, val has too few photos, or the model is too often wrong."""

    target_precision: float | None  # that was asked for; None: `evaluate.target_precision` is null
    val_photos: int  # one per group of near-duplicates
    photos_needed: int  # all of them answered rightly, to show that precision; 0 where none was asked for

    def as_metadata(self) -> dict[str, str]:
        """Return the entry of an ONNX file's metadata."""
        return {NO_THRESHOLD: json.dumps(asdict(self))}

    def __str__(self) -> str:
        """The reason in words."""
        if self.target_precision is None:
            return "evaluate.target_precision was null when it was exported"
        aim = f"that {100 * self.target_precision:g}% of answers are right"
        if self.val_photos < self.photos_needed:
            return f"to show {aim} takes {self.photos_needed} val photos, and there were {self.val_photos}"
        return (
            f"{self.val_photos} val photos show of no probability {aim}: the model is too often wrong, or they are few"
        )


def read_no_promise(metadata: Mapping[str, str]) -> NoPromise | None:
    """Return what `NoPromise.as_metadata` wrote, or None if a file does not say, as those of earlier versions.

    Raises:
        ValueError: it says something else.
    """
    if NO_THRESHOLD not in metadata:
        return None
    found = json.loads(metadata[NO_THRESHOLD])
    if not isinstance(found, dict) or found.keys() != {field.name for field in fields(NoPromise)}:
        raise ValueError(f"{NO_THRESHOLD} must have {', '.join(field.name for field in fields(NoPromise))}")
    target, *counts = found.values()
    is_share = target is None or (isinstance(target, float) and 0 <= target <= 1)
    if not is_share or not all(isinstance(count, int) and count >= 0 for count in counts):
        raise ValueError(f"{NO_THRESHOLD} must have a share from 0 to 1, or null, and two counts")
    return NoPromise(**found)


def read_promise(metadata: Mapping[str, str]) -> Promise | None:
    """Return what `Promise.as_metadata` said, or None if a file says nothing of it.

    Raises:
        ValueError: it says something else.
    """
    found = [metadata[field.name] for field in fields(Promise) if field.name in metadata]
    if not found:
        return None
    promise = Promise(*map(float, found)) if len(found) == len(fields(Promise)) else None
    if promise is None or not all(0 <= value <= 1 for value in astuple(promise)):
        raise ValueError(f"{', '.join(field.name for field in fields(Promise))} must be numbers from 0 to 1")
    return promise


def rank_of(photos: int) -> int:
    """Return k, from above, for so many independent val photos."""
    return max(1, (photos + 1) // _ONE_IN)


def share_of(photos: int) -> float:
    """Return the expected share of ordinary photos that are called novel: k / (n + 1)."""
    return rank_of(photos) / (photos + 1)


def one_in(share: float) -> str:
    """Return a share as `1 in 151`: never less than it is."""
    return f"1 in {int(1 / share + 1e-6)}"  # 1 / (1 / 99) is 98.99999999999999
