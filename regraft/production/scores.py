"""Scores: the table of predictions for photos without labels, one row per photo, as Parquet.

A row belongs to a path and the content that was found there. While the photo is there, its row has the predictions of
the model in production. When it is gone the row stays as it was for some days, so that a folder may be emptied every
evening. Columns `p:<class>` hold the probabilities; a class that the row's model does not know is missing. Photos may
vanish at any moment; predictions are stored, so a content is computed once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, NotImplemented, RuntimeException

from regraft.core.errors import Damaged, InvalidData
from regraft.core.files import reading
from regraft.core.sealed import read_table, write_table
from regraft.export.classifier import OnnxClassifier, answers_of
from regraft.photos.dataset import COLUMNS as PHOTO_COLUMNS
from regraft.photos.dataset import Dataset
from regraft.photos.images import Threads
from regraft.photos.incoming import Incoming
from regraft.photos.scan_facts import FileFacts
from regraft.store.namespace import Namespace
from regraft.store.shards import key_of

CLASS = "p:"  # begins the name of a column of probabilities
COLUMNS = {
    "path": "str",  # relative to the folder, with forward slashes
    "sha256": "str",  # of the file's bytes; missing if it cannot be read
    "class": "str",  # as in `regraft predict`; missing where the model is unsure
    "probability": "float32",  # the largest one, also where the class is missing
    "unsure": "boolean",  # whether it is below the threshold that is in the model's metadata
    "novelty": "float32",  # 1 - cosine to the nearest class prototype; missing of a model without that output
    "novel": "boolean",  # whether that is above `novelty_above` of the file
    "error": "str",  # why the photo is not scored; missing of one that is
    "model": "str",  # SHA-256 of the model.onnx
    "first_seen": "datetime64[us, UTC]",  # by the run that first found this content
    "scored_at": "datetime64[us, UTC]",  # by the run that first scored it with this model
    "gone_at": "datetime64[us, UTC]",  # by the first run that missed it; missing while it is there
    "width": "Int32",
    "height": "Int32",
    "brightness": "float64",  # this and the next three as in the manifest (regraft/photos/manifest.py)
    "contrast": "float64",
    "sharpness": "float64",
    "entropy": "float64",
    "phash": "str",
}
_STATISTICS = list(COLUMNS)[-7:]
_TOGETHER = 1024  # photos that become one shard of the store
_LONGEST = 200  # letters of an error
# Of one photo, and no reason to skip the others: it was moved or replaced, or the engine fails on it.
_OF_PHOTO = (InvalidData, OSError, ValueError, Fail, InvalidArgument, NotImplemented, RuntimeException)


def read_scores(path: Path) -> pd.DataFrame:
    """Return the scores in a file; an empty table where there is none, Damaged where it is no such table."""
    try:
        table = read_table(path)
        with reading(path, "scores of photos"):
            if table.column_names[: len(COLUMNS)] != list(COLUMNS):
                raise ValueError(f"the columns {', '.join(table.column_names)[:200]}")
            return _typed(table.to_pandas())
    except FileNotFoundError:
        return _typed(pd.DataFrame(columns=list(COLUMNS)))
    except Damaged as error:
        words = str(error).partition(" Delete it")[0]
        advice = "Move it away and run the same command again: all photos that are there come back."
        raise Damaged(f"{words} {advice}") from None


def write_scores(path: Path, scores: pd.DataFrame) -> None:
    """Write scores, replacing the file whole; equal tables are equal files."""
    write_table(path, as_arrow(scores))


def as_arrow(scores: pd.DataFrame) -> pa.Table:
    """Return scores as they are written."""
    return pa.Table.from_pandas(scores, preserve_index=False).replace_schema_metadata(None)


def class_columns(scores: pd.DataFrame) -> list[str]:
    """Return the classes of which there are probabilities, in the order of the columns."""
    return [str(name).removeprefix(CLASS) for name in scores.columns if str(name).startswith(CLASS)]


def build_rows(rows: list[dict[str, object]], class_names: list[str]) -> pd.DataFrame:
    """Return rows of today's photos as a table; keys that are not there are missing values."""
    return _typed(pd.DataFrame(rows, columns=[*COLUMNS, *(CLASS + name for name in class_names)]))


def merge(former: pd.DataFrame, today: pd.DataFrame, at: datetime, keep_days: float) -> pd.DataFrame:
    """Return today's rows with their times, and after them those of photos that are gone.

    Args:
        former: the scores so far.
        today: of all photos that are there, from `build_rows`, without times.
        at: when this run began, UTC.
        keep_days: how long the row of a photo stays after it was found to be gone.
    """
    now, key = pd.Timestamp(at), ["path", "sha256"]
    seen = former[former.sha256.notna()]
    first = seen.groupby("sha256").first_seen.min().to_dict() if len(seen) else {}
    first_of_path = dict(zip(former.path, former.first_seen, strict=True))
    by_model = {(row.sha256, row.model): row.scored_at for row in seen[seen.error.isna()].itertuples()}
    today = today.assign(
        first_seen=[
            first.get(digest, now) if isinstance(digest, str) else first_of_path.get(path, now)
            for path, digest in zip(today.path, today.sha256, strict=True)
        ],
        scored_at=[
            pd.NaT if isinstance(row.error, str) else by_model.get((row.sha256, row.model), now)
            for row in today.itertuples()
        ],
    )
    there = set(zip(today.path, today.sha256.fillna(""), strict=True))
    is_there = [each in there for each in zip(former.path, former.sha256.fillna(""), strict=True)]
    gone = former[~np.array(is_there, bool) & former.error.isna().to_numpy()]
    gone = gone.assign(gone_at=gone.gone_at.fillna(now))
    gone = gone[gone.gone_at > now - timedelta(days=keep_days)]
    parts = [part.sort_values(key, kind="stable") for part in (today, gone) if len(part)]
    merged = pd.concat(parts, ignore_index=True) if parts else today
    used = [name for name in merged.columns if name in today.columns or merged[name].notna().any()]
    return _typed(merged[[*COLUMNS, *(name for name in used if name not in COLUMNS)]])


