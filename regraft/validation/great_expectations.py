"""Great Expectations as Regraft uses it: expectations are checked against tables, and results become a report."""

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock, Thread
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from regraft.core.errors import InvalidData
from regraft.core.setting_types import Severity

_NAMED = 50  # offenders that a report names; their number is always whole
_POSITION = "position"  # of an expectation among those about one table
_PARTNERS = 6  # of those that belong together, named in one line
# Column of an expectation: column whose equal values say which offenders are named together.
_TOGETHER = {"copy_of": "digest", "conflict": "digest", "splits_of_group": "group"}
_TOGETHER |= dict.fromkeys(["files_of_group", "labels_of_group"], "near_group")
_OF_LABELS = {"conflict", "labels_of_group"}  # columns whose offenders are named with their labels
_LOADING = Lock()  # held by the thread that imports; what it hides of other modules is back when it is free


@dataclass(frozen=True, slots=True)
class Expectation:
    """One expectation, with the words that a person reads."""

    name: str
    table: str  # a key of `regraft.validation.checks.build_tables`
    expected: str
    advice: str
    type: str  # as Great Expectations calls it
    arguments: dict[str, Any]
    severity: Severity = "warn"
    unusual: float | None = None  # robust standard deviations that a value beyond the limit must be from the median too
    source: str = ""  # file and position
    note: str = ""  # how many values are beyond the limit and usual in this folder

    @property
    def columns(self) -> list[str]:
        """The columns that it is about."""
        single = [self.arguments[name] for name in ("column", "column_A", "column_B") if name in self.arguments]
        return [*single, *self.arguments.get("column_list", [])]


def check(tables: dict[str, pd.DataFrame], expectations: Sequence[Expectation]) -> list[dict[str, Any]]:
    """Check expectations against tables.

    Args:
        tables: by name. The column `what` names a row for a person; `path`, where there is one, is its file.
        expectations: each about one of the tables.

    Returns:
        JSON-able: one entry per rule, in their order.

    Raises:
        InvalidData: an expectation cannot be checked.
    """
    gx = load_engine()
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    # Without these defaults it makes a temporary folder for a web page and leaves it behind.
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(), progress_bars=ProgressBarsConfig(globally=False)
    )
    context = gx.get_context(mode="ephemeral", project_config=config)
    source = context.data_sources.add_pandas("manifest")
    results = {}
    for name in dict.fromkeys(each.table for each in expectations):
        of_table = [each for each in expectations if each.table == name]
        # It hashes every value that it is given, and looks an offender up slowly if it is more than a number.
        _refuse_missing_columns(of_table, tables[name])
        columns = list(dict.fromkeys(column for each in of_table for column in each.columns))
        checked = tables[name][columns].reset_index(drop=True)
        batch = (
            source.add_dataframe_asset(name)
            .add_batch_definition_whole_dataframe(name)
            .get_batch({"dataframe": checked})
        )
        # All at once: it hashes the whole table before each call, and computes a figure once for all that need it.
        suite = gx.ExpectationSuite(name, [as_expectation(each, number) for number, each in enumerate(of_table)])
        for result in batch.validate(suite, result_format="COMPLETE").results:
            expectation = of_table[result.expectation_config.meta[_POSITION]]
            results[id(expectation)] = _entry(expectation, result, tables[name])
    return [results[id(each)] for each in expectations]


def as_expectation(expectation: Expectation, position: int = 0) -> Any:
    """Return Great Expectations' own object, which checks the arguments; results come in its order."""
    load_engine()
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
    from great_expectations.expectations.metadata_types import FailureSeverity

    severity = FailureSeverity({"error": "critical", "warn": "warning", "note": "info"}[expectation.severity])
    return ExpectationConfiguration(
        type=expectation.type, kwargs=expectation.arguments, severity=severity, meta={_POSITION: position}
    ).to_domain_obj()


