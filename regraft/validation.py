"""Expectations about the manifest, checked by Great Expectations.

Two tables are checked: the files that were meant as images (one row each), and the classes (one row each). An
expectation of severity `error` stops the run, one of severity `warn` is reported.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal

import pandas as pd

from regraft.config import ValidateData

_NAMED = 50  # offenders that a report names; their number is always whole


@dataclass(frozen=True, slots=True)
class Rule:
    """One expectation, with the words that a person reads."""

    name: str
    table: Literal["images", "classes", "usable_classes"]
    severity: Literal["error", "warn"]
    expected: str
    advice: str
    type: str  # of the expectation, as Great Expectations calls it
    arguments: dict[str, Any] = field(default_factory=dict)


def build_rules(settings: ValidateData) -> list[Rule]:
    """Return the suite that the section `validate_data` of params.yaml asks for."""
    readable = settings.max_quarantined_share
    return [
        Rule(
            "some_images",
            "images",
            "error",
            "at least one file that is an image",
            "Put photos into the data folder, one folder per class.",
            "expect_table_row_count_to_be_between",
            {"min_value": 1},
        ),
        Rule(
            "two_classes",
            "usable_classes",
            "error",
            "at least two classes with usable images",
            "Add a folder of photos for each further class.",
            "expect_table_row_count_to_be_between",
            {"min_value": 2},
        ),
        Rule(
            "readable_images",
            "images",
            "error",
            f"at most {readable:.1%} of the images unusable",
            "Replace or remove the files that validation.json names, or raise validate_data.max_quarantined_share.",
            "expect_column_values_to_be_in_set",
            {"column": "verdict", "value_set": ["use"], "mostly": 1 - readable},
        ),
        Rule(
            "enough_images_per_class",
            "classes",
            "error",
            f"at least {settings.min_images_per_class} usable images in every class",
            "Add images of these classes, remove the classes, or lower validate_data.min_images_per_class.",
            "expect_column_values_to_be_between",
            {"column": "images", "min_value": settings.min_images_per_class},
        ),
        Rule(
            "balanced_classes",
            "classes",
            "warn",
            f"no class more than {settings.max_imbalance:g} times smaller than the largest",
            "Figures of small classes are uncertain; add images of them if you can.",
            "expect_column_values_to_be_between",
            {"column": "times_smaller", "max_value": settings.max_imbalance},
        ),
        Rule(
            "large_enough_images",
            "images",
            "warn",
            f"a shorter side of at least {settings.min_side} pixels",
            "Tiny images are enlarged, which adds no detail.",
            "expect_column_values_to_be_between",
            {"column": "shorter_side", "min_value": settings.min_side},
        ),
        Rule(
            "no_copies",
            "images",
            "warn",
            "every file only once",
            "Copies under one label count once; they are harmless.",
            "expect_column_values_to_be_unique",
            {"column": "digest"},
        ),
        Rule(
            "one_label_per_image",
            "images",
            "warn",
            "no file under two labels",
            "Decide which label is right and remove the other copy.",
            "expect_column_values_to_be_between",
            {"column": "labels_of_file", "max_value": 1},
        ),
    ]


def validate(layout: str, manifest: pd.DataFrame, settings: ValidateData) -> dict[str, Any]:
    """Check the manifest and return reports/validation.json.

    Args:
        layout: of the data folder.
        manifest: from `build_manifest`.
        settings: thresholds.

    Returns:
        JSON-able: layout, counts per verdict and class, one entry per expectation with the offenders it found, and
        every quarantined or ignored file with its reason.
    """
    images, classes = _tables(manifest)
    usable = classes[classes.images > 0]
    results = _check({"images": images, "classes": classes, "usable_classes": usable}, build_rules(settings))
    verdicts = manifest.verdict.value_counts()
    unused = manifest[manifest.verdict != "use"]
    return {
        "success": all(result["success"] for result in results if result["severity"] == "error"),
        "layout": layout,
        "files": {verdict: int(verdicts.get(verdict, 0)) for verdict in ("use", "quarantine", "ignore")},
        "classes": dict(zip(classes.label.tolist(), classes.images.tolist(), strict=True)),
        "expectations": results,
        "not_used": unused[["path", "verdict", "reason"]].to_dict("records"),
    }


def problems_that_stop(report: dict[str, Any]) -> list[str]:
    """Return one line per violated expectation of severity error: expected, found, what to do."""
    lines = []
    for result in report["expectations"]:
        if result["severity"] == "error" and not result["success"]:
            offenders = "; ".join(result["offenders"][:5]) + ("; ..." if result["count"] > 5 else "")
            named = f" ({offenders})" if offenders else ""
            lines.append(f"  expected {result['expected']}. Found {result['found']}{named}. {result['advice']}")
    return lines


def _tables(manifest: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The two tables that expectations are about: images, and classes of usable images."""
    images = manifest[manifest.verdict != "ignore"].copy()
    images["shorter_side"] = images[["width", "height"]].min(axis=1).astype("Float64")
    # What could not be read is no copy of what else could not be read.
    images["digest"] = images.digest.mask(images.digest == "")
    images["labels_of_file"] = images.groupby("digest").label.transform("nunique")
    images["what"] = images.path + (": " + images.reason.fillna("")).where(images.reason.notna(), "")
    # Every class that somebody named, also one without a single image that can be used.
    counts = (images.verdict == "use").groupby(images.label).sum()
    classes = pd.DataFrame({"label": counts.index.astype(str), "images": counts.to_numpy(int)})
    classes["times_smaller"] = classes.images.max() / classes.images.where(classes.images > 0)
    classes["what"] = classes.label + ": " + classes.images.astype(str)
    return images, classes


