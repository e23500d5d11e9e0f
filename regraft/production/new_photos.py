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
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regraft.core.errors import Damaged
from regraft.core.sealed import read_frame, write_table
from regraft.core.statistics import evidence_of_harm
from regraft.photos.dataset import Dataset
from regraft.photos.groups import groups_of_digests, hashed_given_groups
from regraft.production.training_data import Reference, Seen

FILE = "new_photos.parquet"
ALARM = 20.0  # e-value from which on nothing is promoted by itself: by chance with at most 5 % of anchors
COLUMNS = {
    "champion": "str",  # SHA-256 of the model that was in production
    "predecessor": "str",  # that of the anchor; in older rows that of any model before
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
    """What the new photos say of production and the anchor so far."""

    photos: int
    b: int  # that only the anchor names rightly
    c: int  # that only the model in production names rightly
    anchor: str  # its SHA-256

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
        said = (
            f"Of {self.photos} new photos since {self.anchor[:12]} is the anchor {self.b} are named rightly only by "
            f"it, {self.c} only by what was in production (e-value {e}; {ALARM:g} is an alarm)."
        )
        return f"{said} `regraft promote --rollback --to {self.anchor[:12]}` is advised." if self.is_alarm else said

    def figures(self) -> dict[str, Any]:
        """Return the figures for gate.json."""
        e = self.e_value if math.isfinite(self.e_value) else None
        return {"photos": self.photos, "b": self.b, "c": self.c, "e_value": e, "is_alarm": self.is_alarm}


def select_new(
    dataset: Dataset, groups: pd.DataFrame, references: Sequence[Reference], scored: pd.DataFrame
) -> Dataset:
    """Return the photos that neither of two models' records has, one per group, without those that were scored.

    Args:
        dataset: today's photos of all splits.
        groups: of today's photos the columns digest and group, and given_group where it is known, from the manifest.
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
    """Return rows of `COLUMNS`.

    Args:
        photos: that were shown to both models.
        groups: as for `select_new`.
        models: SHA-256 of the model in production and of the anchor.
        right: whether each of the two is right, bool, shape (n,).
    """
    digests = photos.rows.digest.tolist()
    return pd.DataFrame(
        {
            "champion": models[0],
            "predecessor": models[1],
            "digest": digests,
            "group": groups_of_digests(digests, groups),
            "label": photos.rows.class_name.tolist(),
            "champion_right": right[0],
            "predecessor_right": right[1],
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        columns=list(COLUMNS),
    ).astype(COLUMNS)


def evidence_of(rows: pd.DataFrame, anchor: str) -> Evidence:
    """Return what rows of one anchor say together."""
    only_before = rows.predecessor_right & ~rows.champion_right
    only_now = rows.champion_right & ~rows.predecessor_right
    return Evidence(len(rows), int(only_before.sum()), int(only_now.sum()), anchor)


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
    """Write the record; the caller holds the lock of production (`regraft.production.exclusive`)."""
    write_table(folder / FILE, rows.reset_index(drop=True))


def of_anchor(rows: pd.DataFrame, anchor: str, since: Iterable[str]) -> pd.DataFrame:
    """Return the rows about an anchor and the models that were in production since it is one."""
    return rows[(rows.predecessor == anchor) & rows.champion.isin(list(since))]
