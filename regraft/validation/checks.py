"""Expectations about the manifest: the tables that they are about, and the report of what was found.

An expectation of severity `error` stops the run, one of severity `warn` is a warning that the gate's verdict carries,
and what a `note` found stands in the report only. `suite` reads them from expectations/, `limits` calibrates them,
`great_expectations` lets Great Expectations check them.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from regraft.core.config import ValidateData
from regraft.core.sealed import release_memory
from regraft.photos.images import is_suffix_of
from regraft.validation.drift import drift_tables, histograms, with_shape
from regraft.validation.great_expectations import Expectation, check
from regraft.validation.limits import are_odd, calibrated, limits_by_column
from regraft.validation.suite import applicable, check_suite, one_label_per_image

References = Mapping[str, pd.DataFrame]
_FIGURES = ["brightness", "contrast", "sharpness", "entropy", "width", "height"]  # of which there are histograms


def validate(
    layout: str,
    manifest: pd.DataFrame,
    settings: ValidateData,
    expectations: Sequence[Expectation],
    *,
    references: References = MappingProxyType({}),
    compared_with: str = "",
) -> dict[str, Any]:
    """Check the manifest and return reports/validation.json.

    Args:
        layout: of the data folder.
        manifest: from `build_manifest`.
        settings: the classes that are expected, and what becomes of one file under two labels.
        expectations: from `regraft.validation.suite.read_suites`.
        references: the photos that models were trained on, from `regraft.production.training_data`: of the one in
            `production`, and of the `anchor`, if it is another one, because what
            moves a little every night shows only there. Without any, nothing is compared.
        compared_with: a sentence that says which models these are, or why there is nothing.

    Raises:
        InvalidData: an expectation cannot be checked.

    Returns:
        JSON-able: layout, counts per verdict and class, one entry per expectation with the offenders it found,
        histograms of the photos' statistics, how the photos have moved since the model in production, and every
        quarantined or ignored file with its reason.
    """
    former = references["production"] if references else None
    tables = build_tables(manifest, settings, references)
    check_suite(expectations)
    parameters = {} if settings.classes is None else {"classes": settings.classes}
    if former is not None:
        parameters["former_classes"] = tuple(sorted(former.label.unique()))
    suite = calibrated(tables["images"], applicable(expectations, tables, parameters))
    tables["images"]["odd"] = are_odd(tables["images"], suite)
    results = check(tables, [*suite, one_label_per_image(settings.on_label_conflict)])
    classes, verdicts = tables["classes"], manifest.verdict.value_counts()
    used = manifest.loc[manifest.verdict == "use", _FIGURES]
    unused = manifest.loc[manifest.verdict != "use", ["path", "verdict", "reason"]]
    former_shapes = None if former is None else with_shape(former)
    moved = [table.drop(columns="what") for name, table in tables.items() if name.startswith("drift_of_")]
    return {
        "success": all(result["success"] for result in results if result["severity"] == "error"),
        "layout": layout,
        "files": {verdict: int(verdicts.get(verdict, 0)) for verdict in ("use", "quarantine", "ignore")},
        "classes": dict(zip(classes.label.tolist(), classes.images.tolist(), strict=True)),
        "expectations": results,
        "compared_with": compared_with,
        "statistics": histograms(with_shape(used), former_shapes, limits_by_column(expectations)),
        "drift": [row for table in moved for row in table.to_dict("records")],
        "not_used": unused.to_dict("records"),
    }


def problems_that_stop(report: dict[str, Any]) -> list[str]:
    """Return one line per violated expectation of severity error: expected, found, what to do."""
    lines = []
    for result in report["expectations"]:
        if result["severity"] == "error" and not result["success"]:
            offenders = "; ".join(result["offenders"][:5]) + ("; ..." if len(result["offenders"]) > 5 else "")
            named = f" ({offenders})" if offenders else ""
            lines.append(f"  expected {result['expected']}. Found {result['found']}{named}. {result['advice']}")
    return lines


def named_files(report: dict[str, Any], manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of those offenders that a report names; Arrow keeps no memory of the others."""
    names = {path for result in report["expectations"] for path in result["paths"]}
    rows = manifest[manifest.path.isin(list(names))]
    release_memory()
    return rows


