"""Pages about the photos: what validation, the split and the frozen features say of them, as Markdown."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from regraft.files import read_json
from regraft.reports.markdown import Bold, cell, picture, table

_NAMED = 20  # rows of a table of problems
_OFFENDERS = 3  # of an expectation that are named in its row


def _validation(reports: Path) -> str:
    report = read_json(reports / "validation.json")
    files = report["files"]
    verdict = "The images can be trained on." if report["success"] else "**The images cannot be trained on.**"
    lines = [
        "# Validation",
        f"{verdict} {files['use']} images are used, {files['quarantine']} are quarantined, {files['ignore']} files are "
        f"not images. Layout of the data folder: {report['layout']}.",
        _expectations(report),
        "## Against the model in production",
        cell(report["compared_with"]),
    ]
    if report["drift"]:
        lines.append(_drift(report["drift"]))
    if report["not_used"]:
        # Meant as images and lost, before what nobody meant as an image.
        not_used = sorted(report["not_used"], key=lambda row: row["verdict"] != "quarantine")
        named = [[row["path"], row["verdict"], row["reason"]] for row in not_used[:_NAMED]]
        lines += [
            f"## Not used: {len(report['not_used'])} (the first {len(named)}; all are in validation.json)",
            table(["file", "verdict", "why"], named),
        ]
    return "\n\n".join(lines)


def _urgency(result: dict[str, Any]) -> int:
    """What stops the run comes first, then what is only reported, then what is well."""
    return 2 if result["success"] else 0 if result["severity"] == "error" else 1


def _which(offenders: list[str]) -> str:
    return "; ".join(offenders[:_OFFENDERS]) + ("; ..." if len(offenders) > _OFFENDERS else "")


def _drift(rows: list[dict[str, Any]]) -> str:
    """What moved since the model in production, and whether by more than chance and params.yaml allow."""
    whose = {"all": "all", "joined": "only those that joined"}
    cells = [
        [
            row["quantity"].replace("_", " "),
            f"{whose[row['photos']]}: {row['now']}",
            row["words"],
            f"{row['psi']:.3f}",
            f"{row['limit']:.3f}",
            Bold("moved") if row["psi"] > row["limit"] else "as before",
        ]
        for row in rows
    ]
    return table(["", "photos", "then and now", "stability index", "limit", ""], cells)


def _class_balance(reports: Path) -> str:
    return "\n\n".join(["# Class balance", picture(reports / "class_balance.png", "images per class")])


def _image_statistics(reports: Path) -> str:
    return "\n\n".join(
        [
            "# How the photos look",
            "Shares of the used photos. Dashed lines are limits of params.yaml; grey outlines are the photos that the "
            "model in production was trained on. Sharpness is the variance of the Laplacian.",
            picture(reports / "image_statistics.png", "histograms of image statistics"),
        ]
    )


def _dataset(reports: Path) -> str:
    report = read_json(reports / "dataset.json")
    rows = [[name, *splits.values()] for name, splits in report["classes"].items()]
    absent, parted = report["not_in_test"], report["near_duplicates_left_out"]
    warning = f" No test image, so not measured: {', '.join(map(cell, absent))}." if absent else ""
    if parted:
        warning += (
            f" {len(parted)} near-duplicates of photos in val or test left out of your other splits: "
            f"{', '.join(map(cell, parted[:_NAMED]))}."
        )
    return "\n\n".join(
        [
            "# Data set",
            f"{report['images']} different images; {report['copies_left_out']} copies left out.{warning}",
            table(["class", "train", "val", "test"], [*rows, [Bold("all"), *report["splits"].values()]]),
            "What the network sees, a row per class:",
            picture(reports / "prepared.png", "prepared images"),
        ]
    )


def _photos_by_features(reports: Path) -> str:
    report = read_json(reports / "embeddings.json")
    leaks, errors, outliers = report["leaks"], report["label_errors"], report["outliers"]
    verdict = "The photos can be trained on." if report["success"] else "**The photos should not be trained on.**"
    lines = [
        "# Photos, as the frozen backbone sees them",
        f"{verdict} {report['images']} photos were compared with each other.",
        _expectations(report),
    ]
    if leaks:
        pairs = [
            [leak["path"], leak["split"], leak["other_path"], leak["other_split"], f"{leak['similarity']:.3f}"]
            for leak in leaks[:_NAMED]
        ]
        lines += [
            _heading("Nearly the same photo in two splits", leaks),
            "1 is the same photo. With the default backbone, different ones are rarely above 0.94.",
            table(["photo", "split", "nearly the same as", "split", "similarity"], pairs),
        ]
    if errors:
        labels = [
            [error["path"], error["label"], error["suggested"], f"{error['score']:.4f}"] for error in errors[:_NAMED]
        ]
        lines += [
            _heading("Labels that are likely wrong", errors),
            "The last column is how probable the label is from all other photos. label\\_errors.csv ranks every photo.",
            table(["photo", "label", "looks like", "probability of the label"], labels),
            picture(reports / "label_errors.png", "labels that are likely wrong"),
        ]
    if outliers:
        far = [[outlier["path"], outlier["label"], f"{outlier['distance']:.1f}"] for outlier in outliers[:_NAMED]]
        lines += [
            _heading("Photos unlike all others", outliers),
            "In robust standard deviations of the distance to the fifth most similar photo.",
            table(["photo", "label", "distance"], far),
        ]
    return "\n\n".join([*lines, "## Drift", _drift_in_words(report)])


def _drift_in_words(report: dict[str, Any]) -> str:
    drift, compared_with = report["drift"], cell(report["compared_with"])
    if drift is None:
        return compared_with
    return (
        f"{compared_with} {drift['new']} new photos against {drift['reference']} of these: the "
        f"distances to the nearest one have a population stability index of {drift['population_stability']:.3f} "
        f"(chance stays below {drift['population_stability_limit']:.3f}), and {drift['far_share']:.1%} of the new ones "
        f"are farther than 99 % of the others (chance stays below {drift['far_share_limit']:.1%}). They differ from "
        f"the nearest ones in one direction by {drift['shift']:.2f} (chance stays below {drift['shift_limit']:.2f})."
    )


def _heading(title: str, rows: list[Any]) -> str:
    return f"## {title}: {len(rows)}" + (f", the first {_NAMED}" if len(rows) > _NAMED else "")


def _expectations(report: dict[str, Any]) -> str:
    rows = [
        [
            _sign(result),
            result["severity"],
            result["expected"],
            result["found"],
            "" if result["success"] else _which(result["offenders"]),
            "" if result["success"] else result["advice"],
        ]
        for result in sorted(report["expectations"], key=_urgency)
    ]
    return table(["", "severity", "expected", "found", "which", "what to do"], rows)


def _sign(result: dict[str, Any]) -> str:
    return "ok" if result["success"] else Bold("fails") if result["severity"] == "error" else "see"


PAGES: dict[str, dict[str, Callable[[Path], str]]] = {
    "validate_data": {
        "validation": _validation,
        "class-balance": _class_balance,
        "image-statistics": _image_statistics,
    },
    "preprocess": {"dataset": _dataset},
    "check_features": {"photos-by-features": _photos_by_features},
}
