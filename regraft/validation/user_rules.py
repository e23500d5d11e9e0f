"""A user's own expectations: JSON files in the form in which Great Expectations keeps a suite.

Nothing in such a file is run: types are looked up in Great Expectations' registry, and what it would evaluate
(conditions, parameters), fetch (schemas) or query (databases) is refused. `expectations/README.md` tells users how to
write one.
"""

import json
from collections.abc import Iterable, Set
from pathlib import Path
from typing import Any

from regraft.core.config import Severity
from regraft.core.errors import InvalidData
from regraft.photos.manifest import COLUMNS
from regraft.validation.great_expectations import as_expectation, load_engine
from regraft.validation.rule_table import Rule

TABLES = {
    "images": [*COLUMNS, "shorter_side", "aspect_ratio"],
    "classes": ["label", "images", "times_smaller"],
}
_SEVERITIES: dict[str, Severity] = {"critical": "error", "warning": "warn", "info": "note"}
_OF_A_SUITE = {"name", "id", "expectations", "meta", "notes", "suite_parameters"}
_OF_AN_EXPECTATION = {"type", "kwargs", "severity", "notes", "meta", "description", "id", "rendered_content"}
_OF_META = {"table", "name"}
# Fields of every expectation that are no arguments: they stand beside kwargs, are ours to set, or would be evaluated.
_NO_ARGUMENTS = _OF_AN_EXPECTATION | {"result_format", "catch_exceptions", "windows", "batch_id", "library_metadata"}
_NO_ARGUMENTS |= {"row_condition", "condition_parser"}
_ROW_COUNTS = {"expect_table_row_count_to_be_between", "expect_table_row_count_to_equal"}


def read_expectations(folder: Path) -> list[Rule]:
    """Return the expectations of all JSON files in a folder, ordered by file name; none if there is no such folder.

    Raises:
        InvalidData: a file is no suite, or holds an expectation that cannot be checked; the message says what to fix.
    """
    rules = []
    for path in sorted(folder.glob("*.json")):
        for position, entry in enumerate(_entries(path), 1):
            source = f"{path}, expectation {position}"
            try:
                rules.append(_rule(entry, f"{path.stem} {position}", path, source))
            except ValueError as error:
                raise InvalidData(f"{source}: {error}") from None
    return rules


def _entries(path: Path) -> list[Any]:
    try:
        contents = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        _check_keys(contents, "the file", _OF_A_SUITE, needed={"expectations"})
    except (OSError, ValueError, RecursionError) as error:  # of which JSON's and Unicode's own errors are kinds
        raise InvalidData(
            f"{path} is no suite of expectations: {error}. {path.parent}/README.md has an example."
        ) from None
    if not isinstance(contents["expectations"], list):
        raise InvalidData(f"{path}: expectations must be a list. Found: {_short(contents['expectations'])}.")
    return contents["expectations"]


def _rule(entry: Any, name: str, path: Path, source: str) -> Rule:
    """Turn one entry into a rule, or raise ValueError saying what is wrong with it."""
    _check_keys(entry, "the expectation", _OF_AN_EXPECTATION, needed={"type", "kwargs"})
    meta, kind, arguments = entry.get("meta") or {}, entry["type"], entry["kwargs"]
    _check_keys(meta, "meta", _OF_META)
    _check_choice(kind, "type", _usable_types())
    _check_keys(arguments, "kwargs", _arguments_of(kind))
    if "$PARAMETER" in json.dumps(arguments):
        raise ValueError("kwargs must hold values. Found: a $PARAMETER, which is not evaluated here. Write its value.")
    table, severity = meta.get("table", "images"), entry.get("severity", "critical")
    _check_choice(table, "meta.table", TABLES)
    _check_choice(severity, "severity", _SEVERITIES)
    rule = Rule(
        name=str(meta.get("name", name)),
        table=table,
        severity=_SEVERITIES[severity],
        expected=_words(entry),
        advice=f"Fix the photos, or change {path}.",
        type=kind,
        arguments=arguments,
        source=source,
    )
    _check_values(rule)
    unknown = [column for column in rule.columns if column not in TABLES[table]]
    if unknown:
        raise ValueError(
            f"the table {table} has no column {', '.join(unknown)}. It has: {', '.join(TABLES[table])}. Fix the name."
        )
    return rule


def _usable_types() -> list[str]:
    """The types of expectations that can be checked on a table in memory, and that run and fetch nothing."""
    load_engine()
    from great_expectations.expectations import expectation as bases
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

    of_columns = (
        bases.ColumnMapExpectation,
        bases.ColumnPairMapExpectation,
        bases.MulticolumnMapExpectation,
        bases.ColumnAggregateExpectation,
    )

    def is_usable(name: str) -> bool:
        # Patterns of SQL are for databases; a JSON schema may name another one in the network.
        foreign = "like_pattern" in name or "json_schema" in name
        return name in _ROW_COUNTS or (issubclass(get_expectation_impl(name), of_columns) and not foreign)

    return sorted(filter(is_usable, list_registered_expectation_implementations()))


def _arguments_of(kind: str) -> set[str]:
    from great_expectations.expectations.registry import get_expectation_impl

    fields: Any = get_expectation_impl(kind).__fields__  # of pydantic 1, inside Great Expectations
    return set(fields) - _NO_ARGUMENTS


def _check_values(rule: Rule) -> None:
    try:
        as_expectation(rule)
    except ValueError as error:
        # Its own text names classes that a user does not know.
        problems = getattr(error, "errors", list)() or [{"loc": ("kwargs",), "msg": str(error)}]
        words = "; ".join(f"{problem['loc'][0]}: {problem['msg']}" for problem in problems)
        raise ValueError(f"kwargs of {rule.type} are wrong ({words}). Found: {_short(rule.arguments)}.") from None


def _check_keys(value: Any, what: str, allowed: Set[str], needed: Set[str] = frozenset()) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be an object in braces. Found: {_short(value)}")
    missing, unknown = sorted(needed - value.keys()), sorted(value.keys() - allowed)
    if missing:
        raise ValueError(f"{what} has no {' and no '.join(missing)}. Add it")
    if unknown:
        raise ValueError(
            f"{what} must have no other keys than {', '.join(sorted(allowed))}. Found: {', '.join(unknown)}"
        )


def _check_choice(value: Any, what: str, choices: Iterable[str]) -> None:
    if value not in list(choices):
        raise ValueError(f"{what} must be one of: {', '.join(choices)}. Found: {_short(value)}.")


def _words(entry: dict[str, Any]) -> str:
    """What is expected, as the user said it, or as the type says it."""
    notes = entry.get("notes") or entry.get("description")
    if isinstance(notes, list):
        notes = " ".join(map(str, notes))
    arguments = ", ".join(f"{name}={_short(value)}" for name, value in entry["kwargs"].items() if name != "column")
    column = entry["kwargs"].get("column", "")
    return str(notes or f"{column} {entry['type'].removeprefix('expect_').replace('_', ' ')} ({arguments})".strip())


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
