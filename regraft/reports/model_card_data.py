"""The sections of the model card about the photos."""

from typing import Any

from regraft.files import read_json
from regraft.photos.splitting import FEW
from regraft.reports.evaluation_page import of_all
from regraft.reports.markdown import Bold, cell, table
from regraft.reports.sources import Sources

_ROWS = 50  # of classes


def evaluation_data(sources: Sources) -> list[str]:
    """Return which photos the figures are about, and why one may trust them."""
    dataset, features = read_json(sources.reports / "dataset.json"), read_json(sources.reports / "embeddings.json")
    test = read_json(sources.reports / "metrics.json")["test"]
    text = (
        f"{test['images']} photos of the split `test`{of_all(test)}, which tell as much as "
        f"{test['independent_images']} independent ones. {_how_split(dataset)} Near-duplicates and photos of "
        f"one group are in one split, and no photo of test was trained on or chose a setting."
    )
    leaks = next((each for each in features["expectations"] if each["name"] == "no_leaks"), None)
    found = [f"Nearly the same photo in two splits: {cell(leaks['found'])}."] if leaks else []
    return [" ".join([text, *found, *_absent(dataset)])]


def training_data(sources: Sources, facts: dict[str, str]) -> list[str]:
    """Return what it was trained on, class by class, and what the checks said of that."""
    dataset, validation = read_json(sources.reports / "dataset.json"), read_json(sources.reports / "validation.json")
    classes = dataset["classes"]
    rows: list[list[Any]] = [[name, *splits.values()] for name, splits in list(classes.items())[:_ROWS]]
    rows.append([Bold("all"), *dataset["splits"].values()])
    files = validation["files"]
    text = (
        f"{dataset['images']} different photos in {len(classes)} classes; copies left out: "
        f"{dataset['copies_left_out']}, files that are no usable images: {files['quarantine']}. `val` chose settings "
        f"and thresholds. Where the photos come from, under which licence, and whether people in them agreed, is not "
        f"recorded."
    )
    digest = facts.get("data_sha256")
    named = [f"SHA-256 of the table that names every photo by its own: `{digest}`."] if digest else []
    more = [f"The first {_ROWS} of {len(classes)} classes:"] if len(classes) > _ROWS else []
    checked = [*validation["expectations"], *read_json(sources.reports / "embeddings.json")["expectations"]]
    return [text, *named, *more, table(["class", "train", "val", "test"], rows), _missed(checked)]


def _how_split(dataset: dict[str, Any]) -> str:
    images = dataset["images"]
    given = dataset.get("given_splits", images if dataset["layout"] == "splits" else 0)  # reports of old do not count
    if given == images:
        return "The data folder gives the split of every photo."
    others = f"The data folder gives the split of {given} of {images} photos. Of the others each" if given else "Each"
    return (
        f"{others} keeps the split that it once had. New ones of a class with fewer than {FEW} photos go where the "
        f"class has less than its share, whole groups at a time and in the order of SHA-256; in larger classes the "
        f"SHA-256 alone decides, so that shares are met on average."
    )


def _absent(dataset: dict[str, Any]) -> list[str]:
    absent = dataset["not_in_test"]
    return [f"No test photo, so not measured: {', '.join(map(cell, absent))}."] if absent else []


def _missed(expectations: list[dict[str, Any]]) -> str:
    """Return what was expected of the photos and is not so."""
    missed = [each for each in expectations if not each["success"]]
    if not missed:
        return f"All {len(expectations)} checks of the photos are met."
    lines = [f"- expected {cell(each['expected'])}; found {cell(each['found'])}" for each in missed]
    return "\n".join([f"Of {len(expectations)} checks of the photos {len(missed)} are not met:", "", *lines])
