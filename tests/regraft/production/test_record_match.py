"""Photos that were saved anew, or replaced, do not hide that their labels changed: with handwritten digits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from regraft.converters.demo_data import write_digits
from regraft.photos.dataset import COLUMNS, Dataset
from regraft.photos.duplicates import mark_duplicates
from regraft.photos.groups import hashed_given_groups
from regraft.production import training_data
from regraft.production.gate.comparison import select
from regraft.production.gate.judge import Former, Gate
from regraft.production.gate.verdict import Verdict
from regraft.production.training_data import Reference, Seen
from tests.support.gate import Answering, ask, settings
from tests.support.library import scan_folder

DIGITS = [str(digit) for digit in range(10)]
PER_CLASS = 48
SWAP = {"3": "8", "8": "3"}
Change = Callable[[Image.Image], Image.Image]


def _jpeg(image: Image.Image) -> Image.Image:
    image.format = "JPEG"
    return image


SAVED: dict[str, Change] = {
    "same pixels": lambda image: image.copy(),
    "as JPEG": lambda image: _jpeg(image.copy()),
    "twice as large": lambda image: image.resize((56, 56), Image.Resampling.BICUBIC),
}
REPLACED: dict[str, Change] = {
    "mirrored": ImageOps.mirror,
    "padded": lambda image: ImageOps.expand(image, 4),
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "raw"
    write_digits(folder)
    for path in folder.glob("*/*.png"):
        if int(path.stem) >= PER_CLASS:
            path.unlink()
    return folder


@pytest.fixture(scope="module")
def before(raw: Path) -> pd.DataFrame:
    return manifest_of(raw)


def manifest_of(folder: Path, others: pd.DataFrame | None = None) -> pd.DataFrame:
    """The used photos; of each class those with a number that can be divided by four are in train, the rest in test."""
    manifest = pd.concat([others, scan_folder(folder)[1]]).reset_index(drop=True)
    manifest = mark_duplicates(manifest, max_hash_distance=20, on_label_conflict="drop")
    manifest = manifest[manifest.verdict == "use"].reset_index(drop=True)
    split = np.where(manifest.path.map(number_of) % 4 == 0, "train", "test")
    return manifest.assign(split=pd.Series(split, manifest.index, dtype="str"))


def number_of(path: str) -> int:
    return int(Path(path).stem[:4])


def after(
    raw: Path, before: pd.DataFrame, folder: Path, change: Change, moved: dict[str, str], *, only: Callable[[int], bool]
) -> pd.DataFrame:
    """The photos of a day on which all digits of `moved` that `only` names are changed photos under the other label."""
    goes = before.label.isin(moved) & before.path.map(number_of).map(only)
    for path in map(Path, before.path[goes]):
        with Image.open(raw / path) as image:
            other = change(image)
        target = folder / moved[path.parent.name] / f"{path.stem}x{path.parent.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        other.save(target.with_suffix(".jpg" if other.format == "JPEG" else ".png"), compress_level=1)
    return manifest_of(folder, before[~goes])


def record_of(manifest: pd.DataFrame, *without: str) -> Reference:
    names = [*training_data.COLUMNS, *(name for name in training_data.RECOGNISED_BY if name not in without)]
    rows = manifest.assign(given_group=hashed_given_groups(manifest))[names].assign(sampled=False)
    return Reference(rows, np.zeros((0, 4), np.float32), "a namespace")


def verdict_of(
    record: Reference,
    today: pd.DataFrame,
    right: dict[str, str],
    distance: int | None = 20,
    *,
    learnt: Any = None,
    **more,
) -> Verdict:
    """Try a model that learnt today's labels, or others, against one that names these photos rightly."""
    names = [name for name in DIGITS if name in set(today.label)]
    rows = today.assign(class_name=today.label, class_index=today.label.map(names.index))
    photos = Dataset(rows[list(COLUMNS)].astype(COLUMNS), names, Path())
    labels = today.label if learnt is None else learnt
    new = Answering(dict(zip(today.digest, labels, strict=True)), names, sure=0.95)
    trial = Gate(new, Path(__file__), photos, today, settings(when_undecided="promote", **more), ask, distance)
    return trial.verdict(Former(Answering(right, DIGITS), record), (), warnings=[], looks=0)


