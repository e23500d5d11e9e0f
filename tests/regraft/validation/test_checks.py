import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from regraft.core.params_file import load_params
from regraft.photos.manifest import COLUMNS
from regraft.validation.checks import problems_that_stop, validate, warnings_of
from regraft.validation.drift import STATISTICS
from tests.support.library import scan_folder
from tests.support.suite import suite_with

SETTINGS = load_params(Path(__file__).parents[3] / "params.yaml").validate_data.model_copy(update={"max_pixels": 10**6})
CHANGES = {
    "enough_images_per_class.min_value": 3,
    "readable_images.mostly": 0.8,
    "balanced_classes.max_value": 4,
    "few_odd_images.mostly": 0.0,
}


def images(
    class_name: str, count: int, *, broken: int = 0, ignored: int = 0, **facts: object
) -> list[dict[str, object]]:
    """Rows of a manifest: usable, broken and ignored files of one class."""
    verdicts = ["use"] * count + ["quarantine"] * broken + ["ignore"] * ignored
    reasons = {"use": None, "quarantine": "cannot be decoded", "ignore": "not an image"}
    rows = []
    for number, verdict in enumerate(verdicts):
        digest = hashlib.sha256(f"{class_name}{number}".encode()).hexdigest()
        row: dict[str, object] = {"path": f"{class_name}/{number}.jpg", "label": class_name, "verdict": verdict}
        row |= {"reason": reasons[verdict], "digest": digest, "bytes": 1, "conflict": False}
        if verdict == "use":
            row |= {"width": 64, "height": 48, "group": digest}
            row |= {"brightness": 0.5, "contrast": 0.2, "sharpness": 500.0, "entropy": 7.0}
        rows.append(row | facts)
    return rows


def manifest_of(*rows: list[dict[str, object]]) -> pd.DataFrame:
    table = pd.DataFrame([row for part in rows for row in part])
    further = table.columns.difference(list(COLUMNS)).tolist()  # those that labels.csv adds
    return table.reindex(columns=[*COLUMNS, *further]).astype(COLUMNS)


def checked(*rows: list[dict[str, object]], changes: dict[str, Any] | None = None, **settings: object):
    """The report on a folder with these rows; `changes` are of expectations."""
    suite = suite_with(CHANGES | (changes or {}))
    return validate("classes", manifest_of(*rows), SETTINGS.model_copy(update=settings), suite)


def result(report, name: str):
    return next(entry for entry in report["expectations"] if entry["name"] == name)


def violated(report) -> set[str]:
    return {entry["name"] for entry in report["expectations"] if not entry["success"]}


def test_good_images_pass_every_expectation():
    report = checked(images("cat", 5), images("dog", 5))
    assert (report["success"], violated(report)) == (True, set())


# What stops a run.


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([images("cat", 5)], {"two_classes"}),
        ([images("cat", 5), images("dog", 2)], {"enough_images_per_class"}),
        ([images("cat", 5, broken=2), images("dog", 1, broken=1)], {"enough_images_per_class", "readable_images"}),
        ([images("cat", 0, broken=5), images("dog", 0, broken=5)], {"two_classes", "readable_images"}),
        ([images("cat", 5), images("dog", 5), images("rare", 0, broken=1)], {"enough_images_per_class"}),
        ([images("cat", 0, ignored=3)], {"some_images", "two_classes"}),
        ([[]], {"some_images", "two_classes"}),
    ],
    ids=[
        "one class",
        "a small class",
        "a tenth broken",
        "every image broken",
        "every image of a class broken",
        "no image",
        "no file",
    ],
)
def test_images_that_cannot_be_trained_on_stop_the_run(rows, expected):
    report = checked(*rows)
    stopping = {entry["name"] for entry in report["expectations"] if entry["severity"] == "error"}
    assert report["success"] is False
    assert expected <= violated(report) & stopping


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([images("cat", 5)], "expected at least two classes with usable images. Found 1. Add a folder of photos"),
        (
            [images("cat", 5), images("dog", 2)],
            "expected at least 3 usable images in every class. Found 1 of 2 (dog: 2). Add images of these classes,",
        ),
        (
            [images("cat", 3, broken=5), images("dog", 3)],
            "expected at most 20.0% of the images unusable. Found 5 of 11 (cat/3.jpg: cannot be decoded; ",
        ),
        (
            [images("cat", 0, broken=2)],
            "expected at most 20.0% of the images unusable. Found 2 of 2 (cat/0.jpg: cannot be decoded; cat/1.jpg: ",
        ),
        ([[]], "expected at least one file that is an image. Found 0. Put photos into the data folder"),
    ],
)
def test_what_stops_a_run_is_told_with_what_was_found_and_what_to_do(rows, words):
    assert words in "\n".join(problems_that_stop(checked(*rows)))


