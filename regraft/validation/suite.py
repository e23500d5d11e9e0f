"""The expectations about the photos: JSON files in the form in which Great Expectations keeps a suite.

expectations/photos.json comes with Regraft; users edit it and add files of their own (expectations/README.md). Nothing
in a file is run: types are looked up in Great Expectations' registry, and anything that it would evaluate (conditions),
fetch (schemas) or query (databases) is refused. `$PARAMETER` stands for two lists of classes only.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from regraft.core.errors import InvalidData
from regraft.core.setting_types import Severity
from regraft.photos.manifest import COLUMNS
from regraft.validation.drift import STATISTICS
from regraft.validation.great_expectations import Expectation, as_expectation, load_engine

_CLASSES = ["label", "images", "times_smaller"]
_OF_GROUPS = ["copy_of", "files_of_group", "labels_of_group", "splits_of_group"]
_DRIFT = ["quantity", "photos", "against", "psi", "limit"]
TABLES = {
    "images": [*COLUMNS, "shorter_side", "aspect_ratio", "readable", "suffix_is_right", "odd", *_OF_GROUPS],
    "classes": _CLASSES,
    "usable_classes": _CLASSES,
    "wanted_classes": ["label", "images"],
    "former_classes": ["label", "images"],
    "drift_of_classes": _DRIFT,
    "drift_of_new_classes": _DRIFT,
    "drift_of_statistics": _DRIFT,
}
PARAMETERS = ("classes", "former_classes")  # validate_data.classes; those of the model in production
_SEVERITIES: dict[str, Severity] = {"critical": "error", "warning": "warn", "info": "note"}
_OF_A_SUITE = {"name", "id", "expectations", "meta", "notes", "suite_parameters"}
_OF_AN_EXPECTATION = {"type", "kwargs", "severity", "notes", "meta", "description", "id", "rendered_content"}
_OF_META = {"table", "name", "unusual", "advice"}
# Fields of every expectation that are no arguments: they stand beside kwargs, are ours to set, or would be evaluated.
_NO_ARGUMENTS = _OF_AN_EXPECTATION | {"result_format", "catch_exceptions", "windows", "batch_id", "library_metadata"}
_NO_ARGUMENTS |= {"row_condition", "condition_parser"}
_ROW_COUNTS = {"expect_table_row_count_to_be_between", "expect_table_row_count_to_equal"}
_BETWEEN = "expect_column_values_to_be_between"
# A photo that is dropped, although one of its labels is right, is news; who keeps it has decided so.
_CONFLICTS: dict[str, tuple[Severity, str]] = {
    "drop": ("warn", "None of these files is used: decide which label is right and remove the other copies."),
    "keep": ("note", "All of these files are used: decide which label is right and remove the other copies."),
    "error": (
        "error",
        "Decide which label is right and remove the other copies, or change validate_data.on_label_conflict.",
    ),
}


def read_suites(folder: Path) -> list[Expectation]:
    """Read the expectations of all JSON files in a folder, ordered by file name; an empty list without the folder.

    The engine is not imported: `check_suite` looks at types and arguments.

    Raises:
        InvalidData: a file is not a suite; the message names the file, the expectation and what to fix.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        for position, entry in enumerate(_entries(path), 1):
            source = f"{path}, expectation {position}"
            try:
                found.append(_expectation(entry, f"{path.stem} {position}", path, source))
            except ValueError as error:
                raise InvalidData(f"{source}: {error}") from None
    names = [each.name for each in found]
    if twice := next((each for number, each in enumerate(found) if each.name in names[:number]), None):
        raise InvalidData(f"{twice.source}: the name {twice.name} is taken by an expectation before it. Rename one.")
    return found


def check_suite(expectations: Sequence[Expectation]) -> None:
    """Check types and arguments of expectations against Great Expectations.

    Raises:
        InvalidData: one cannot be checked; the message names its file, the expectation and what to fix.
    """
    usable = _usable_types()
    for each in expectations:
        try:
            _check_choice(each.type, "type", usable)
            _check_keys(each.arguments, "kwargs", _arguments_of(each.type))
            _check_values(each)
            unknown = [column for column in each.columns if column not in TABLES[each.table]]
            if unknown and not all(column.startswith("slice.") for column in unknown):
                raise ValueError(
                    f"the table {each.table} has no column {', '.join(unknown)}. It has: "
                    f"{', '.join(TABLES[each.table])}. Fix the name."
                )
        except ValueError as error:
            raise InvalidData(f"{each.source}: {error}") from None