def right_labels(today: pd.DataFrame) -> dict[str, str]:
    """The labels that the photos had, which their new names end with."""
    names = today.path.map(lambda path: Path(path).stem)
    return {
        digest: name[-1] if "x" in name else label
        for digest, name, label in zip(today.digest, names, today.label, strict=True)
    }


def everything(number: int) -> bool:
    return True


@pytest.mark.parametrize("kind", SAVED)
def test_two_classes_that_are_swapped_and_saved_anew_ask_for_a_person(raw, before, tmp_path, kind):
    today = after(raw, before, tmp_path, SAVED[kind], SWAP, only=everything)
    verdict = verdict_of(record_of(before), today, right_labels(today))
    assert (verdict.name, verdict.is_accepted, verdict.figures["relabelled"]) == ("Undecided", False, 72)
    assert verdict.words.startswith("Undecided: the labels of 72 of 360 compared photos changed since the model in")


@pytest.mark.parametrize("kind", SAVED)
def test_a_folder_that_is_saved_anew_with_its_labels_asks_for_nobody(raw, before, tmp_path, kind):
    same = dict(zip(DIGITS, DIGITS, strict=True))
    today = after(raw, before, tmp_path, SAVED[kind], same, only=everything)
    assert not set(today.digest) & set(before.digest)
    verdict = verdict_of(record_of(before), today, right_labels(today))
    assert (verdict.name, verdict.figures["relabelled"]) == ("Promoted", 0)


@pytest.mark.parametrize(
    ("moved", "kind", "only"),
    [
        (SWAP, "mirrored", everything),
        (SWAP, "padded", everything),
        (SWAP, "mirrored", lambda number: number % 4 and number < PER_CLASS / 2 + 2),  # half of both, in test alone
        (dict(zip(DIGITS, [*DIGITS[1:], "0"], strict=True)), "padded", everything),  # a mapping that is off by one
    ],
)
def test_photos_that_nobody_recognises_in_the_place_of_others_ask_for_a_person(
    raw, before, tmp_path, moved, kind, only
):
    today = after(raw, before, tmp_path, REPLACED[kind], moved, only=only)
    verdict = verdict_of(record_of(before), today, right_labels(today))
    assert (verdict.name, verdict.is_accepted) == ("Undecided", False)
    assert "of the test photos" in verdict.words
    assert "cannot be told from one photo under another label" in verdict.words


def test_test_photos_that_moved_to_train_while_copies_under_other_labels_came_ask_for_a_person(raw, before, tmp_path):
    today = after(raw, before, tmp_path, ImageOps.mirror, SWAP, only=everything)
    old = before[before.label.isin(SWAP)].assign(split="train")
    old["label"] = old.label.map(SWAP)
    verdict = verdict_of(record_of(before), pd.concat([today, old]).reset_index(drop=True), right_labels(today))
    assert (verdict.name, verdict.is_accepted) == ("Undecided", False)
    assert "cannot be told from one photo under another label" in verdict.words


def test_a_class_of_many_that_was_replaced_asks_for_a_person(before):
    """4 of 360 photos are far below the share of all, and not below that of their class."""
    few = before[(before.label != "3") | (before.path.map(lambda path: number_of(path) < 11))]
    is_other = (few.label == "3") & (few.split == "test")
    today = few.assign(digest=few.digest.where(~is_other, few.digest.str[::-1]), phash=few.phash.mask(is_other))
    today["group"] = today.digest
    verdict = verdict_of(record_of(few), today, dict(zip(today.digest, today.label, strict=True)))
    assert (verdict.name, verdict.is_accepted) == ("Undecided", False)
    assert "at least 50% of the test photos of '3' in production's record are gone" in verdict.words