# What is reported and stops nothing.


@pytest.mark.parametrize(
    ("doubtful", "name", "found", "offenders"),
    [
        (images("owl", 13), "balanced_classes", "2 of 3", ["cat: 3", "dog: 3"]),
        (images("owl", 3, height=31), "large_enough_images", "3 of 9", ["owl/0.jpg", "owl/1.jpg", "owl/2.jpg"]),
        (images("owl", 1, width=145), "usual_shape", "1 of 7", ["owl/0.jpg"]),
        (images("owl", 1, brightness=0.04), "bright_enough", "1 of 7", ["owl/0.jpg"]),
        (images("owl", 1, brightness=0.96), "not_too_bright", "1 of 7", ["owl/0.jpg"]),
        (images("owl", 1, contrast=0.01), "enough_contrast", "1 of 7", ["owl/0.jpg"]),
        (images("owl", 1, sharpness=4.9), "sharp_enough", "1 of 7", ["owl/0.jpg"]),
        (images("owl", 1, entropy=0.4), "enough_information", "1 of 7", ["owl/0.jpg"]),
        (images("dog", 1, path="dog/copy.jpg"), "no_copies", "2 of 7", ["dog/0.jpg = dog/copy.jpg"]),
    ],
    ids=["unbalanced", "small", "long", "dark", "bright", "flat", "blurred", "empty", "copies"],
)
def test_a_doubt_is_reported_with_the_files_and_stops_nothing(doubtful, name, found, offenders):
    report = checked(images("cat", 3), images("dog", 3), doubtful, changes={"enough_images_per_class.min_value": 1})
    entry = result(report, name)
    assert report["success"] is True
    assert (entry["success"], entry["found"], entry["offenders"]) == (False, found, offenders)
    assert violated(report) == {name}


def test_a_folder_that_is_small_as_a_whole_is_noted_and_no_warning():
    report = checked(images("cat", 5, height=28, width=28), images("dog", 5, height=28, width=28))
    entry = result(report, "large_enough_images")
    assert violated(report) == set()
    assert entry["note"] == "10 of 10 are below 32, which is usual in this folder."
    assert entry["expected"].startswith("a shorter side of at least 32 pixels; only below 25.3 is it unusual")


UNUSUAL = {f"{name}.unusual": 3.0 for name in ("bright_enough", "sharp_enough", "usual_shape")}
ODD = [images("owl", 1, brightness=0.01), images("emu", 1, sharpness=0.1), images("elk", 1, width=999)]


@pytest.mark.parametrize(("odd", "success"), [(ODD[:2], True), (ODD, False)])
def test_many_odd_photos_are_a_warning_and_a_few_are_not(odd, success):
    report = checked(images("cat", 20), images("dog", 20), *odd, changes={"few_odd_images.mostly": 0.95, **UNUSUAL})
    entry = result(report, "few_odd_images")
    assert (entry["success"], entry["count"]) == (success, len(odd))
    assert [words.split()[0] for words in warnings_of(report)] == [] if success else ["few_odd_images"]


