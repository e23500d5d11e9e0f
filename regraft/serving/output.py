"""Rows as people and programs read them: a table, JSON lines, CSV."""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, Literal, get_args

from regraft.core.errors import printable, shown
from regraft.core.files import replacing
from regraft.serving.predicting import Row

Format = Literal["table", "jsonl", "csv"]
FORMATS: tuple[Format, ...] = get_args(Format)
Write = Callable[[Row], None]
_DIGITS = 6  # of probabilities and novelty in text; float32 has seven


@contextmanager
def open_writer(
    form: Format, path: Path | None, *, class_names: Sequence[str], top: int, has_novelty: bool
) -> Iterator[Write]:
    """Yield a function that writes a row; a file gets its name when all are written.

    Args:
        form: what is written.
        path: of the file; None is standard output.
        class_names: of the model.
        top: classes of a row.
        has_novelty: whether the model has that output; a table leaves the column out otherwise.

    Raises:
        RegraftError: the file cannot be written.
    """
    with replacing(path) if path else nullcontext() as temporary, _text(temporary) as file:
        if form == "jsonl":
            yield partial(_write_json, file)
        elif form == "csv":
            yield _csv_rows(file, top)
        else:
            yield _table_rows(file, class_names, has_novelty)


def columns(top: int) -> list[str]:
    """Return the columns of CSV."""
    ranked = [f"{what}_{rank}" for rank in range(1, top + 1) for what in ("class", "probability")]
    return ["path", "class", "probability", "unsure", "novelty", "novel", *ranked, "error"]


@contextmanager
def _text(path: Path | None) -> Iterator[IO[str]]:
    """Yield a file, or standard output, for text in UTF-8; what is no text is written as a number."""
    if path is not None:
        with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            yield file
        return
    # Each row at once: whoever reads them from a pipe has not to wait for the last one.
    text = TextIOWrapper(sys.stdout.buffer, "utf-8", "backslashreplace", newline="", line_buffering=True)
    try:
        yield text
    finally:
        text.detach()  # which flushes, and leaves standard output open


def _write_json(file: IO[str], row: Row) -> None:
    facts = {
        "path": row.path,
        "class": row.class_name,
        "probability": _rounded(row.probability),
        "unsure": row.is_unsure,
        "novelty": _rounded(row.novelty),
        "novel": row.is_novel,
        "top": [{"class": name, "probability": _rounded(probability)} for name, probability in row.top],
        "error": row.error,
    }
    file.write(json.dumps(facts, ensure_ascii=False) + "\n")


def _csv_rows(file: IO[str], top: int) -> Write:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns(top))
    return lambda row: writer.writerow(map(_cell, _values(row, top)))


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.{_DIGITS}f}"
    return "" if value is None else shown(value)


def _values(row: Row, top: int) -> list[Any]:
    """Return a row's values in the order of `columns`."""
    ranked = [value for pair in row.top for value in pair]
    ranked += [None] * (2 * top - len(ranked))
    start = [row.path, row.class_name, row.probability, row.is_unsure, row.novelty, row.is_novel]
    return [*start, *ranked, row.error]


def _table_rows(file: IO[str], class_names: Sequence[str], has_novelty: bool) -> Write:
    width = max(len("unsure"), *(len(printable(name)) for name in class_names))
    file.write(f"{'class':{width}}  probability  {'novelty  ' if has_novelty else ''}photo\n")

    def write(row: Row) -> None:
        named = "-" if row.error else "unsure" if row.is_unsure else printable(row.class_name or "")
        probability = "" if row.probability is None else f"{row.probability:.4f}"
        novelty = "" if row.novelty is None else f"{row.novelty:.3f}{'!' if row.is_novel else ' '}"
        cells = f"{named:{width}}  {probability:>11}  {f'{novelty:>7}  ' if has_novelty else ''}"
        file.write(f"{cells}{printable(row.path)}{_remark(row)}\n")

    return write


def _remark(row: Row) -> str:
    if row.error:
        return f": {printable(row.error)}"
    others = row.top if row.is_unsure else row.top[1:]
    words = ", ".join(f"{printable(name)} {probability:.4f}" for name, probability in others)
    return f"  ({words})" if words else ""


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)