def test_photos_that_come_or_go_alone_ask_for_nobody(before):
    right, fewer = right_labels(before), before[before.path.map(lambda path: number_of(path) % 8 != 1)]
    for then, now in ((before, fewer), (fewer, before)):
        assert verdict_of(record_of(then), now, right).name == "Promoted"


def test_a_record_without_perceptual_hashes_asks_for_a_person_where_all_files_are_new(raw, before, tmp_path):
    today = after(raw, before, tmp_path, SAVED["same pixels"], SWAP, only=everything)
    for record, distance in ((record_of(before, "phash"), 20), (record_of(before), None)):
        verdict = verdict_of(record, today, right_labels(today), distance)
        assert (verdict.name, verdict.figures["relabelled"]) == ("Undecided", 0)
        assert "at least 10% of the test photos in production's record are gone" in verdict.words


@pytest.mark.parametrize("split", ["train", "test"])
def test_labels_that_were_swapped_in_one_split_alone_promote_nothing(raw, before, tmp_path, split):
    only = (lambda number: number % 4 == 0) if split == "train" else (lambda number: number % 4 != 0)
    today = after(raw, before, tmp_path, SAVED["same pixels"], SWAP, only=only)
    right = right_labels(today)
    learnt = [SWAP.get(label, label) for label in right.values()] if split == "train" else right.values()
    verdict = verdict_of(record_of(before), today, right, learnt=list(learnt))
    assert (verdict.name, verdict.is_accepted) == ("Refused", False)


def test_a_class_that_took_the_name_of_another_one_is_not_let_in_even_if_it_was_given_up(raw, before, tmp_path):
    there = before[before.label != "8"]
    today = after(raw, there, tmp_path, SAVED["same pixels"], {"3": "8"}, only=everything)
    verdict = verdict_of(record_of(before), today, right_labels(today))
    assert "today's photos lack 1 class(es) that the model in production knows: '3'" in verdict.words
    verdict = verdict_of(record_of(before), today, right_labels(today), retired_classes=["3"])
    assert (verdict.name, verdict.is_accepted, verdict.figures["relabelled"]) == ("Undecided", False, 36)


# Who saw what.


def test_a_photo_of_train_that_comes_back_as_another_file_judges_nothing(raw, before, tmp_path):
    today = after(raw, before, tmp_path, SAVED["as JPEG"], {"3": "3"}, only=lambda number: number % 4 == 0)
    today = today.assign(split="test")
    found = select(rows_of_test(today), today, record_of(before), (DIGITS, DIGITS), max_hash_distance=20)
    assert (found.seen, len(found.rows)) == (120, 360)
    assert select(rows_of_test(today), today, record_of(before, "phash"), (DIGITS, DIGITS)).seen == 108


@pytest.mark.parametrize("by", ["the photos", "the base"])
def test_a_photo_of_a_patient_whom_production_saw_judges_nothing_when_the_older_photos_are_gone(before, by):
    patients = before.assign(given_group=["Ada" if split == "train" else None for split in before.split])
    record = record_of(patients)
    if by == "the base":
        rows = record.rows[record.rows.split == "test"]
        record = Reference(rows, record.features, "a namespace", Seen(given=Seen.of(record.rows).given))
    names = ["Ada", "Bo", *[None] * 358]
    today = before[before.split == "test"].assign(digest=lambda rows: rows.digest.str[::-1], given_group=names)
    today = mark_duplicates(today, max_hash_distance=None, on_label_conflict="drop")
    found = select(rows_of_test(today), today, record, (DIGITS, DIGITS))
    assert (found.seen, len(found.rows)) == (1, 359)


def rows_of_test(today: pd.DataFrame) -> pd.DataFrame:
    return today[today.split == "test"].assign(class_name=lambda rows: rows.label).reset_index(drop=True)
