"""New photos judge production: an honest test, since nobody tuned anything on them.

Labelled photos that arrive are shown to the model in production and to the anchor before they enter any split, each
photo once. Only those count on which one of the two is right. They accumulate into one e-value
(`regraft.core.statistics.evidence_of_harm`), whichever models are in production meanwhile; it begins anew when the
anchor moves.

Why models may change under it: for a share p > 1/2 of photos that only the anchor names rightly, photo after photo is
worth 2 p if that is so, and 2 (1 - p) if only production is right. Which model that is was settled before the photo
came. If it is at least as good as the anchor, the photo's worth is 1 or less on average, given all before; so the
product is a nonnegative supermartingale, and so is its mean over p in (1/2, 1), which is the e-value. As long as every
model in production is at least as good as the anchor, it ever reaches 20 with a chance of at most 1 in 20 (Ville's
inequality; Ramdas et al., "Game-theoretic statistics and safe anytime-valid inference", Statistical Science 38, 2023).

    models/production/new_photos.parquet    one row per photo and pair of models
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from regraft.core.errors import Damaged
from regraft.core.sealed import read_frame, write_table
from regraft.core.statistics import evidence_of_harm
from regraft.photos.dataset import Dataset
from regraft.photos.groups import groups_of_digests, hashed_given_groups
from regraft.production.exclusive import exclusive, repeated
from regraft.production.records import load_former
from regraft.production.registry import Production
from regraft.production.training_data import Reference, Seen

if TYPE_CHECKING:
    from regraft.export.classifier import OnnxClassifier

FILE = "new_photos.parquet"
ALARM = 20.0  # e-value from which on nothing is promoted by itself: by chance with at most 5 % of anchors
COLUMNS = {
    "champion": "str",  # SHA-256 of the model that was in production
    "predecessor": "str",  # that of the anchor
    "digest": "str",  # SHA-256 of the photo's file
    "group": "str",  # of its near-duplicates: one photo of each counts
    "label": "str",  # as it was when the photo came
    "champion_right": "bool",
    "predecessor_right": "bool",
    "at": "str",  # ISO 8601, UTC
}
_MOST = 2000  # photos that are shown to both models in one night; the first by digest are as good as drawn at random
_WORDS = 1e6  # above it the e-value is not spelled out


@dataclass(frozen=True, slots=True)
class Evidence:
    """The new photos' evidence on production and the anchor so far."""

    photos: int
    b: int  # that only the anchor names rightly
    c: int  # that only the model in production names rightly
    anchor: str  # its SHA-256

    @classmethod
    def of(cls, rows: pd.DataFrame, anchor: str) -> "Evidence":
        """Count the rows of one anchor."""
        b = int((rows.predecessor_right & ~rows.champion_right).sum())
        return cls(len(rows), b, int((rows.champion_right & ~rows.predecessor_right).sum()), anchor)

    @property
    def e_value(self) -> float:
        """The evidence that what is in production is worse than the anchor."""
        return float(evidence_of_harm(self.b, self.c))

    @property
    def is_alarm(self) -> bool:
        """Whether nothing may be promoted by itself."""
        return self.e_value >= ALARM

    @property
    def words(self) -> str:
        """The evidence as a sentence."""
        e = f"{self.e_value:.3g}" if self.e_value < _WORDS else "over 1,000,000"
        words = (
            f"Of {self.photos} new photos since {self.anchor[:12]} is the anchor {self.b} are named rightly only by "
            f"it, {self.c} only by what was in production (e-value {e}; {ALARM:g} is an alarm)."
        )
        return f"{words} `regraft promote --rollback --to {self.anchor[:12]}` is advised." if self.is_alarm else words

    def figures(self) -> dict[str, Any]:
        """Return the figures for gate.json."""
        e = self.e_value if math.isfinite(self.e_value) else None
        return {"photos": self.photos, "b": self.b, "c": self.c, "e_value": e, "is_alarm": self.is_alarm}