def _typed(scores: pd.DataFrame) -> pd.DataFrame:
    return scores.astype(COLUMNS | {name: "float32" for name in scores.columns if str(name).startswith(CLASS)})


@dataclass(frozen=True, slots=True)
class Scored:
    """The rows of a run, and its counts."""

    rows: pd.DataFrame  # one per photo, and per file that should be one and cannot be read; from `build_rows`
    computed: int  # photos that the model was run on
    skipped: int  # files in the folder that are not meant as photos


def score(
    incoming: Incoming,
    facts: Mapping[str, FileFacts],
    classifier: OnnxClassifier,
    threads: Threads,
    stored: Namespace,
) -> Scored:
    """Return a row per photo; only predictions that are not stored are computed.

    Args:
        incoming: the photos.
        facts: metadata of each file, from `scan`.
        classifier: the model in production.
        threads: that decode and run; told how many photos are done, and to do.
        stored: from `regraft.export.classifier.open_said`.
    """
    meant = [path for path in incoming.paths if facts[path].meant_as_image or incoming.is_named]
    problems = dict(incoming.refused)
    problems |= {
        path: facts[path].problem or "not an image"
        for path in meant
        if facts[path].problem or not facts[path].meant_as_image
    }
    rows = [(facts[path].digest, path, "", 0, "test", facts[path].format) for path in meant if path not in problems]
    photos = Dataset(pd.DataFrame(rows, columns=list(PHOTO_COLUMNS)).astype(PHOTO_COLUMNS), [], incoming.folder)
    computed, lost = _fill(photos, classifier, threads, stored)
    is_lost = photos.rows.digest.isin(list(lost))
    problems |= {row.path: lost[row.digest] for row in photos.rows[is_lost].itertuples()}
    table: list[dict[str, Any]] = [
        {"path": path, "sha256": (facts[path].digest or None) if path in facts else None, "error": words}
        for path, words in problems.items()
    ]
    if not is_lost.all():
        there = photos.with_rows(photos.rows[~is_lost])
        predictions = answers_of(
            classifier, there, replace(threads, on_progress=lambda done, total: None), stored=stored
        )
        novelty = [None] * len(there) if predictions.novelty is None else predictions.novelty.tolist()
        can_be_novel = predictions.novelty is not None and classifier.novel_above is not None
        for path, probabilities, new in zip(there.rows.path, predictions.probabilities, novelty, strict=True):
            class_name = classifier.class_of(probabilities)
            table.append(
                {
                    "path": path,
                    "sha256": facts[path].digest,
                    "class": class_name,
                    "probability": probabilities.max(),
                    "unsure": class_name is None,
                    "novelty": new,
                    "novel": classifier.is_novel(new) if can_be_novel else None,
                    "model": classifier.digest,
                    **{name: getattr(facts[path], name) for name in _STATISTICS},
                    **{CLASS + name: each for name, each in zip(classifier.class_names, probabilities, strict=True)},
                }
            )
    return Scored(build_rows(table, classifier.class_names), computed, len(incoming.paths) - len(meant))


def _fill(
    photos: Dataset, classifier: OnnxClassifier, threads: Threads, stored: Namespace
) -> tuple[int, dict[str, str]]:
    """Store the missing predictions; return how many that were, and by digest why a photo has none.

    A photo that fails is found by bisection, and costs no other photo its predictions.
    """
    keys = [key_of(source) for source in photos.sources()]
    missing = set(stored.missing(keys))
    rows = photos.rows[[key in missing for key in keys]].drop_duplicates("digest")
    parts, done, lost = [rows.iloc[start : start + _TOGETHER] for start in range(0, len(rows), _TOGETHER)], 0, {}
    while parts:
        part, before = parts.pop(0), done + len(lost)

        def on_progress(count: int, total: int, before: int = before) -> None:
            threads.on_progress(before + count, len(rows))

        try:
            answers_of(classifier, photos.with_rows(part), replace(threads, on_progress=on_progress), stored=stored)
            done += len(part)
        except _OF_PHOTO as error:
            stored.flush()  # predictions from before the failure are not computed again
            if len(part) == 1:
                lost[part.digest.iloc[0]] = " ".join(str(error).split())[:_LONGEST]
            else:
                parts = [part.iloc[: len(part) // 2], part.iloc[len(part) // 2 :], *parts]
    return done, lost
