"""Beside the stages: predictions of the model in production for photos without labels, as a table and a report.

Reads score.photos, of unchanged files their times only, and models/production; writes build/scores.parquet, and
scores.json, scores.md and scores.html in reports/. Like production these are state and no output of DVC: they depend on
the day.
"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core.config import Params
from regraft.core.errors import Damaged, RegraftError, some
from regraft.core.files import finite, read_json, sha256_of, write_json, write_text
from tasks.progress import Progress
from tasks.step import Outcome

if TYPE_CHECKING:
    import pandas as pd

    from regraft.export.classifier import OnnxClassifier
    from regraft.photos.decoder import DecodeLimits
    from regraft.production.prediction_drift import Trained

REPORT = "scores.json"  # in reports/
OUTPUT = Path("build/scores.parquet")
_LISTED = 100  # bad files, and photos to look at, that the report names
_TO_LOOK_AT = ["path", "sha256", "class", "label", "probability", "novelty"]
_NOTHING_SET = (
    "score.photos in params.yaml is null. Set it to a folder of photos, or to a table with a column `path`, and the "
    "model in production scores those that are new every day."
)


@dataclass(frozen=True, slots=True)
class Said:
    """How a run ended."""

    words: str
    warnings: tuple[str, ...] = ()
    is_new: bool = True  # False: there was nothing to do
    pages: tuple[tuple[str, str], ...] = ()  # Markdown by key


def outcome_of(said: Said) -> Outcome:
    """Return the final state of a run."""
    if not said.is_new:
        return Outcome("Nothing to score", said.words)
    return Outcome("Scored with warnings" if said.warnings else "Scored", said.words)


def nothing_to_score(params: Params) -> Said | None:
    """Return how a run ends for which no photos are set; else None."""
    return Said(_NOTHING_SET, is_new=False) if params.score.photos is None else None


def score_photos(params: Params, progress: Progress, at: datetime) -> Said:
    """Run the model in production on all photos that it has not seen.

    Args:
        params: all settings.
        progress: is told how many files are read, and how many photos are done.
        at: when this run began, UTC.

    Raises:
        RegraftError: there are no such photos, or no sound model in production.
    """
    if params.score.photos is None:
        return Said(_NOTHING_SET, is_new=False)
    from regraft.export.classifier import open_said
    from regraft.photos.images import Threads
    from regraft.photos.incoming import find_incoming
    from regraft.photos.known import Learning
    from regraft.photos.scan import scan
    from regraft.production.prediction_drift import latest_photos
    from regraft.production.scores import as_arrow, merge, read_scores, score, write_scores
    from regraft.reports.scores_page import tiles_of, write_scores_pages
    from regraft.reports.sources import PHOTOS
    from regraft.store.leases import store_in_use
    from tasks.chosen_cluster import chosen_readers

    classifier, incoming = _production(params), find_incoming(params.score.photos)
    former, workers = read_scores(OUTPUT), params.machine.workers
    found = scan(
        incoming.folder,
        incoming.paths,
        limits=_limits(params),
        threads=Threads(workers, progress("files")),
        cache=params.paths.store / "scores_scan.parquet",
        learning=Learning(readers=chosen_readers(params, know=False)),
    )
    with store_in_use(params.paths.store, None):
        stored = open_said(params.paths.store, classifier)
        facts = dict(found.items(incoming.paths))
        scored = score(incoming, facts, classifier, Threads(workers, progress("photos")), stored)
    scores = merge(former, scored.rows, at, params.score.keep_days)
    counts = _counts(scores, at) | {"computed": scored.computed, "skipped": scored.skipped}
    if as_arrow(scores).equals(as_arrow(former)) and (params.paths.reports / REPORT).exists():
        words = f"all {counts['photos'] + counts['bad']:,} files in {params.score.photos} were scored before."
        return Said(words, is_new=False)
    write_scores(OUTPUT, scores)
    recent = latest_photos(scores, classifier.digest, at, params.validate_data.max_hash_distance)
    report = _report(params, _trained(params, classifier), scores, recent, counts)
    report |= {"at": f"{at:%Y-%m-%d %H:%M} UTC", "model": classifier.digest}
    tiles = tiles_of(report, incoming.folder, PHOTOS, Threads(workers), _limits(params))
    pages = write_scores_pages(params.paths.reports, report, tiles)
    write_text(params.paths.reports / "scores.md", "\n\n".join(pages.values()) + "\n")
    write_json(params.paths.reports / REPORT, finite(report))  # last: it says that all is done
    # The drift of photos that a run before has reported is no news.
    warnings = report["drift"]["warnings"] if counts["new"] else ()
    return Said(report["words"], tuple(warnings), pages=tuple(pages.items()))


def _production(params: Params) -> "OnnxClassifier":
    """Return the model in production; RegraftError if there is no sound one."""
    from regraft.production.records import Records, load_former

    records = Records(params.paths.production)
    standing = records.standing()
    if standing.digest is None and not standing.problem:
        raise RegraftError(
            f"no model is in production: there is no {records.model}. Run `regraft retrain`, which puts one there."
        )
    classifier, problem = (None, standing.problem) if standing.problem else load_former(records.model)
    if classifier is None:
        raise RegraftError(f"{problem} Put a sound model there: `regraft promote --rollback`.")
    return classifier


def _trained(params: Params, model: "OnnxClassifier") -> "Trained":
    from regraft.production.prediction_drift import Trained
    from regraft.production.records import Records

    reference, words = Records(params.paths.production).find_reference()
    try:
        # The report is that of the last model that was exported, which may be another one.
        is_same = sha256_of(params.paths.onnx) == model.digest
        found = read_json(params.paths.reports / "abstention.json", "images", "answered")
        unsure = (found["images"] - found["answered"], found["images"]) if is_same else None
    except (OSError, Damaged):
        unsure = None
    return Trained(reference, words, unsure, None if model.novel_photos is None else int(model.novel_photos))


def _counts(scores: "pd.DataFrame", at: datetime) -> dict[str, Any]:
    there = scores[scores.gone_at.isna()]
    good = there[there.error.isna()]
    return {
        "photos": len(good),  # that are there and scored
        "new": int((good.first_seen == at).sum()),  # whose content no run had seen before
        "unsure": int(good.unsure.sum()),
        "novel": None if good.novel.isna().any() else int(good.novel.sum()),  # None: the model cannot tell
        "bad": len(there) - len(good),  # files that should be photos and cannot be read
        "gone": len(scores) - len(there),  # whose rows are kept
    }


def _report(
    params: Params, trained: "Trained", scores: "pd.DataFrame", recent: "pd.DataFrame", counts: dict[str, Any]
) -> dict[str, Any]:
    """Return the contents of reports/scores.json."""
    from regraft.production.prediction_drift import measure_drift

    drift, severity = measure_drift(recent, trained), params.score.drift
    warnings = drift.moved if severity in ("warn", "error") else []
    bad = scores[scores.error.notna() & scores.gone_at.isna()][["path", "error"]]
    by = ["novelty", "probability"] if recent.novelty.notna().any() else ["probability"]
    odd = recent[recent.gone_at.isna()].sort_values(by, ascending=[name == "probability" for name in by])
    figures = [asdict(figure) | {"has_moved": figure.has_moved} for figure in drift.figures]
    return {
        "since": f"{recent.first_seen.min():%Y-%m-%d %H:%M} UTC" if len(recent) else None,
        "folder": str(params.score.photos),
        "output": str(OUTPUT),
        "words": _words(params, bad, counts, warnings),
        "counts": counts,
        "drift": {
            **asdict(drift),
            "compared_with": trained.words,
            "figures": figures if severity != "off" else [],
            "warnings": warnings,
        },
        "classes": {str(name): int(count) for name, count in recent.label.value_counts().items()},
        "bad": _records(bad.head(_LISTED)),
        "to_look_at": _records(odd.drop_duplicates("group")[_TO_LOOK_AT].head(_LISTED)),
    }


def _words(params: Params, bad: "pd.DataFrame", counts: dict[str, Any], warnings: list[str]) -> str:
    novel = "" if counts["novel"] is None else f", and {counts['novel']:,} are novel"
    sentences = [
        f"{counts['new']:,} of {counts['photos']:,} photos in {params.score.photos} are new; the model was run on "
        f"{counts['computed']:,}.",
        f"Of {counts['unsure']:,} it is unsure{novel}.",
    ]
    if len(bad):
        named = some([f"{path}: {error}" for path, error in zip(bad.path, bad.error, strict=True)], 3)
        sentences.append(f"{counts['bad']:,} cannot be scored ({named}).")
    if warnings:
        sentences.append(f"The latest photos are not what production was trained on: {some(warnings, 3)}.")
    return " ".join(sentences)


def _records(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Return rows as plain values, missing ones as None."""
    return json.loads(table.to_json(orient="records"))


def _limits(params: Params) -> "DecodeLimits":
    from regraft.photos.decoder import DecodeLimits

    return DecodeLimits(params.validate_data.max_pixels, params.validate_data.max_seconds)
