"""Frozen features: what they cost, and the leaks, likely label errors, outliers and drift that they show."""

from typing import Any

from regraft.core.files import read_json, readable_bytes
from regraft.reports.page import Block, Bold, Heading, Page, Photos, Table
from regraft.reports.sources import Sources
from regraft.reports.thumbnails import thumbnails
from regraft.reports.validation_page import NAMED, expectations_table, heading


def receipt_page(sources: Sources) -> Page:
    """Return the receipt: the cost of the frozen backbone, and the savings of the store."""
    report = read_json(sources.reports / "features.json")
    rate, taken, again = report["images_per_second"], report.get("from_features_file"), report.get("computed_again")
    rows = [
        ["different images", report["images"]],
        ["views of a training image", report["views"]],
        ["views of all images", report["rows"]],
        ["from the store", report["from_store"]],
        *([["of these from an earlier features file", taken]] if taken else []),
        ["computed", report["computed"]],
        *([["of these computed again", f"{again['rows']}: {again['why']}"]] if again else []),
        ["seconds spent", f"{report['seconds']:.1f}" + (f" ({rate:.0f} images/s)" if rate else "")],
        ["seconds saved", f"{report['seconds_saved']:.1f}"],
        ["size of the store", readable_bytes(report["store_bytes"])],
        ["engine", report["engine"]],
    ]
    return Page("receipt", "Receipt of the frozen backbone", [Table(["", ""], rows)])


def features_page(sources: Sources) -> Page:
    """Return the page."""
    report = read_json(sources.reports / "embeddings.json")
    can = "The photos can be trained on."
    blocks: list[Block] = [
        can if report["success"] else Bold("The photos should not be trained on."),
        _looked_at(report),
        expectations_table(report),
        *_leaks(report["leaks"]),
        *_label_errors(report["label_errors"], sources),
        *_outliers(report["outliers"]),
        Heading("Drift"),
        *map(_drift, report["drift"]),
    ]
    return Page("photos-by-features", "Photos through the frozen backbone", blocks)


def _looked_at(report: dict[str, Any]) -> str:
    images, looked_at = report["images"], report["looked_at"]
    if looked_at == images:
        return f"{images} photos were compared with each other."
    return (
        f"{looked_at} of {images} photos were checked, a sample of each large split. Those of val and test among them "
        f"were compared with all photos of the splits before."
    )


def _leaks(leaks: list[dict[str, Any]]) -> list[Block]:
    if not leaks:
        return []
    pairs = [
        [leak["path"], leak["split"], leak["other_path"], leak["other_split"], f"{leak['similarity']:.3f}"]
        for leak in leaks[:NAMED]
    ]
    return [
        heading("Nearly the same photo in two splits", leaks),
        "1 is the same photo. A pair is named where it is much nearer than photos of other things are around it.",
        Table(["photo", "split", "nearly the same as", "split", "similarity"], pairs),
    ]


def _label_errors(errors: list[dict[str, Any]], sources: Sources) -> list[Block]:
    if not errors:
        return []
    captions = {error["path"]: f"{error['suggested']}?\nis {error['label']}" for error in errors[: sources.photos]}
    tiles = thumbnails(sources.read_dataset(), captions, sources.threads, sources.limits)
    blocks: list[Block] = [
        heading("Labels that are likely wrong", errors),
        "The last column is how probable the label is from all photos that do not belong to the photo's group. "
        "label_errors.csv ranks every photo that was looked at, with its split and group.",
    ]
    in_test = [error for error in errors if error["split"] == "test"]
    others = [error for error in errors if error["split"] != "test"]
    if others:
        blocks.append(_labels(others))
    if in_test:
        blocks += [
            "In the test split this list alone is no ground to relabel or remove a photo. It names photos on which "
            "a classifier is wrong: a test that is corrected only where the model errs is tuned to the model. Judge "
            "all test photos of these classes, or leave them as they are.",
            _labels(in_test),
        ]
    return [*blocks, Photos("labels that are likely wrong", [("", tiles)])]


def _labels(errors: list[dict[str, Any]]) -> Table:
    rows = [
        [error["path"], error["split"], error["label"], error["suggested"], f"{error['score']:.4f}"]
        for error in errors[:NAMED]
    ]
    return Table(["photo", "split", "label", "likely", "probability of the label"], rows)


def _outliers(outliers: list[dict[str, Any]]) -> list[Block]:
    if not outliers:
        return []
    rows = [[outlier["path"], outlier["label"], f"{outlier['distance']:.1f}"] for outlier in outliers[:NAMED]]
    return [
        heading("Photos unlike all others", outliers),
        "In robust standard deviations of the logarithm of the distance to the fifth most similar photo.",
        Table(["photo", "label", "distance"], rows),
    ]


def _drift(drift: dict[str, Any]) -> str:
    figures, compared_with = drift["figures"], drift["compared_with"]
    if figures is None:
        return compared_with
    return (
        f"{compared_with} {figures['new']} new photos and one half of {figures['reference']} of these were both "
        f"measured from the other half, class by class. The stability index of their distances is "
        f"{figures['population_stability']:.3f} (limit {figures['population_stability_limit']:.3f}). "
        f"{figures['far_share']:.1%} of the new ones are farther than 99 % of that half (limit "
        f"{figures['far_share_limit']:.1%}). They differ from the nearest ones in one direction by "
        f"{figures['shift']:.2f} standard deviations (limit {figures['shift_limit']:.2f}). A limit is what chance "
        f"seldom exceeds with so few photos, and at least what is worth a look."
    )