def _check(tables: dict[str, pd.DataFrame], rules: list[Rule]) -> list[dict[str, Any]]:
    # It reports every start over the network otherwise; read when it is imported.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with _stand_ins("altair", "scipy.stats"):
        import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
    from great_expectations.expectations.metadata_types import FailureSeverity

    # Without these defaults it makes a temporary folder for a web page and leaves it behind.
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(), progress_bars=ProgressBarsConfig(globally=False)
    )
    context = gx.get_context(mode="ephemeral", project_config=config)
    source = context.data_sources.add_pandas("manifest")
    results = []
    for name, table in tables.items():
        of_table = [rule for rule in rules if rule.table == name]
        # It hashes every value that it is given, and looks an offender up slowly if it is more than a number.
        columns = [rule.arguments["column"] for rule in of_table if "column" in rule.arguments]
        checked = table[columns].reset_index(drop=True)
        batch = (
            source.add_dataframe_asset(name)
            .add_batch_definition_whole_dataframe(name)
            .get_batch({"dataframe": checked})
        )
        for rule in of_table:
            configuration = ExpectationConfiguration(
                type=rule.type,
                kwargs=rule.arguments,
                severity=FailureSeverity("critical" if rule.severity == "error" else "warning"),
            )
            result = batch.validate(configuration.to_domain_obj(), result_format="COMPLETE")
            results.append(_in_words(rule, result, table.what))
    order = {rule.name: position for position, rule in enumerate(rules)}
    return sorted(results, key=lambda result: order[result["name"]])


@contextmanager
def _stand_ins(*names: str) -> Iterator[None]:
    """Put an empty module in the place of each that is not loaded yet.

    Great Expectations imports them for two kinds of expectations and their charts, which no rule uses, and spends 1.0 s
    of its 2.5 s on that. Whoever imports them afterwards gets the real ones.
    """
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update((name, ModuleType(name)) for name in absent)
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def _in_words(rule: Rule, result: Any, names: pd.Series) -> dict[str, Any]:
    """One entry of the report from one result of Great Expectations; `names` are of the rows that it checked."""
    if result.exception_info.get("raised_exception"):
        raise RuntimeError(f"the expectation {rule.name} could not be checked: {result.exception_info}")
    details = result.result
    offenders = details.get("unexpected_index_list") or []
    if "observed_value" in details:
        found = str(details["observed_value"])
    else:
        found = f"{details['unexpected_count']} of {details['element_count']}"
    return {
        "name": rule.name,
        "severity": rule.severity,
        "success": bool(result.success),
        "expected": rule.expected,
        "found": found,
        "count": len(offenders),
        "offenders": names.iloc[offenders[:_NAMED]].tolist(),
        "advice": rule.advice,
    }
