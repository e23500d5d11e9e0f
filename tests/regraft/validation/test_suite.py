import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from regraft.core.errors import InvalidData
from regraft.core.params_file import load_params
from regraft.photos.manifest import COLUMNS
from regraft.validation.checks import build_tables, validate
from regraft.validation.great_expectations import load_engine
from regraft.validation.suite import TABLES, check_suite, read_suites
from tests.support.suite import SHIPPED, suite_with

SETTINGS = load_params(Path(__file__).parents[3] / "params.yaml").validate_data
BETWEEN = "expect_column_values_to_be_between"
IN_SET = "expect_column_values_to_be_in_set"
BRIGHT = {"type": BETWEEN, "kwargs": {"column": "brightness", "min_value": 0.5}}

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function that writes a suite of the given expectations and returns its folder."""

    def write(*expectations: object, name: str = "mine", **changes: object) -> Path:
        (tmp_path / f"{name}.json").write_text(json.dumps({"expectations": list(expectations)} | changes))
        return tmp_path

    return write


def manifest() -> pd.DataFrame:
    """Twelve photos of cats and twelve of dogs that become brighter, from 0 to 1."""
    rows = [
        {
            "path": f"{label}/{number}.jpg",
            "label": label,
            "verdict": "use",
            "digest": f"{label}{number}",
            "bytes": number,
        }
        | {"format": "JPEG", "mode": "RGB", "width": 640, "height": 480, "brightness": number / 11, "phash": "0" * 16}
        for label in ("cat", "dog")
        for number in range(12)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).assign(conflict=False).astype(COLUMNS)


def found(folder: Path) -> list[dict[str, Any]]:
    """What came of the expectations in a folder."""
    return validate("classes", manifest(), SETTINGS, read_suites(folder))["expectations"][:-1]


def test_a_users_own_expectation_is_reported_with_its_files(write):
    (entry,) = found(write(BRIGHT | {"notes": "photos of the day", "severity": "warning"}))
    assert (entry["name"], entry["severity"], entry["success"]) == ("mine 1", "warn", False)
    assert (entry["expected"], entry["found"]) == ("photos of the day", "12 of 24")
    assert (entry["offenders"][0], entry["paths"][-1]) == ("cat/0.jpg", "dog/5.jpg")


@pytest.mark.parametrize(
    ("severity", "expected"),
    [
        ({}, "error"),
        ({"severity": "critical"}, "error"),
        ({"severity": "warning"}, "warn"),
        ({"severity": "info"}, "note"),
    ],
)
def test_what_is_critical_stops_the_run_and_the_rest_is_reported(write, severity, expected):
    assert [each.severity for each in read_suites(write(BRIGHT | severity))] == [expected]


def test_the_tables_have_the_columns_that_users_are_told(root):
    tables = build_tables(manifest(), SETTINGS.model_copy(update={"classes": ("cat",)}), {"production": manifest()})
    tables["images"]["odd"] = False
    readme = (root / "expectations" / "README.md").read_text()
    for name, columns in TABLES.items():
        assert set(columns) <= set(tables[name])
        assert [word for word in (name, *columns) if f"`{word}`" not in readme] == []


def test_the_shipped_suite_is_in_the_form_of_great_expectations():
    check_suite(suite_with({}))
    gx = load_engine()
    suite = json.loads(SHIPPED.read_text())
    assert len(gx.ExpectationSuite(**suite).expectations) == len(suite["expectations"])


def test_a_name_can_be_taken_once_only(write):
    with pytest.raises(InvalidData, match=r"mine\.json, expectation 2: the name bright is taken"):
        read_suites(write(*[BRIGHT | {"meta": {"name": "bright"}}] * 2))


def test_the_example_for_users_is_a_suite(root, write, tmp_path):
    text = (root / "expectations" / "README.md").read_text()
    (tmp_path / "example.json").write_text(text.partition("```json\n")[2].partition("```")[0])
    assert [(entry["name"], entry["success"]) for entry in found(tmp_path)] == [
        ("example 1", True),
        ("example 2", False),
        ("fifty_of_each", False),
    ]


@pytest.mark.parametrize(
    ("kind", "arguments", "success"),
    [
        ("expect_column_mean_to_be_between", {"column": "brightness", "min_value": 0.4, "max_value": 0.6}, True),
        ("expect_column_distinct_values_to_be_in_set", {"column": "label", "value_set": ["cat"]}, False),
        ("expect_column_unique_value_count_to_be_between", {"column": "label", "min_value": 2}, True),
        ("expect_column_values_to_match_regex", {"column": "path", "regex": "^cat/"}, False),
        ("expect_column_pair_values_a_to_be_greater_than_b", {"column_A": "width", "column_B": "height"}, True),
        ("expect_compound_columns_to_be_unique", {"column_list": ["label", "bytes"]}, True),
        ("expect_table_row_count_to_be_between", {"min_value": 100}, False),
        (
            "expect_column_quantile_values_to_be_between",
            {"column": "brightness", "quantile_ranges": {"quantiles": [0.5], "value_ranges": [[0.4, 0.6]]}},
            True,
        ),
    ],
)
def test_expectations_of_every_kind_are_checked(write, kind, arguments, success):
    assert [entry["success"] for entry in found(write({"type": kind, "kwargs": arguments}))] == [success]


def test_an_expectation_that_needs_scipy_works_although_it_is_imported_later(root, write):
    # In a process of its own, because something else may have imported scipy.stats in this one.
    uniform = {"bins": [0, 0.5, 1], "weights": [0.5, 0.5]}
    kwargs = {"column": "brightness", "partition_object": uniform, "threshold": 0.1}
    folder = write({"type": "expect_column_kl_divergence_to_be_less_than", "kwargs": kwargs})
    code = f"""
