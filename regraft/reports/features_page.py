"""The photos through the frozen features: leaks, labels that are likely wrong, outliers, drift."""

from typing import Any

from regraft.files import read_json
from regraft.reports.blocks import Block, Page, Photos
from regraft.reports.expectations import NAMED, expectations_table, heading
from regraft.reports.markdown import cell, table
from regraft.reports.sources import Sources
from regraft.reports.thumbnails import thumbnails


def features_page(sources: Sources) -> Page:
    """Return the page."""
    report = read_json(sources.reports / "embeddings.json")
    verdict = "The photos can be trained on." if report["success"] else "**The photos should not be trained on.**"
    blocks: list[Block] = [
        f"{verdict} {report['images']} photos were compared with each other.",
        expectations_table(report),
        *_leaks(report["leaks"]),
        *_label_errors(report["label_errors"], sources),
        *_outliers(report["outliers"]),
        "## Drift",
        _drift(report),
    ]
    return Page("photos-by-features", "Photos through the frozen backbone", blocks)


def _leaks(leaks: list[dict[str, Any]]) -> list[Block]:
    if not leaks:
        return []
    pairs = [
        [leak["path"], leak["split"], leak["other_path"], leak["other_split"], f"{leak['similarity']:.3f}"]
        for leak in leaks[:NAMED]
    ]
    return [
        heading("Nearly the same photo in two splits", leaks),
        "1 is the same photo. A pair is named only if it is also much nearer than photos usually are around it.",
        table(["photo", "split", "nearly the same as", "split", "similarity"], pairs),
    ]


def _label_errors(errors: list[dict[str, Any]], sources: Sources) -> list[Block]:
    if not errors:
        return []
    rows = [[error["path"], error["label"], error["suggested"], f"{error['score']:.4f}"] for error in errors[:NAMED]]
    captions = {error["path"]: f"{error['suggested']}?\nis {error['label']}" for error in errors[: sources.photos]}
    tiles = thumbnails(sources.read_dataset(), captions, sources.threads, sources.limits)
    return [
        heading("Labels that are likely wrong", errors),
        "The last column is how probable the label is from all other photos. label\\_errors.csv ranks every photo.",
        table(["photo", "label", "likely", "probability of the label"], rows),
        Photos("labels that are likely wrong", [("", tiles)]),
    ]


def _outliers(outliers: list[dict[str, Any]]) -> list[Block]:
    if not outliers:
        return []
    rows = [[outlier["path"], outlier["label"], f"{outlier['distance']:.1f}"] for outlier in outliers[:NAMED]]
    return [
        heading("Photos unlike all others", outliers),
        "In robust standard deviations of the distance to the fifth most similar photo.",
        table(["photo", "label", "distance"], rows),
    ]


def _drift(report: dict[str, Any]) -> str:
    drift, compared_with = report["drift"], cell(report["compared_with"])
    if drift is None:
        return compared_with
    return (
        f"{compared_with} {drift['new']} new photos and one half of {drift['reference']} of these were both measured "
        f"from the other half. The stability index of their distances is {drift['population_stability']:.3f} (chance "
        f"stays below {drift['population_stability_limit']:.3f}). {drift['far_share']:.1%} of the new ones are "
        f"farther than 99 % of that half (chance stays below {drift['far_share_limit']:.1%}). They differ from the "
        f"nearest ones in one direction by {drift['shift']:.2f} (chance stays below {drift['shift_limit']:.2f})."
    )