def test_labels_that_contradict_each_other_are_odd_and_what_is_off_is_not():
    rows = [images("cat", 3), images("dog", 3), conflict("quarantine"), near("cat", "dog"), ODD[0]]
    counts = [
        result(checked(*rows, changes=changes), "few_odd_images")["count"]
        for changes in ({}, {"one_label_per_group": None}, {"bright_enough": None})
    ]
    assert counts == [5, 3, 4]


def test_only_violated_expectations_of_severity_warn_are_warnings_and_the_worst_comes_first():
    rows = [images("cat", 3), images("dog", 3), near("cat", "dog", splits=("train", "test")), images("owl", 9)]
    severities = {"no_near_copies.severity": "warning", "one_label_per_group.severity": "critical"}
    report = checked(*rows, changes=severities)
    assert warnings_of(report) == [
        "no_copies_across_splits is violated: 2 of 17, such as cat/near0.jpg = dog/near1.jpg.",
        "no_near_copies is violated: 2 of 17, such as cat/near0.jpg = dog/near1.jpg.",
    ]


# Classes that params.yaml lists.


def test_a_label_that_is_not_among_the_classes_stops_the_run_and_its_files_are_named():
    report = checked(images("cat", 3), images("dgo", 3), images("dog", 3), classes=("cat", "dog"))
    assert report["success"] is False
    assert result(report, "known_classes")["offenders"] == ["dgo/0.jpg", "dgo/1.jpg", "dgo/2.jpg"]


def test_a_class_without_a_usable_image_stops_the_run_if_it_must_be_there():
    report = checked(
        images("cat", 3),
        images("dog", 3),
        images("owl", 0, broken=1),
        classes=("cat", "dog", "owl", "emu"),
    )
    assert result(report, "present_classes")["offenders"] == ["owl: 0", "emu: 0"]
    assert report["success"] is False


# Copies, near-duplicates and labels that contradict each other.


def conflict(verdict: str) -> list[dict[str, object]]:
    """One file as cat and as dog."""
    reason = "also under another label" if verdict == "quarantine" else None
    facts = {"digest": "c" * 64, "conflict": True, "verdict": verdict, "reason": reason}
    facts["group"] = "c" * 64 if verdict == "use" else None
    return images("cat", 1, path="cat/same.jpg", **facts) + images("dog", 1, path="dog/same.jpg", **facts)


@pytest.mark.parametrize(
    ("choice", "verdict", "severity", "advice"),
    [
        ("drop", "quarantine", "warn", "None of these files is used"),
        ("keep", "use", "note", "All of these files are used"),
        ("error", "use", "error", "Decide which label is right"),
    ],
)
def test_one_file_under_two_labels_is_named_with_its_other_path(choice, verdict, severity, advice):
    report = checked(images("cat", 3), images("dog", 3), conflict(verdict), on_label_conflict=choice)
    entry = result(report, "one_label_per_image")
    assert (entry["severity"], report["success"]) == (severity, severity != "error")
    assert (entry["count"], entry["offenders"]) == (2, ["cat/same.jpg (cat) = dog/same.jpg (dog)"])
    assert entry["paths"] == ["cat/same.jpg", "dog/same.jpg"]
    assert entry["advice"].startswith(advice)
    assert violated(report) == {"one_label_per_image"}
    sentence = "one_label_per_image is violated: 2 of 8, such as cat/same.jpg (cat) = dog/same.jpg (dog)."
    assert warnings_of(report) == ([sentence] if severity == "warn" else [])


def near(*labels: str, splits: tuple[str | None, ...] = (None,) * 9) -> list[dict[str, object]]:
    """Different files that show one photo."""
    return [
        images(label, 1, path=f"{label}/near{number}.jpg", digest=f"{number}" * 64, group="0" * 64, split=split)[0]
        for number, (label, split) in enumerate(zip(labels, splits, strict=False))
    ]