import sys
sys.path[:0] = [{str(Path(__file__).parent)!r}]
from pathlib import Path
from test_suite import SETTINGS, found, manifest, validate
validate("classes", manifest(), SETTINGS, [])
assert "scipy.stats" not in sys.modules
assert [entry["success"] for entry in found(Path({str(folder)!r}))] == [True]
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


# What cannot be read or checked.


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", r"mine\.json is no suite of expectations: .*line 1.*README\.md has an example"),
        (b"\xff", r"mine\.json is no suite of expectations: .*utf-8"),
        (b"[]", r"mine\.json is no suite of expectations: the file must be an object in braces\. Found: \[\]"),
        (b"{}", r"mine\.json is no suite of expectations: the file has no expectations"),
        (b'{"expectations": {}}', r"mine\.json: expectations must be a list\. Found: \{\}"),
        (b'{"expectations": [], "expectation": 1}', r"no other keys than .*Found: expectation"),
        (b'{"expectations": [NaN]}', r"mine\.json is no suite of expectations: NaN is not JSON"),
    ],
)
def test_a_file_that_is_no_suite_is_named(tmp_path, text, words):
    (tmp_path / "mine.json").write_bytes(text)
    with pytest.raises(InvalidData, match=words):
        read_suites(tmp_path)


@pytest.mark.parametrize(
    ("expectation", "words"),
    [
        (1, r"the expectation must be an object in braces\. Found: 1"),
        ({"type": BETWEEN}, r"the expectation has no kwargs"),
        (BRIGHT | {"kind": 1}, r"no other keys than .*Found: kind"),
        (BRIGHT | {"kwargs": [1]}, r"kwargs must be an object in braces"),
        (BRIGHT | {"severity": "bad"}, r'severity must be one of: critical, warning, info\. Found: "bad"'),
        (BRIGHT | {"severity": ["bad"]}, r"severity must be one of"),
        (BRIGHT | {"meta": {"table": "labels"}}, r'meta\.table must be one of: images, classes, .*Found: "labels"'),
        (
            BRIGHT | {"meta": {"tabel": 1}},
            r"meta must have no other keys than advice, name, table, unusual\. Found: tabel",
        ),
        (BRIGHT | {"meta": {"unusual": 0}}, r"meta\.unusual must be a number above 0\. Found: 0"),
        (
            {"type": IN_SET, "kwargs": {"column": "mode", "value_set": ["L"]}, "meta": {"unusual": 3}},
            r"meta\.unusual is for expect_column_values_to_be_between",
        ),
        (
            {"type": BETWEEN, "kwargs": {"column": "label", "min_value": 3}, "meta": {"unusual": 3}},
            r"meta\.unusual is for .*of one of the columns brightness",
        ),
        (BRIGHT | {"type": "expect_beauty"}, rf'type must be one of: .*{BETWEEN}.*Found: "expect_beauty"'),
        (BRIGHT | {"type": 5}, r"type must be one of: .*Found: 5"),
        (
            {"type": BETWEEN, "kwargs": {"column": "colour", "min_value": 1}},
            r"images has no column colour\. It has: path, label, .*entropy",
        ),
        (
            {"type": BETWEEN, "kwargs": {"column": "path", "min_value": 1}, "meta": {"table": "classes"}},
            r"classes has no column path\. It has: label, images, times_smaller",
        ),
        (
            {"type": "expect_compound_columns_to_be_unique", "kwargs": {"column_list": ["path", "x", "y"]}},
            r"images has no column x, y\.",
        ),
        ({"type": "expect_compound_columns_to_be_unique", "kwargs": {"column_list": "path"}}, r"column_list"),
        ({"type": BETWEEN, "kwargs": {"column": ["path"], "min_value": 1}}, r"wrong \(column: str type expected\)"),
        ({"type": BETWEEN, "kwargs": {"column": "bytes", "least": 1}}, r"no other keys than column, .*Found: least"),
        ({"type": IN_SET, "kwargs": {"column": "mode"}}, r"wrong \(value_set: field required\)"),
        (
            {"type": IN_SET, "kwargs": {"column": "mode", "value_set": 5}},
            r"wrong \(value_set: value is not a valid list",
        ),
        ({"type": BETWEEN, "kwargs": {"min_value": 5}}, r"wrong \(column: field required\)"),
        ({"type": BETWEEN, "kwargs": {"column": "bytes"}}, r"min_value and max_value cannot both be None"),
    ],
)
def test_an_expectation_that_cannot_be_checked_is_named_by_file_and_position(write, expectation, words):
    with pytest.raises(InvalidData, match=rf"mine\.json, expectation 2: .*{words}"):
        found(write(BRIGHT, expectation))


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        ("expect_column_values_to_match_regex", {"column": "path", "regex": "("}, "unterminated subpattern|missing"),
        ("expect_column_mean_to_be_between", {"column": "label", "min_value": 1}, "mean"),
        (BETWEEN, {"column": "label", "min_value": 1}, "same type"),
    ],
)
def test_arguments_that_do_not_fit_the_values_are_told_after_the_check(write, kind, arguments, words):
    with pytest.raises(InvalidData, match=rf"mine\.json, expectation 1: .*cannot be checked .*({words})"):
        found(write({"type": kind, "kwargs": arguments}))


@pytest.mark.parametrize(
    "expectation",
    [
        BRIGHT | {"kwargs": BRIGHT["kwargs"] | {"row_condition": "@pd.io.common.os.system('touch ran')"}},
        BRIGHT | {"kwargs": BRIGHT["kwargs"] | {"condition_parser": "pandas"}},
        {"type": BETWEEN, "kwargs": {"column": "bytes", "min_value": {"$PARAMETER": "now()"}}},
        {"type": "unexpected_rows_expectation", "kwargs": {"unexpected_rows_query": "SELECT 1"}},
        {"type": "expect_query_results_to_match_comparison", "kwargs": {"base_query": "SELECT 1"}},
        {"type": "expect_column_values_to_match_json_schema", "kwargs": {"column": "path", "json_schema": {}}},
        {"type": "expect_table_row_count_to_equal_other_table", "kwargs": {"other_table_name": "x"}},
    ],
    ids=["condition", "parser", "parameter", "rows by SQL", "comparison by SQL", "schema", "other table"],
)
def test_what_would_be_evaluated_fetched_or_queried_is_refused(write, expectation):
    with pytest.raises(InvalidData, match=r"mine\.json, expectation 1: (type must be one of|kwargs must)"):
        check_suite(read_suites(write(expectation)))