def load_engine() -> Any:
    """Import Great Expectations, which takes a second or two."""
    # It reports every start over the network otherwise; read when it is imported.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with _LOADING, _absent("sqlalchemy", "boto3"), _imported_later("altair", "scipy.stats"):
        return importlib.import_module("great_expectations")


def begin_to_load_engine() -> None:
    """Let a thread import Great Expectations while files are read; whoever needs it waits for what is left."""
    Thread(target=load_engine, name="great_expectations").start()


class _Later(ModuleType):
    """Stands for a module until something of it is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def _imported_later(*names: str) -> Iterator[None]:
    """Let whoever imports one of these modules import it only when something of it is used.

    Great Expectations imports them for two kinds of expectations and their charts, which the shipped suite does not
    use, and spends 1.0 s of its 2.5 s on that.
    """
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update((name, _Later(name)) for name in absent)
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


@contextmanager
def _absent(*names: str) -> Iterator[None]:
    """Let whoever imports one of these modules find that it is not installed.

    Great Expectations does without those of databases and buckets, which we never give it: a quarter of its import.
    """
    absent = [name for name in names if name not in sys.modules]
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(absent))  # None stands for a module that is not there
    try:
        yield
    finally:
        for name in absent:
            del modules[name]


def _entry(expectation: Expectation, result: Any, table: pd.DataFrame) -> dict[str, Any]:
    """One entry of the report from one result of Great Expectations about a table."""
    problem = _problem(result.exception_info)
    if problem:
        raise InvalidData(
            f"{expectation.source}: {expectation.type} cannot be checked with these arguments: {problem}. Fix it."
        )
    details = result.result
    rows = table.iloc[details.get("unexpected_index_list") or []]
    together = _TOGETHER.get(expectation.columns[0]) if expectation.columns else None
    if together:  # side by side
        rows = rows.iloc[np.argsort(pd.factorize(rows[together])[0], kind="stable")]
    found = f"{details.get('unexpected_count')} of {details.get('element_count')}"
    if "observed_value" in details:
        value = details["observed_value"]
        if value is None:  # where sets of values are compared
            value = "these values" if result.success else "other values"
        found = f"{value:.4g}" if isinstance(value, float) else str(value)
    return {
        "name": expectation.name,
        "severity": expectation.severity,
        "success": bool(result.success),
        "expected": expectation.expected,
        "found": found,
        "count": len(rows),
        "offenders": _side_by_side(rows, expectation.columns[0]) if together else rows.what.head(_NAMED).tolist(),
        "paths": rows.path.head(_NAMED).tolist() if "path" in rows else [],
        "advice": expectation.advice,
        "note": expectation.note,
    }


def _refuse_missing_columns(expectations: Sequence[Expectation], table: pd.DataFrame) -> None:
    for each in expectations:
        if missing := [column for column in each.columns if column not in table]:
            raise InvalidData(
                f"{each.source}: the table {each.table} has no column {', '.join(missing)}. It has: "
                f"{', '.join(map(str, table))}. Fix the name."
            )


def _side_by_side(rows: pd.DataFrame, column: str) -> list[str]:
    """The paths of each group of offenders as one line: a.jpg = b.jpg, with their labels where these are the matter."""
    lines = []
    names = rows.path + (" (" + rows.label.fillna("no label") + ")" if column in _OF_LABELS else "")
    for _, paths in names.groupby(rows[_TOGETHER[column]], sort=False):
        more = f" and {len(paths) - _PARTNERS} more" if len(paths) > _PARTNERS else ""
        lines.append(" = ".join(paths.head(_PARTNERS)) + more)
        if len(lines) == _NAMED:
            break
    return lines


def _problem(exception_info: dict[str, Any]) -> str | None:
    """What went wrong while checking: of the whole expectation, or of one of the figures that it needs."""
    for info in (exception_info, *exception_info.values()):
        if isinstance(info, dict) and info.get("raised_exception"):
            return " ".join(str(info.get("exception_message")).split())
    return None
