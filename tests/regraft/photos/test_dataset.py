import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from regraft.core.errors import InvalidData
from regraft.core.files import sha256_of
from regraft.photos.counts import check_splits
from regraft.photos.dataset import Dataset, Photo, read_dataset, write_dataset
from regraft.photos.splitting import build_dataset, split_of

SHARES = {"val_share": 0.25, "test_share": 0.25}
RAW = Path("data", "raw")
NONE: dict[str, str] = {}


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def row(number: int, label: str, split: str | None = None, verdict: str = "use") -> dict[str, object]:
    return {
        "digest": digest(number),
        "path": f"{label}/{number}.png",
        "label": label,
        "split": split,
        "verdict": verdict,
        "group": digest(number) if verdict == "use" else None,
        "format": "PNG",
    }


def given(*classes: str) -> list[dict[str, object]]:
    """Two images of each class in each split, as a user gives them."""
    places = [(name, split) for name in classes for split in ("train", "val", "test") for _ in range(2)]
    return [row(number, *place) for number, place in enumerate(places)]


def build(rows: list[dict[str, object]], earlier: Mapping[str, str] = NONE) -> Dataset:
    manifest = pd.DataFrame(rows).astype({"split": "str"})
    dataset = build_dataset(manifest, RAW, val_share=0.25, test_share=0.25, earlier=earlier)
    check_splits(dataset, manifest)
    return dataset


def refusal(rows: list[dict[str, object]]) -> str:
    with pytest.raises(InvalidData) as error:
        build(rows)
    return str(error.value)


def test_classes_are_numbered_in_alphabetical_order():
    dataset = build(given("dog", "Äpfel", "cat"))
    assert dataset.class_names == ["cat", "dog", "Äpfel"]
    assert all(dataset.class_names[row.class_index] == row.class_name for row in dataset.rows.itertuples())


def test_a_split_that_the_user_gave_is_kept():
    rows = given("cat", "dog")
    splits = build(rows).rows.set_index("digest").split
    assert splits.to_dict() == {row["digest"]: row["split"] for row in rows}


def test_an_image_without_a_split_is_placed_by_its_content():
    splits = build([row(number, "cd"[number % 2]) for number in range(400)]).rows.set_index("digest").split
    assert splits.to_dict() == {digest(number): split_of(digest(number), **SHARES) for number in range(400)}


@pytest.mark.parametrize("absent", ["val", "test"])
def test_a_split_that_the_user_did_not_give_is_taken_from_train(absent):
    rows = [row(number, "cd"[number % 2], "train") for number in range(80)]
    there = "test" if absent == "val" else "val"
    rows += [row(1000 + number, "cd"[number % 2], there) for number in range(10)]
    splits = build(rows).rows.set_index("digest").split
    assert set(splits) == {"train", "val", "test"}
    assert set(splits[[digest(1000 + number) for number in range(10)]]) == {there}


@pytest.mark.parametrize("verdict", ["quarantine", "ignore"])
def test_only_usable_images_are_taken(verdict):
    assert len(build([*given("cat", "dog"), row(99, "cat", "train", verdict)])) == 12


def test_copies_under_one_label_count_once():
    rows = given("cat", "dog")
    assert len(build([*rows, {**rows[0], "path": "cat/copy.png"}])) == len(rows)


def test_a_file_under_two_labels_is_in_one_split():
    rows = [row(number, "cd"[number % 2]) for number in range(80)]
    both = build([*rows, *({**row, "label": "e"} for row in rows)])
    assert (both.rows.groupby("digest").split.nunique() == 1).all()


def test_one_class_alone_is_refused_by_name():
    assert re.search(r"at least two classes are needed.*Found 1: cat\. Add a folder", refusal(given("cat")))


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_without_any_image_is_refused_with_the_share_to_raise(split):
    there = row(1000, "c", "test" if split == "val" else "val")
    message = refusal([*(row(number, "cd"[number]) for number in range(2)), there])  # one of a class is trained on
    assert re.search(
        rf"{split} has no image, out of \d+ in \d+ group\(s\)\. Add images, raise preprocess\.{split}_share, or give",
        message,
    )


def test_the_data_set_comes_back_as_it_was_written(tmp_path):
    dataset = build(given("cat", "Äpfel, grün"))
    write_dataset(tmp_path / "dataset.parquet", dataset)
    again = read_dataset(tmp_path / "dataset.parquet", RAW)
    assert (again.class_names, again.folder) == (dataset.class_names, dataset.folder)
    pd.testing.assert_frame_equal(again.rows, dataset.rows)


@pytest.fixture
def single(tmp_path: Path) -> Dataset:
    """A data set of one PNG file of one colour."""
    Image.new("RGB", (6, 4), (1, 2, 3)).save(tmp_path / "a.png")
    photo = Photo(sha256_of(tmp_path / "a.png"), "a.png", "cat", 0, "train", "PNG")
    return Dataset(pd.DataFrame([asdict(photo)]), ["cat"], tmp_path)


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_took_the_place_of_a_photo_is_not_waited_for(single, tmp_path, make):
    (tmp_path / "a.png").unlink()
    make(tmp_path / "a.png")
    with pytest.raises(InvalidData, match=r"a\.png cannot be read any more: it is not a file\. Run again"):
        single.read_photo(*single.photos())


def test_a_photo_outside_of_the_folder_is_not_read(single, tmp_path):
    """Even where its bytes are right: a link that was put there later may lead to any file."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.png").symlink_to(tmp_path / "a.png")
    moved = replace(single, folder=tmp_path / "raw")
    with pytest.raises(InvalidData, match=r"it leads out of the data folder\. Run again"):
        moved.read_photo(*moved.photos())


def test_no_decoder_sees_a_photo_that_is_not_the_one_that_was_validated(single, tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"\x89PNG hostile")
    monkeypatch.setattr("regraft.photos.memory.open_image", lambda _: pytest.fail("it was opened"))
    with pytest.raises(InvalidData, match="has changed"), single.opened(*single.photos()):
        pass