def test_near_duplicates_are_named_together():
    report = checked(images("cat", 3), images("dog", 3), near("cat", "cat", "cat"))
    assert violated(report) == {"no_near_copies"}
    assert result(report, "no_near_copies")["offenders"] == ["cat/near0.jpg = cat/near1.jpg = cat/near2.jpg"]


def test_photos_of_a_given_group_are_no_near_duplicates_and_are_named_where_splits_part_them():
    group = near("cat", "dog", splits=("train", "test"))
    parted = [photo | {"near_group": photo["digest"]} for photo in group]
    others = [photo | {"near_group": photo["digest"]} for photo in [*images("cat", 3), *images("dog", 3)]]
    report = checked(others, parted)
    assert violated(report) == {"no_copies_across_splits"}
    assert result(report, "no_copies_across_splits")["offenders"] == ["cat/near0.jpg = dog/near1.jpg"]


def test_of_many_offenders_fifty_are_named_and_all_counted():
    entry = result(checked(images("cat", 60, height=3), images("dog", 90)), "large_enough_images")
    assert (len(entry["offenders"]), len(entry["paths"]), entry["count"]) == (50, 50, 60)


# Against the photos of the model in production.


def many(class_name: str, count: int, first: int = 0, **facts: object) -> list[dict[str, object]]:
    rows = images(class_name, first + count)[first:]
    for number, row in enumerate(rows, first):
        row |= {"brightness": 0.3 + (number * 37 % 100) / 250, **facts}
    return rows


FORMER = [many("cat", 100), many("dog", 100)]


def compared(*rows: list[dict[str, object]], changes: dict[str, Any] | None = None):
    references, suite = {"production": manifest_of(*FORMER)}, suite_with(CHANGES | (changes or {}))
    return validate("classes", manifest_of(*rows), SETTINGS, suite, references=references, compared_with="With before.")


def test_an_unchanged_folder_has_not_drifted():
    report = compared(*FORMER)
    assert violated(report) == set()
    assert report["compared_with"] == "With before."
    assert [(row["quantity"], row["photos"]) for row in report["drift"]] == [
        (quantity, "all") for quantity in ("class shares", *STATISTICS)
    ]
    assert {row["psi"] for row in report["drift"]} == {0.0}


def test_another_mix_among_what_joined_is_a_note_and_no_warning():
    report = compared(*FORMER, many("cat", 40, 100))
    entry = result(report, "new_class_shares_as_before")
    assert (entry["severity"], entry["success"]) == ("note", False)
    assert entry["offenders"][0].startswith("class shares of the photos that joined: cat 50% -> 100%, dog 50% -> 0% (")
    assert warnings_of(report) == []


def test_without_a_reference_nothing_is_compared():
    report = checked(images("cat", 5), images("dog", 5))
    assert report["drift"] == []
    assert not any("as_before" in entry["name"] for entry in report["expectations"])


# What the engine must not do.


def test_the_modules_that_the_engine_goes_without_can_be_imported_afterwards(root):
    # In a process of its own, because something else may have imported them in this one.
    code = """
import sys
from pathlib import Path
import pandas as pd
from regraft.core.params_file import load_params
from regraft.photos.manifest import COLUMNS
from regraft.validation.checks import validate
from regraft.validation.suite import read_suites
empty, settings = pd.DataFrame(columns=list(COLUMNS)).astype(COLUMNS), load_params(Path("params.yaml")).validate_data
validate("classes", empty, settings, read_suites(Path("expectations")))
assert not {"altair", "scipy.stats"} & set(sys.modules)
from scipy import stats
assert stats.norm.cdf(0) == 0.5
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


# The whole way from the folder.


def test_a_folder_whose_every_image_is_broken_is_told_file_by_file(tmp_path):
    for name in ("cat/a.jpg", "dog/b.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"no image")
    layout, manifest = scan_folder(tmp_path)
    words = "\n".join(problems_that_stop(validate(layout, manifest, SETTINGS, suite_with(CHANGES))))
    assert "Found 2 of 2 (cat/a.jpg: not an image that can be read; dog/b.jpg: not an image that can be read)" in words