def applicable(
    expectations: Sequence[Expectation], tables: Collection[str], parameters: Mapping[str, Sequence[str]]
) -> list[Expectation]:
    """Return the expectations that can be checked here, with the values of their parameters.

    Args:
        expectations: from `read_suites`.
        tables: names of those there are; without a model in production there are none about it, for instance.
        parameters: the lists of classes that are known, by the names of `PARAMETERS`.
    """
    found = []
    for each in expectations:
        asked = [_parameter_of(value) for value in each.arguments.values()]
        if each.table in tables and all(name is None or name in parameters for name in asked):
            filled = {
                key: value if name is None else list(parameters[name])
                for (key, value), name in zip(each.arguments.items(), asked, strict=True)
            }
            found.append(replace(each, arguments=filled))
    return found


def one_label_per_image(on_label_conflict: str) -> Expectation:
    """Return the expectation whose severity is that of the setting validate_data.on_label_conflict."""
    severity, advice = _CONFLICTS[on_label_conflict]
    return Expectation(
        name="one_label_per_image",
        table="images",
        expected="no file under two labels",
        advice=advice,
        type="expect_column_values_to_be_in_set",
        arguments={"column": "conflict", "value_set": [False]},
        severity=severity,
    )


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


def _expectation(entry: Any, name: str, path: Path, source: str) -> Expectation:
    """Turn one entry into an expectation, or raise ValueError with what is wrong."""
    _check_keys(entry, "the expectation", _OF_AN_EXPECTATION, needed={"type", "kwargs"})
    meta, kind, arguments = entry.get("meta") or {}, entry["type"], entry["kwargs"]
    _check_keys(meta, "meta", _OF_META)
    if not isinstance(arguments, dict):
        raise ValueError(f"kwargs must be an object in braces. Found: {_short(arguments)}")
    for value in arguments.values():
        if _parameter_of(value) is None and "$PARAMETER" in json.dumps(value):
            raise ValueError(
                f"kwargs must hold values. Found: {_short(value)}. A $PARAMETER is one of: {', '.join(PARAMETERS)}."
            )
    table, severity = meta.get("table", "images"), entry.get("severity", "critical")
    _check_choice(table, "meta.table", TABLES)
    _check_choice(severity, "severity", _SEVERITIES)
    return Expectation(
        name=str(meta.get("name", name)),
        table=table,
        severity=_SEVERITIES[severity],
        expected=_words(entry),
        advice=_joined(meta.get("advice")) or f"Fix the photos, or change {path}.",
        type=kind,
        arguments=arguments,
        unusual=_unusual(meta.get("unusual"), kind, table, arguments),
        source=source,
    )


def _unusual(value: Any, kind: Any, table: str, arguments: Mapping[str, Any]) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"meta.unusual must be a number above 0. Found: {_short(value)}.")
    limits = [arguments.get(key) for key in ("min_value", "max_value") if arguments.get(key) is not None]
    is_figure = table == "images" and arguments.get("column") in STATISTICS
    if kind != _BETWEEN or not is_figure or len(limits) != 1 or not isinstance(limits[0], int | float):
        raise ValueError(
            f"meta.unusual is for {_BETWEEN} with either min_value or max_value, of one of the columns "
            f"{', '.join(STATISTICS)} of images. Remove it."
        )
    return float(value)


def _parameter_of(value: Any) -> str | None:
    if isinstance(value, dict) and list(value) == ["$PARAMETER"] and value["$PARAMETER"] in PARAMETERS:
        return value["$PARAMETER"]
    return None


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


def _check_values(expectation: Expectation) -> None:
    arguments = {key: [] if _parameter_of(value) else value for key, value in expectation.arguments.items()}
    try:
        as_expectation(replace(expectation, arguments=arguments))
    except ValueError as error:
        # Its own text names classes that a user does not know.
        problems = getattr(error, "errors", list)() or [{"loc": ("kwargs",), "msg": str(error)}]
        words = "; ".join(f"{problem['loc'][0]}: {problem['msg']}" for problem in problems)
        raise ValueError(
            f"kwargs of {expectation.type} are wrong ({words}). Found: {_short(expectation.arguments)}."
        ) from None


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
    """The notes with the numbers that they name, or type and arguments where there are no notes."""
    arguments = entry["kwargs"]
    words = _joined(entry.get("notes") or entry.get("description"))
    if not words:
        given = ", ".join(f"{name}={_short(value)}" for name, value in arguments.items() if name != "column")
        kind = str(entry["type"]).removeprefix("expect_").replace("_", " ")
        return f"{arguments.get('column', '')} {kind} ({given})".strip()
    shown = {f"{{{name}}}": _short(value) for name, value in arguments.items()}
    if isinstance(mostly := arguments.get("mostly"), int | float):
        shown["{others}"] = f"{1 - mostly:.1%}"
    for name, value in shown.items():
        words = words.replace(name, value)
    return words


def _joined(text: Any) -> str:
    """Text, which may be a list of lines."""
    return " ".join(map(str, text)) if isinstance(text, list) else str(text or "")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