def warnings_of(report: dict[str, Any]) -> list[str]:
    """Return one short sentence per violated expectation of severity warn, what puts most in doubt first.

    Args:
        report: what reports/validation.json or reports/embeddings.json holds.
    """
    violated = [each for each in report["expectations"] if each["severity"] == "warn" and not each["success"]]
    violated.sort(key=lambda each: _WORST.index(each["name"]) if each["name"] in _WORST else len(_WORST))
    return [
        f"{each['name']} is violated: {each['found']}"
        + (f", such as {each['offenders'][0]}" if each["offenders"] else "")
        + "."
        for each in violated
    ]


# The test figures, then the labels, then what is photographed; what a user wrote comes last.
_WORST = ["no_vanished_classes", "no_leaks", "no_copies_across_splits", "one_label_per_image", "right_labels"]
_WORST += ["no_drift", "no_slow_drift", "statistics_as_before", "class_shares_as_before", "no_new_classes"]
_WORST += ["few_odd_images", "no_outliers"]


def build_tables(
    manifest: pd.DataFrame, settings: ValidateData, references: References = MappingProxyType({})
) -> dict[str, pd.DataFrame]:
    """Return the tables that expectations are about, by name; each has the words for a row in `what`.

    Args:
        manifest: from `build_manifest`.
        settings: the classes that are expected.
        references: the photos that models were trained on.
    """
    images = _images(manifest)
    # Every class that somebody named, also one without a single image that can be used.
    classes = _with_counts(images, sorted(images.label.dropna().unique()))
    classes["times_smaller"] = classes.images.max() / classes.images.where(classes.images > 0)
    tables = {"images": images, "classes": classes, "usable_classes": classes[classes.images > 0]}
    if settings.classes is not None:
        tables["wanted_classes"] = _with_counts(images, settings.classes)
    if references:
        tables["former_classes"] = _with_counts(images, sorted(references["production"].label.unique()))
        drift = drift_tables(references, manifest[manifest.verdict == "use"])
        drift["what"] = [
            f"{row.quantity} of {_WHOSE[row.photos]}{_SINCE[row.against]}: {row.words} (index {row.psi:.2f}, limit "
            f"{row.limit:.2f})"
            for row in drift.itertuples()
        ]
        of_classes, of_joined = drift.quantity == "class shares", drift.photos == "joined"
        tables["drift_of_classes"] = drift[of_classes & ~of_joined]
        tables["drift_of_new_classes"] = drift[of_classes & of_joined]
        tables["drift_of_statistics"] = drift[~of_classes]
    return tables


_WHOSE = {"all": "all photos", "joined": "the photos that joined"}
_SINCE = {"production": "", "anchor": " since the anchor"}


def _images(manifest: pd.DataFrame) -> pd.DataFrame:
    """The files that were meant as images, with the columns that expectations are about."""
    images = with_shape(manifest[manifest.verdict != "ignore"])
    # A file under two labels is a matter of its own, whether or not its copies are used.
    images["readable"] = (images.verdict == "use") | images.conflict
    images["suffix_is_right"] = [
        is_suffix_of(path, format_name) for path, format_name in zip(images.path, images.format.fillna(""), strict=True)
    ]
    # What could not be read is no copy of what else could not be read.
    images["copy_of"] = images.digest.mask((images.digest == "") | images.conflict)
    if "near_group" not in images:  # where nobody gave groups, they are those of near-duplicates
        images["near_group"] = images.group
    near = pd.factorize(images.near_group)[0]
    images["files_of_group"] = _different(images.digest, near)
    # The same file under two labels is a conflict, and no near-duplicate of itself.
    images["labels_of_group"] = _different(images.label, near).where(images.files_of_group > 1)
    images["splits_of_group"] = _different(images.split, pd.factorize(images.group)[0])
    images["what"] = images.path + (": " + images.reason.fillna("")).where(images.reason.notna(), "")
    return images


def _different(values: pd.Series, groups: np.ndarray) -> pd.Series:
    """Return how many different values the group of each row has; missing where the group's number is -1.

    Most groups have one row. Only the others are compared: of all rows that takes as much memory as the table.
    """
    is_several = (groups >= 0) & (np.bincount(groups + 1, minlength=1) > 1)[groups + 1]
    found = values.notna().astype("int64").where(groups >= 0)
    found[is_several] = values[is_several].groupby(groups[is_several]).transform("nunique")
    return found


def _with_counts(images: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """One row per class: its usable images."""
    counts = images.label[images.verdict == "use"].value_counts().reindex(names, fill_value=0)
    classes = pd.DataFrame({"label": pd.array(names, dtype="str"), "images": counts.to_numpy(int)})
    classes["what"] = classes.label + ": " + classes.images.astype(str)
    return classes
