"""Beside the stages: predictions of the model in production for photos without labels, as a table and a report.

Reads score.photos, of unchanged files their times only, and models/production; writes score.output, and scores.json,
scores.md and scores.html in reports/. Like production these are state and no output of DVC: they depend on the day.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
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
    from regraft.photos.incoming import Incoming
    from regraft.production.scores.prediction_drift import Trained

REPORT = "scores.json"  # in reports/
_NOTHING_SET = (
    "score.photos in params.yaml is null. Set it to a folder of photos, or to a table with a column `path`, and the "
    "model in production says every day what is on those that are new."
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


def nothing_to_score(params: Params, at: datetime) -> Said | None:
    """Say that there is nothing to do, if that can be seen without reading a photo; else None.

    Raises:
        RegraftError: there are no such photos, or no model in production.
    """
    if params.score.photos is None:
        return Said(_NOTHING_SET, is_new=False)
    from regraft.photos.incoming import find_incoming
    from regraft.photos.scan import recall
    from regraft.production.records import Records
    from regraft.production.scores.table import read_scores

    model = Records(params.paths.production).digest
    incoming = find_incoming(params.score.photos)
    facts = recall(incoming.folder, incoming.paths, limits=_limits(params), cache=_scan_file(params))
    if model is None or facts is None or not (params.paths.reports / REPORT).exists():
        return None
    scores = read_scores(params.score.output)
    there, gone = scores[scores.gone_at.isna()], scores[scores.gone_at.notna()]
    # A photo without a problem that was not scored was moved, or the disk failed: it is tried again.
    expected = {
        path: (found.digest, bool(found.problem) or not found.meant_as_image)
        for path, found in facts.items()
        if found.meant_as_image or incoming.is_named
    }
    expected |= dict.fromkeys(incoming.refused, ("", True))
    known = dict(zip(there.path, zip(there.sha256.fillna(""), there.error.notna(), strict=True), strict=True))
    is_kept = (gone.gone_at > at - timedelta(days=params.score.keep_days)).all()
    is_same = expected == known and set(there.model.dropna()) <= {model} and is_kept
    return _nothing_new(params, len(there)) if is_same else None


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
    from regraft.production.scores.inference import score
    from regraft.production.scores.prediction_drift import count
    from regraft.production.scores.table import as_arrow, merge, read_scores, write_scores
    from regraft.store.leases import store_in_use
    from tasks.chosen_cluster import chosen_readers

    classifier, incoming = _production(params), find_incoming(params.score.photos)
    former, workers = read_scores(params.score.output), params.machine.workers
    found = scan(
        incoming.folder,
        incoming.paths,
        limits=_limits(params),
        threads=Threads(workers, progress("files")),
        cache=_scan_file(params),
        learning=Learning(readers=chosen_readers(params, know=False)),
    )
    with store_in_use(params.paths.store, None):
        stored = open_said(params.paths.store, classifier)
        facts = dict(found.items(incoming.paths))
        scored = score(incoming, facts, classifier, Threads(workers, progress("photos")), stored)
    scores = merge(former, scored.rows, at, params.score.keep_days)
    counts = count(scores, at, computed=scored.computed, skipped=scored.skipped)
    if as_arrow(scores).equals(as_arrow(former)) and (params.paths.reports / REPORT).exists():
        return _nothing_new(params, counts["photos"] + counts["bad"])
    write_scores(params.score.output, scores)
    return _report(params, incoming, classifier, scores, counts, at)


def _production(params: Params) -> "OnnxClassifier":
    """Return the model in production; RegraftError if there is no sound one."""
    from regraft.production.gate.contestants import load_champion
    from regraft.production.records import Records

    records = Records(params.paths.production)
    standing = records.standing()
    if standing.digest is None and not standing.problem:
        raise RegraftError(
            f"no model is in production: there is no {records.model}. Run `regraft retrain`, which puts one there."
        )
    classifier, problem = (None, standing.problem) if standing.problem else load_champion(records.model)
    if classifier is None:
        raise RegraftError(f"{problem} Put a sound model there: `regraft promote --rollback`.")
    return classifier


def _trained(params: Params, model: "OnnxClassifier") -> "Trained":
    from regraft.production.records import Records
    from regraft.production.scores.prediction_drift import Trained

    reference, words = Records(params.paths.production).find_reference()
    try:
        # The report is that of the last model that was exported, which may be another one.
        is_same = sha256_of(params.paths.onnx) == model.digest
        found = read_json(params.paths.reports / "abstention.json", "images", "answered")
        unsure = (found["images"] - found["answered"], found["images"]) if is_same else None
    except (OSError, Damaged):
        unsure = None
    return Trained(reference, words, unsure, None if model.novel_photos is None else int(model.novel_photos))


def _report(
    params: Params,
    incoming: "Incoming",
    classifier: "OnnxClassifier",
    scores: "pd.DataFrame",
    counts: dict[str, Any],
    at: datetime,
) -> Said:
    from regraft.photos.images import Threads
    from regraft.production.scores.prediction_drift import latest_photos, measure_drift, summarise
    from regraft.reports.scores_page import tiles_of, write_scores_pages
    from regraft.reports.sources import PHOTOS
    from regraft.validation.drift import histograms, with_shape
    from regraft.validation.limits import USUAL_COLUMNS

    settings, trained = params.score, _trained(params, classifier)
    since, distance = at - timedelta(days=settings.drift_days), params.validate_data.max_hash_distance
    recent = latest_photos(scores, classifier.digest, since, settings.drift_photos, distance)
    drift = measure_drift(recent, trained, settings)
    no_limits = dict.fromkeys(USUAL_COLUMNS, (None, None))
    former = with_shape(trained.reference.rows) if trained.reference else None
    report: dict[str, Any] = {
        "at": f"{at:%Y-%m-%d %H:%M} UTC",
        "since": f"{recent.first_seen.min():%Y-%m-%d %H:%M} UTC" if len(recent) else None,
        "folder": str(settings.photos),
        "output": str(settings.output),
        "model": classifier.digest,
        "words": _words(params, scores, counts, drift.warnings),
        "counts": counts,
        "drift": drift.as_report(),
        **summarise(scores, recent, trained),
        "statistics": histograms(with_shape(recent), former, no_limits),
    }
    reports, threads = params.paths.reports, Threads(params.machine.workers)
    tiles = tiles_of(report, incoming.folder, PHOTOS, threads, _limits(params))
    pages = write_scores_pages(reports, report, tiles)
    write_text(reports / "scores.md", "\n\n".join(pages.values()) + "\n")
    write_json(reports / REPORT, finite(report))  # last: it says that all is done
    # The drift of photos that a run before has told of is no news.
    warnings = tuple(drift.warnings) if counts["new"] else ()
    return Said(report["words"], warnings, pages=tuple(pages.items()))


def _words(params: Params, scores: "pd.DataFrame", counts: dict[str, Any], warnings: list[str]) -> str:
    novel = "" if counts["novel"] is None else f", and {counts['novel']:,} are novel"
    sentences = [
        f"{counts['new']:,} of {counts['photos']:,} photos in {params.score.photos} are new; the model was run on "
        f"{counts['computed']:,}.",
        f"Of {counts['unsure']:,} it is unsure{novel}.",
    ]
    if counts["bad"]:
        bad = scores[scores.error.notna() & scores.gone_at.isna()]
        named = some([f"{path}: {error}" for path, error in zip(bad.path, bad.error, strict=True)], 3)
        sentences.append(f"{counts['bad']:,} cannot be scored ({named}).")
    if warnings:
        sentences.append(f"The latest photos are not what production was trained on: {some(warnings, 3)}.")
    return " ".join(sentences)


def _nothing_new(params: Params, files: int) -> Said:
    words = f"all {files:,} files in {params.score.photos} have been shown to the model in production before."
    return Said(words, is_new=False)


def _limits(params: Params) -> "DecodeLimits":
    from regraft.photos.decoder import DecodeLimits

    return DecodeLimits(params.validate_data.max_pixels, params.validate_data.max_seconds)


def _scan_file(params: Params) -> Path:
    return params.paths.store / "scores_scan.parquet"
