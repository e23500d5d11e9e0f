import hashlib
import subprocess
import sys
import tempfile

import pandas as pd
import pytest

from regraft.config import ValidateData
from regraft.files import write_json
from regraft.manifest import build_manifest
from regraft.report import pages_of
from regraft.validation import build_rules, problems_that_stop, validate

SETTINGS = ValidateData(
    min_images_per_class=3, max_quarantined_share=0.2, min_side=32, max_imbalance=4.0, max_pixels=10**6
)


def images(
    class_name: str, count: int, *, broken: int = 0, ignored: int = 0, **facts: object
) -> list[dict[str, object]]:
    """Rows of a manifest: usable, broken and ignored files of one class."""
    verdicts = ["use"] * count + ["quarantine"] * broken + ["ignore"] * ignored
    reasons = {"use": None, "quarantine": "cannot be decoded", "ignore": "not an image"}
    return [
        {
            "path": f"{class_name}/{number}.jpg",
            "label": class_name,
            "verdict": verdict,
            "reason": reasons[verdict],
            "digest": hashlib.sha256(f"{class_name}{number}".encode()).hexdigest(),
            "width": 64 if verdict == "use" else None,
            "height": 48 if verdict == "use" else None,
            **facts,
        }
        for number, verdict in enumerate(verdicts)
    ]


def checked(*rows: list[dict[str, object]], **changes: object):
    manifest = pd.DataFrame([row for part in rows for row in part], columns=list(images("x", 1)[0]))
    manifest = manifest.astype({"width": "Int64", "height": "Int64", "reason": "str", "label": "str", "path": "str"})
    return validate("classes", manifest, SETTINGS.model_copy(update=changes))


def result(report, name: str):
    return next(entry for entry in report["expectations"] if entry["name"] == name)


def violated(report) -> set[str]:
    return {entry["name"] for entry in report["expectations"] if not entry["success"]}


def test_good_images_pass_every_expectation():
    report = checked(images("cat", 5), images("dog", 5))
    assert (report["success"], violated(report)) == (True, set())


def test_the_report_counts_files_and_images_per_class():
    report = checked(images("cat", 5, broken=1, ignored=2), images("dog", 4))
    assert (report["files"], report["classes"]) == ({"use": 9, "quarantine": 1, "ignore": 2}, {"cat": 5, "dog": 4})


def test_every_file_that_is_not_used_is_named_with_the_reason():
    report = checked(images("cat", 5, broken=1, ignored=1), images("dog", 5))
    assert report["not_used"] == [
        {"path": "cat/5.jpg", "verdict": "quarantine", "reason": "cannot be decoded"},
        {"path": "cat/6.jpg", "verdict": "ignore", "reason": "not an image"},
    ]


def test_results_come_in_the_order_of_the_rules():
    report = checked(images("cat", 5), images("dog", 5))
    assert [entry["name"] for entry in report["expectations"]] == [rule.name for rule in build_rules(SETTINGS)]


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


def test_of_many_offenders_five_are_shown():
    (line,) = problems_that_stop(checked(images("cat", 9, broken=8), images("dog", 9)))
    assert line.count("cannot be decoded") == 5
    assert "; ...)" in line


@pytest.mark.parametrize(("broken", "expected"), [(5, True), (6, False)])
def test_the_share_of_unusable_images_may_be_exactly_the_limit(broken, expected):
    report = checked(images("cat", 50 - broken, broken=broken), images("dog", 50), max_quarantined_share=0.05)
    assert result(report, "readable_images")["success"] is expected


def test_files_that_are_no_images_do_not_count_as_unusable_images():
    assert checked(images("cat", 3, ignored=100), images("dog", 3))["success"]


def test_exactly_enough_images_are_enough():
    assert checked(images("cat", 3), images("dog", 3))["success"]


# What is reported and stops nothing.


@pytest.mark.parametrize(
    ("doubtful", "name", "found", "offenders"),
    [
        (images("dog", 10, path="many"), "balanced_classes", "1 of 2", ["cat: 3"]),
        (images("owl", 3, height=31), "large_enough_images", "3 of 9", ["owl/0.jpg", "owl/1.jpg", "owl/2.jpg"]),
        (images("dog", 1, path="dog/copy.jpg"), "no_copies", "2 of 7", ["dog/0.jpg", "dog/copy.jpg"]),
        (
            images("cat", 1, path="dog/copy.jpg", label="dog"),
            "one_label_per_image",
            "2 of 7",
            ["cat/0.jpg", "dog/copy.jpg"],
        ),
    ],
    ids=["unbalanced", "small", "copies", "two labels"],
)
def test_a_doubt_is_reported_with_the_files_and_stops_nothing(doubtful, name, found, offenders):
    report = checked(images("cat", 3), images("dog", 3), doubtful)
    entry = result(report, name)
    assert report["success"] is True
    assert (entry["success"], entry["found"], entry["offenders"]) == (False, found, offenders)


def test_of_many_offenders_fifty_are_named_and_all_counted():
    entry = result(checked(images("cat", 60, height=3), images("dog", 60)), "large_enough_images")
    assert (len(entry["offenders"]), entry["count"]) == (50, 60)


def test_files_that_cannot_be_read_are_no_copies_of_each_other():
    unreadable = images("cat", 0, broken=2, digest="") + images("dog", 0, broken=1, digest="")
    report = checked(images("cat", 5), images("dog", 5), unreadable)
    assert violated(report) & {"no_copies", "one_label_per_image"} == set()


# What the engine must not do.


def test_no_temporary_folder_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    checked(images("cat", 5), images("dog", 5))
    assert list(tmp_path.iterdir()) == []


def test_the_modules_that_the_engine_goes_without_can_be_imported_afterwards(root):
    # In a process of its own, because something else may have imported them in this one.
    code = """
import sys
from pathlib import Path
import pandas as pd
from regraft.config import load_params
from regraft.manifest import COLUMNS
from regraft.validation import validate
validate("classes", pd.DataFrame(columns=list(COLUMNS)).astype(COLUMNS), load_params(Path("params.yaml")).validate_data)
assert not {"altair", "scipy.stats"} & set(sys.modules)
from scipy import stats
assert stats.norm.cdf(0) == 0.5
"""
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


# The whole way from the folder.


def test_a_folder_whose_every_image_is_broken_is_told_file_by_file(tmp_path):
    for name in ("cat/a.jpg", "dog/b.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"no image")
    layout, manifest = build_manifest(tmp_path, max_pixels=100, workers=1, on_progress=lambda *_: None)
    words = "\n".join(problems_that_stop(validate(layout, manifest, SETTINGS)))
    assert "Found 2 of 2 (cat/a.jpg: not an image that can be read; dog/b.jpg: not an image that can be read)" in words


def test_the_report_can_be_written_and_shown(tmp_path):
    write_json(tmp_path / "validation.json", checked(images("cat", 5, broken=1), images("dog", 2)))
    (tmp_path / "class_balance.png").touch()
    page = pages_of("validate_data", tmp_path)["validation"]
    assert "**The images cannot be trained on.**" in page
    assert "| cat/5.jpg | quarantine | cannot be decoded |" in page
