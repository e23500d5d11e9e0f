"""The table of scores: one row per photo, as Parquet.

A row belongs to a path and the content that was found there. While the photo is there its row says what the model in
production says. When it is gone the row stays as it was for some days, so that a folder may be emptied every evening.
Columns `p:<class>` hold the probabilities; of a class that the row's model does not know there is none.
"""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from regraft.core.errors import Damaged
from regraft.core.files import reading
from regraft.core.sealed import read_table, write_table

CLASS = "p:"  # begins the name of a column of probabilities
_TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    {
        "path": pa.string(),  # relative to the folder, with forward slashes
        "sha256": pa.string(),  # of the file's bytes; missing if it cannot be read
        "class": pa.string(),  # as `regraft predict` calls it; missing where the model is unsure
        "probability": pa.float32(),  # the largest one, also where the class is missing
        "unsure": pa.bool_(),  # whether it is below the threshold that is in the model's metadata
        "novelty": pa.float32(),  # 1 - cosine to the nearest class prototype; missing of a model without that output
        "novel": pa.bool_(),  # whether that is above `novelty_above` of the file
        "error": pa.string(),  # why the photo is not scored; missing of one that is
        "model": pa.string(),  # SHA-256 of the model.onnx that was asked
        "first_seen": _TIME,  # by the run that first found this content
        "scored_at": _TIME,  # by the run that first had this model say it
        "gone_at": _TIME,  # by the first run that did not find it any more; missing while it is there
        "width": pa.int32(),
        "height": pa.int32(),
        "brightness": pa.float64(),  # this and the next three as in the manifest (regraft/photos/manifest.py)
        "contrast": pa.float64(),
        "sharpness": pa.float64(),
        "entropy": pa.float64(),
        "phash": pa.string(),
    }
)
KINDS = {pa.string(): "str", pa.bool_(): "boolean", pa.int32(): "Int32", _TIME: "datetime64[us, UTC]"}
COLUMNS = {field.name: KINDS.get(field.type, str(field.type).replace("double", "float64")) for field in SCHEMA}
COLUMNS["probability"] = COLUMNS["novelty"] = "float32"


def read_scores(path: Path) -> pd.DataFrame:
    """Return what `write_scores` wrote; an empty table where there is no file.

    Raises:
        Damaged: there is another.
    """
    try:
        table = read_table(path)
        with reading(path, "scores of photos"):
            more = [name for name in table.column_names if name.startswith(CLASS)]
            if table.column_names != [*COLUMNS, *more]:
                raise ValueError(f"the columns {', '.join(table.column_names)[:200]}")
            return _typed(table.to_pandas())
    except FileNotFoundError:
        return _typed(pd.DataFrame(columns=list(COLUMNS)))
    except Damaged as error:
        words = str(error).partition(" Delete it")[0]
        raise Damaged(
            f"{words} Move it away and run the same command again: all photos that are there come back."
        ) from None


def write_scores(path: Path, scores: pd.DataFrame) -> None:
    """Write scores, replacing the file whole."""
    write_table(path, as_arrow(scores))


def as_arrow(scores: pd.DataFrame) -> pa.Table:
    """Return scores as they are written: equal tables are equal files."""
    classes = [pa.field(name, pa.float32()) for name in scores.columns if str(name).startswith(CLASS)]
    schema = pa.schema([*SCHEMA, *classes])
    table = pa.Table.from_pandas(scores[schema.names], schema=schema, preserve_index=False)
    return table.replace_schema_metadata(None)


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
    seen = former[former.sha256.notna()]
    first = dict(zip(seen.sha256, seen.first_seen, strict=True)) | _earliest(seen)
    first_of_path = dict(zip(former.path, former.first_seen, strict=True))
    by_model = {(row.sha256, row.model): row.scored_at for row in seen[seen.error.isna()].itertuples()}
    moment = pd.Timestamp(at)
    today = today.assign(
        first_seen=[
            first.get(digest, moment) if isinstance(digest, str) else first_of_path.get(path, moment)
            for path, digest in zip(today.path, today.sha256, strict=True)
        ],
        scored_at=[
            by_model.get((row.sha256, row.model), moment) if not isinstance(row.error, str) else pd.NaT
            for row in today.itertuples()
        ],
    )
    there = set(zip(today.path, today.sha256.fillna(""), strict=True))
    is_gone = [key not in there for key in zip(former.path, former.sha256.fillna(""), strict=True)]
    gone = former[np.array(is_gone, bool) & former.error.isna().to_numpy()]
    gone = gone.assign(gone_at=gone.gone_at.fillna(moment))
    gone = gone[gone.gone_at > moment - timedelta(days=keep_days)]
    parts = [part.sort_values(["path", "sha256"], kind="stable") for part in (today, gone) if len(part)]
    merged = pd.concat(parts, ignore_index=True) if parts else today
    used = [name for name in merged.columns if name in today.columns or merged[name].notna().any()]
    return _typed(merged[[*COLUMNS, *(name for name in used if name not in COLUMNS)]])


def class_columns(scores: pd.DataFrame) -> list[str]:
    """Return the classes of which there are probabilities, in the order of the columns."""
    return [str(name).removeprefix(CLASS) for name in scores.columns if str(name).startswith(CLASS)]


def _earliest(seen: pd.DataFrame) -> dict[str, pd.Timestamp]:
    return seen.groupby("sha256").first_seen.min().to_dict() if len(seen) else {}


def _typed(scores: pd.DataFrame) -> pd.DataFrame:
    classes = {name: "float32" for name in scores.columns if str(name).startswith(CLASS)}
    return scores.astype(COLUMNS | classes)
