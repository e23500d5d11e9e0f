"""CSV files that people open: names in them do nothing in a spreadsheet, in a terminal or in a page."""

from pathlib import Path
from typing import Any

import pandas as pd

from regraft.core.errors import name_of, shown
from regraft.core.files import reading, replacing


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table with its columns' names; texts are written as `shown` shows them."""
    table = table.map(lambda value: shown(value) if isinstance(value, str) else value)
    table.columns = [shown(str(name)) for name in table.columns]
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def read_csv(path: Path, columns: dict[str, Any], *, others: Any = None) -> pd.DataFrame:
    """Return what `write_csv` wrote.

    Args:
        path: of the file.
        columns: that it must begin with, in this order, and their types; those of type str are names, also where they
            are NA or 007. Floats may be missing.
        others: type of the columns that may follow; None where there may be none.

    Raises:
        FileNotFoundError: there is no such file.
        Damaged: it is no such table.
    """
    with reading(path, f"CSV with the columns {', '.join(columns)}"):
        # All is text first: what is no number must not pass for a missing one.
        table = pd.read_csv(path, dtype=str, keep_default_na=False, na_filter=False, lineterminator="\n")
        names = [name_of(name) for name in table.columns]
        table.columns = names
        if names[: len(columns)] != list(columns) or (others is None and len(names) > len(columns)):
            raise ValueError(f"the columns {', '.join(names)[:200]}")
        converted = {}
        for place, name in enumerate(names):
            kind, cells = (columns[name] if place < len(columns) else others), table.iloc[:, place]
            if kind is str:
                converted[place] = cells.map(name_of)
            elif kind is float:
                converted[place] = cells.replace("", "nan").astype(float)
            else:
                converted[place] = cells.astype(kind)
        result = pd.DataFrame(converted, index=table.index)
        result.columns = names
    return result