def judge_production(
    production: Production,
    dataset: Dataset,
    groups: pd.DataFrame,
    infer: Callable[["OnnxClassifier", Dataset], np.ndarray],
) -> Evidence | None:
    """Show new photos to the model in production and to the anchor; return the evidence since it is the anchor.

    Args:
        production: as it is now.
        dataset: today's photos of all splits.
        groups: of today's photos the columns digest and group, and given_group where it is known, from the manifest.
        infer: gives the probabilities of photos.

    Returns:
        None where these are one model, or where it is not known what they were trained on.
    """
    champion, (anchor, _) = production.digest, production.anchored()
    if champion is None or anchor is None or anchor == champion or not production.is_kept(anchor):
        return None
    pair = (champion, anchor)
    seen = [reference for digest in pair if (reference := production.reference_of(digest))]
    if len(seen) < len(pair):
        return None
    scored = _scored(production)
    if not len(select_new(dataset, groups, seen, scored)):  # before models are loaded: most nights bring none
        return Evidence.of(scored, anchor)
    models = [load_former(path)[0] for path in (production.model, production.version_of(anchor))]
    classifiers = [model for model in models if model]
    if len(classifiers) < len(models):
        return None
    both = set.intersection(*(set(classifier.class_names) for classifier in classifiers))
    known = dataset.with_rows(dataset.rows[dataset.rows.class_name.isin(both)].reset_index(drop=True))
    new = select_new(known, groups, seen, scored)
    if not len(new):
        return Evidence.of(scored, anchor)
    labels = new.rows.class_name.to_numpy(str)
    right = [
        np.array(classifier.class_names, str)[infer(classifier, new).argmax(axis=1)] == labels
        for classifier in classifiers
    ]
    return _add(production, anchor, answered(new, groups, pair, (right[0], right[1])))


def select_new(
    dataset: Dataset, groups: pd.DataFrame, references: Sequence[Reference], scored: pd.DataFrame
) -> Dataset:
    """Return the photos that neither of two models' records has, one per group, without those that were scored.

    Args:
        dataset: today's photos of all splits.
        groups: of today's photos, as above.
        references: what each of the two models was trained on.
        scored: rows of `COLUMNS` since the anchor is the anchor.
    """
    saw = [Seen.of(reference.rows) | reference.base_saw for reference in references]
    known = [digest for each in saw for digest in each.digests]
    # A new photo of a patient whom a model knows judges nothing, even if the older photos have left the folder.
    of_known = hashed_given_groups(groups).isin([name for each in saw for name in each.given])
    known += groups.digest[of_known].tolist()
    taken = set(groups_of_digests([*known, *scored.digest.tolist()], groups)) | set(scored.group.tolist())
    rows = []
    for row, group in enumerate(groups_of_digests(dataset.rows.digest.tolist(), groups)):
        if group not in taken:
            taken.add(group)
            rows.append(row)
    return dataset.with_rows(dataset.rows.iloc[rows[:_MOST]].reset_index(drop=True))


def answered(
    photos: Dataset, groups: pd.DataFrame, models: tuple[str, str], right: tuple[np.ndarray, np.ndarray]
) -> pd.DataFrame:
    """Return rows of `COLUMNS` for photos that production and the anchor, by their SHA-256, named rightly or not."""
    digests = photos.rows.digest.tolist()
    rows = {
        "champion": models[0],
        "predecessor": models[1],
        "digest": digests,
        "group": groups_of_digests(digests, groups),
        "label": photos.rows.class_name.tolist(),
        "champion_right": right[0],
        "predecessor_right": right[1],
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def read_answers(folder: Path) -> pd.DataFrame:
    """Return all rows in the record of production; none where there is no file, or a damaged one, which is set aside.

    A night must not end because of it, and nothing is lost: the damaged file keeps its bytes under another name.
    """
    path = folder / FILE
    try:
        return read_frame(path, COLUMNS)
    except FileNotFoundError:
        pass
    except Damaged:
        with suppress(FileNotFoundError):  # another process did it first
            path.rename(folder / f"damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}.parquet")
    return pd.DataFrame(columns=list(COLUMNS)).astype(COLUMNS)


def write_answers(folder: Path, rows: pd.DataFrame) -> None:
    """Write the record; the caller holds the lock of production."""
    write_table(folder / FILE, rows.reset_index(drop=True))


def _scored(production: Production) -> pd.DataFrame:
    """Return the rows about the anchor and the models that were in production since it is one."""
    (anchor, since), rows = production.anchored(), read_answers(production.folder)
    return rows[(rows.predecessor == anchor) & rows.champion.isin([change.sha256 for change in since])]


@repeated
def _add(production: Production, anchor: str, rows: pd.DataFrame) -> Evidence:
    with exclusive(production.folder, "recording new photos", patience=production.patience):
        before = _scored(production)  # read again: another process may have added the same photos
        fresh = rows[~rows.digest.isin(before.digest)]
        write_answers(production.folder, pd.concat([before, fresh], ignore_index=True))
        return Evidence.of(_scored(production), anchor)
