"""reports/scores.json: what was scored, what it looks like, and whether it has drifted."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from regraft.files import finite
from regraft.intervals import Interval, wilson
from regraft.production.scores.seen_drift import SeenDrift, Trained

_DAYS = 14  # days of which the report has a line
_LISTED = 100  # bad files, and photos to look at, that the report names
_TO_LOOK_AT = ("path", "sha256", "class", "label", "probability", "novelty")


@dataclass(frozen=True, slots=True)
class Counts:
    """What one run found and did."""

    photos: int  # that are there and scored
    new: int  # whose content no run had seen before
    computed: int  # that the model was run on
    unsure: int
    novel: int | None  # None of a model that does not say
    bad: int  # files that should be photos and cannot be read
    skipped: int  # files that nobody meant as photos
    gone: int  # photos that are gone and whose rows are kept


def count(scores: pd.DataFrame, at: datetime, *, computed: int, skipped: int) -> Counts:
    """Count what the table says; `at` is when the run began, which is when its new photos were first seen."""
    there = scores[scores.gone_at.isna()]
    good = there[there.error.isna()]
    return Counts(
        photos=len(good),
        new=int((good.first_seen == pd.Timestamp(at)).sum()),
        computed=computed,
        unsure=int(good.unsure.sum()),
        novel=None if good.novel.isna().any() else int(good.novel.sum()),
        bad=len(there) - len(good),
        skipped=skipped,
        gone=len(scores) - len(there),
    )


def summarise(
    scores: pd.DataFrame, recent: pd.DataFrame, counts: Counts, drift: SeenDrift, trained: Trained
) -> dict[str, Any]:
    """Return the report, JSON-able, without the model's name and the statistics.

    Args:
        scores: the whole table.
        recent: the photos that are compared, from `latest_photos`.
        counts: from `count`.
        drift: of `recent`.
        trained: how production was made.
    """
    bad = scores[scores.error.notna() & scores.gone_at.isna()]
    by = ["novelty", "probability"] if recent.novelty.notna().any() else ["probability"]
    odd = recent[recent.gone_at.isna()].sort_values(by, ascending=[name == "probability" for name in by])
    odd = odd.drop_duplicates("group")
    report = {
        "counts": {name: getattr(counts, name) for name in Counts.__dataclass_fields__},
        "drift": drift.as_report(),
        "unsure": _interval(wilson(int(recent.unsure.sum()), len(recent))),
        "novel": None if recent.novel.isna().any() else _interval(wilson(int(recent.novel.sum()), len(recent))),
        "classes": _classes(recent, trained),
        "days": _days(scores[scores.error.isna()]),
        "bad": bad[["path", "error"]].head(_LISTED).to_dict("records"),
        "to_look_at": odd[list(_TO_LOOK_AT)].head(_LISTED).astype(object).to_dict("records"),
    }
    return finite(_plain(report))


def _classes(recent: pd.DataFrame, trained: Trained) -> list[dict[str, Any]]:
    """Photos per class, as the model names them, beside what it was trained on."""
    now = recent.label.value_counts()
    then = trained.reference.rows.label.value_counts() if trained.reference else pd.Series(dtype=int)
    named = recent.label[~recent.unsure.astype(bool)].value_counts()
    return [
        {
            "class": name,
            "photos": int(now.get(name, 0)),
            "answered": int(named.get(name, 0)),
            "share": float(now.get(name, 0)) / max(1, len(recent)),
            "trained_share": float(then.get(name, 0)) / then.sum() if then.sum() else None,
        }
        for name in sorted({*now.index, *then.index}, key=lambda name: (-now.get(name, 0), name))
    ]


def _days(scores: pd.DataFrame) -> list[dict[str, Any]]:
    """Photos by the day on which they came in, the last days only."""
    once = scores.sort_values("first_seen", kind="stable").drop_duplicates("sha256")
    days = once.groupby(once.first_seen.dt.date)
    return [
        {
            "day": str(day),
            "photos": len(rows),
            "unsure": int(rows.unsure.sum()),
            "novel": None if rows.novel.isna().any() else int(rows.novel.sum()),
        }
        for day, rows in list(days)[-_DAYS:]
    ]


def _interval(interval: Interval) -> dict[str, float]:
    return {"share": interval.value, "low": interval.low, "high": interval.high}


def _plain(value: Any) -> Any:
    """Turn what pandas calls missing into None, whatever it is in."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if pd.isna(value) else value.item() if hasattr(value, "item") else value
