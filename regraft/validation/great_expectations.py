"""Great Expectations, as far as Regraft needs it: rules are checked against tables, and results become a report."""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, Thread
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from regraft.core.errors import InvalidData
from regraft.validation.rule_table import Rule

_NAMED = 50  # offenders that a report names; their number is always whole
_POSITION = "position"  # of a rule among those about one table
_PARTNERS = 6  # of those that belong together, named in one line
_OF_LABELS = {"one_label_per_image", "one_label_per_group"}  # rules whose offenders are named with their labels
_LOADING = Lock()  # held by the thread that imports; what it hides of other modules is back when it is free


def check(tables: dict[str, pd.DataFrame], rules: list[Rule]) -> list[dict[str, Any]]:
    """Check rules against tables.

    Args:
        tables: by name. The column `what` names a row for a person; `path`, where there is one, is its file.
        rules: each about one of the tables.

    Returns:
        JSON-able: one entry per rule, in their order.

    Raises:
        InvalidData: an expectation that a user wrote cannot be checked.
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
    for name in dict.fromkeys(rule.table for rule in rules):
        of_table = [rule for rule in rules if rule.table == name]
        # It hashes every value that it is given, and looks an offender up slowly if it is more than a number.
        columns = list(dict.fromkeys(column for rule in of_table for column in rule.columns))
        checked = tables[name][columns].reset_index(drop=True)
        batch = (
            source.add_dataframe_asset(name)
            .add_batch_definition_whole_dataframe(name)
            .get_batch({"dataframe": checked})
        )
        # All at once: it hashes the whole table before each call, and uses a figure for every rule that needs it.
        suite = gx.ExpectationSuite(name, [as_expectation(rule, position) for position, rule in enumerate(of_table)])
        for result in batch.validate(suite, result_format="COMPLETE").results:
            rule = of_table[result.expectation_config.meta[_POSITION]]
            results[id(rule)] = _entry(rule, result, tables[name])
    return [results[id(rule)] for rule in rules]


def as_expectation(rule: Rule, position: int = 0) -> Any:
    """Return a rule as an object of Great Expectations, which checks the arguments; results come in its own order."""
    load_engine()
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
    from great_expectations.expectations.metadata_types import FailureSeverity

    severity = FailureSeverity({"error": "critical", "warn": "warning", "note": "info"}[rule.severity])
    return ExpectationConfiguration(
        type=rule.type, kwargs=rule.arguments, severity=severity, meta={_POSITION: position}
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

    Great Expectations imports them for two kinds of expectations and their charts, which none of our rules is of, and
    spends 1.0 s of its 2.5 s on that.
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


def _entry(rule: Rule, result: Any, table: pd.DataFrame) -> dict[str, Any]:
    """One entry of the report from one result of Great Expectations about a table."""
    problem = _problem(result.exception_info)
    if problem and rule.source:
        raise InvalidData(f"{rule.source}: {rule.type} cannot be checked with these arguments: {problem}. Fix it.")
    if problem:
        raise RuntimeError(f"the expectation {rule.name} could not be checked: {problem}")
    details = result.result
    rows = table.iloc[details.get("unexpected_index_list") or []]
    if rule.together:  # side by side
        rows = rows.iloc[np.argsort(pd.factorize(rows[rule.together])[0], kind="stable")]
    found = f"{details.get('unexpected_count')} of {details.get('element_count')}"
    if "observed_value" in details:
        value = details["observed_value"]
        if value is None:  # where sets of values are compared
            value = "these values" if result.success else "other values"
        found = f"{value:.4g}" if isinstance(value, float) else str(value)
    return {
        "name": rule.name,
        "severity": rule.severity,
        "success": bool(result.success),
        "expected": rule.expected,
        "found": found,
        "count": len(rows),
        "offenders": _together(rows, rule) if rule.together else rows.what.head(_NAMED).tolist(),
        "paths": rows.path.head(_NAMED).tolist() if "path" in rows else [],
        "advice": rule.advice,
        "note": rule.note,
    }


def _together(rows: pd.DataFrame, rule: Rule) -> list[str]:
    """The paths of each group of offenders as one line: a.jpg = b.jpg, with their labels where these are the matter."""
    lines = []
    names = rows.path + (" (" + rows.label.fillna("no label") + ")" if rule.name in _OF_LABELS else "")
    for _, paths in names.groupby(rows[rule.together], sort=False):
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
