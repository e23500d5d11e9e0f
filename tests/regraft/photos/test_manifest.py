import re
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from regraft.core.errors import InvalidData
from regraft.core.files import sha256_of
from regraft.photos.images import Threads
from regraft.photos.manifest import COLUMNS, find_files, read_manifest, slices_of, write_manifest
from tests.support.library import scan_folder
from tests.support.odd_files import write_odd_files

NFC, NFD = unicodedata.normalize("NFC", "Äpfel"), unicodedata.normalize("NFD", "Äpfel")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty data folder."""
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


def add(folder: Path, *paths: str) -> None:
    """Put a small image at each path; each has its own content."""
    for number, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (number, 9, 9)).save(folder / path, "PNG")


def labels(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def manifest_of(folder: Path) -> pd.DataFrame:
    return scan_folder(folder, max_pixels=120_000_000)[1].set_index("path")


def found(folder: Path) -> list[tuple[str, str | None, str | None]]:
    return [(str(file.path), file.label, file.split) for file in find_files(folder)[1]]


def refusal(folder: Path) -> str:
    with pytest.raises(InvalidData) as error:
        find_files(folder)
    return str(error.value)


# Layouts.


def test_a_folder_is_a_class(folder):
    add(folder, "cat/a.png", "cat/deep/er/b.png", "dog/c.png")
    assert find_files(folder)[0] == "classes"
    assert found(folder) == [("cat/a.png", "cat", None), ("cat/deep/er/b.png", "cat", None), ("dog/c.png", "dog", None)]


@pytest.mark.parametrize("val", ["valid", "Val"])
def test_folders_named_as_splits_are_splits(folder, val):
    add(folder, "Train/cat/a.png", f"{val}/cat/b.png", "test/dog/c.png")
    assert find_files(folder)[0] == "splits"
    assert set(found(folder)) == {
        ("Train/cat/a.png", "cat", "train"),
        (f"{val}/cat/b.png", "cat", "val"),
        ("test/dog/c.png", "dog", "test"),
    }


def test_a_class_may_have_the_name_of_a_split(folder):
    add(folder, "train/a.png", "bus/b.png")  # vehicles
    assert found(folder) == [("bus/b.png", "bus", None), ("train/a.png", "train", None)]


def test_labels_csv_gives_labels_and_splits(folder):
    add(folder, "x/a.png", "b.png")
    labels(folder, "path,label,split\nx/a.png,cat,validation\nb.png, dog ,\n")
    assert find_files(folder)[0] == "labels"
    assert ("x/a.png", "cat", "val") in found(folder)
    assert ("b.png", "dog", None) in found(folder)


def test_labels_csv_gives_groups_and_slices_which_the_manifest_keeps(folder, tmp_path):
    add(folder, "a.png", "b.png", "loose.png")
    labels(folder, f"path,group,label,site,{NFD}\na.png, P 1 ,cat,north,\nb.png,,dog,,{NFD}\n")
    layout, manifest = scan_folder(folder)
    assert slices_of(manifest) == ["site", NFC]
    columns = ["given_group", "near_group", "slice.site", f"slice.{NFC}"]
    assert list(manifest.columns) == [*COLUMNS, *columns]
    listed = manifest[columns].replace({float("nan"): None})
    assert listed.to_dict("list") == {
        "given_group": ["P 1", None, None, None],
        "near_group": [*manifest.digest[:2], None, None],
        "slice.site": ["north", None, None, None],
        f"slice.{NFC}": [None, NFC, None, None],
    }
    write_manifest(tmp_path / "manifest.parquet", layout, manifest)
    pd.testing.assert_frame_equal(read_manifest(tmp_path / "manifest.parquet")[1], manifest)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_labels_csv_may_come_from_a_spreadsheet(folder, mark):
    add(folder, "x/a, b.png")
    labels(folder, f'{mark}path, label\r\n"x\\a, b.png","cat, black"\r\n')
    assert ("x/a, b.png", "cat, black", None) in found(folder)


@pytest.mark.parametrize("layout", ["{}/a.png", "train/{}/a.png"])
def test_the_two_spellings_of_an_accented_class_are_one_class(folder, layout):
    add(folder, layout.format(NFC), layout.format(NFD))
    assert {label for _, label, _ in found(folder)} == {NFC}


def test_hidden_folders_are_not_data(folder):
    add(folder, "cat/a.png", ".ipynb_checkpoints/a.png", "cat/.hidden/b.png", "__MACOSX/cat/a.png")
    assert found(folder) == [("cat/a.png", "cat", None)]


# Rows.


def test_a_row_says_what_the_file_is(folder):
    add(folder, "cat/a.png")
    row = manifest_of(folder).loc["cat/a.png"]
    assert row[["label", "verdict", "format", "width", "height", "mode", "frames"]].tolist() == [
        "cat", "use", "PNG", 8, 6, "RGB", 1,
    ]  # fmt: skip
    assert (row.digest, row.bytes) == (sha256_of(folder / "cat/a.png"), (folder / "cat/a.png").stat().st_size)


def test_an_image_that_the_layout_gives_no_label_is_quarantined_with_the_reason(folder):
    add(folder, "cat/a.png", "loose.png")
    row = manifest_of(folder).loc["loose.png"]
    assert (row.verdict, row.reason) == ("quarantine", "not inside a class folder")


def test_the_verdict_on_every_odd_file_is_the_expected_one(folder):
    expected = write_odd_files(folder / "odd")
    verdicts = manifest_of(folder).verdict
    assert {name: verdicts[f"odd/{name}"] for name in expected} == expected


def test_the_manifest_does_not_depend_on_the_number_of_threads(folder):
    add(folder, *(f"cat/{number}.png" for number in range(30)))
    tables = [scan_folder(folder, threads=Threads(workers))[1] for workers in (1, 4)]
    pd.testing.assert_frame_equal(*tables)


def test_equal_folders_give_equal_bytes(folder, tmp_path):
    add(folder, "cat/a.png", "dog/b.png")
    for name in ("one", "two"):
        layout, manifest = scan_folder(folder)
        write_manifest(tmp_path / name, layout, manifest)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


# What is refused.


def test_a_missing_data_folder_is_refused_with_what_belongs_there(tmp_path):
    message = refusal(tmp_path / "raw")
    assert re.search(
        r"no data folder .*raw\. Expected labelled photos.*<class>/\*\.jpg.*labels\.csv.*Put yours there", message
    )


def test_a_link_to_an_image_inside_is_an_image(folder):
    add(folder, "cat/a.png")
    (folder / "cat" / "b.png").symlink_to("a.png")
    assert manifest_of(folder).verdict.tolist() == ["use", "use"]


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "cat/../../secret.png",
        "/etc/passwd",
        "C:/secret.png",
        r"\\server\share\secret.png",
        "",
    ],
)
def test_a_path_in_labels_csv_that_leaves_the_data_folder_is_refused_by_line(folder, tmp_path, path):
    add(folder, "cat/a.png")
    add(tmp_path, "secret.png")
    file = labels(folder, f"path,label\ncat/a.png,cat\n{path},cat\n")
    assert re.search(
        rf"{re.escape(str(file))} has 1 line\(s\) to fix: line 3: path .*must lie inside the data folder",
        refusal(folder),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"must start with the line path,label, and may name more columns there.*Received: ''"),
        ("file,class\na.png,cat\n", r"must start with the line path,label.*Received: 'file,class'"),
        ("path,label,Split\na.png,cat,test\n", r"line 1: column 3 'Split' may be meant as 'split'; write it so"),
        ("path,label,\na.png,cat,\n", r"line 1: column 3 has no name; give it one, or remove the column"),
        (
            f"path,label,{','.join(f's{number}' for number in range(21))}\n",
            r"must have at most 20 columns beside path, label, split, group, sha256, etag\. Received: 21\. Remove",
        ),
        ("path,label,site\na.png,cat,a\x1bb\n", r"line 2: column 'site' has a control .*: 'a\\x1bb'; remove it"),
        ("path,label\na.png,cat\n./a.png,cat\n", r"has 1 line\(s\) to fix: line 3: a\.png is listed twice"),
        ("path,label,split\na.png,cat,holdout\n", r"line 2: split of a\.png must be train, val or test.*'holdout'"),
        ("path,label\na.png,\n", r"line 2: a\.png has no label"),
        ("path,label\na.png,tools, hand\n", r"line 2: "),  # a comma that nobody quoted: the label would be half of it
        (
            "path,label\nb.png,cat\nc.png,dog\n",
            r"names 2 file\(s\) that are not there: b\.png; c\.png\. Add the files, or",
        ),
    ],
)
def test_a_wrong_labels_csv_is_refused_with_file_line_and_remedy(folder, text, message):
    add(folder, "a.png")
    file = labels(folder, text)
    assert re.search(rf"{re.escape(str(file))} .*{message}", refusal(folder))


def test_an_image_that_labels_csv_does_not_list_is_quarantined(folder):
    add(folder, "a.png", "b.png")
    labels(folder, "path,label\na.png,cat\n")
    row = manifest_of(folder).loc["b.png"]
    assert (row.verdict, row.reason) == ("quarantine", "not listed in labels.csv")
