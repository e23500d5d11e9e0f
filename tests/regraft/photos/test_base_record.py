"""The record of the base: when it stays, when it is renewed, what is said of it, and what it is not judged on."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pytest

from regraft.core.errors import Damaged
from regraft.photos.base_choice import changes_since, choose_record
from regraft.photos.base_record import BaseRecord, located, read_base_record, record_of, write_base_record
from regraft.photos.dataset import COLUMNS, Dataset
from regraft.photos.left_out import Today, left_out_of, unseen, write_left_out

RAW = Path("raw")
SPLITS = {0: "val", 5: "test"}  # by the last digit; all others are in train
SETTINGS = {"fine_tune": {"epochs": 2}, "seed": 1}


def digest(number: int) -> str:
    return f"{number:064x}"


HASHES = {digest(number): hashlib.sha256(str(number).encode()).hexdigest() for number in range(100)}  # none is near


def dataset(numbers: Iterable[int] = range(100), **changes: dict[int, str]) -> Dataset:
    """Photos by number: every second one is a cat; of ten, one is in val and one in test. Changes are by column."""
    rows = pd.DataFrame(
        [
            (
                digest(number),
                f"{number}.jpg",
                ("cat", "dog")[number % 2],
                SPLITS.get(number % 10, "train"),
            )
            for number in sorted(numbers)
        ],
        columns=["digest", "path", "class_name", "split"],
    )
    for column, values in changes.items():
        for number, value in values.items():
            rows.loc[rows.digest == digest(number), column] = value
    names = sorted(set(rows.class_name))
    rows = rows.assign(class_index=rows.class_name.map(names.index), format="JPEG")
    return Dataset(rows[list(COLUMNS)].astype(COLUMNS), names, RAW)


def record(photos: Dataset, *, code: str = "code", is_off: bool = False, **settings: object) -> BaseRecord:
    return record_of(Today(photos, hashes=HASHES), {**SETTINGS, **settings}, code, is_off=is_off)


BASE = record(dataset())


def choose(today: Dataset, *, before: BaseRecord | None = BASE, now: BaseRecord | None = None, asked=None, after=0.1):
    return choose_record(before, now or record(today), Today(today), asked=asked or {}, renew_after=after)


def test_a_record_has_train_and_val_and_comes_back_as_it_was(tmp_path):
    write_base_record(tmp_path / "a.parquet", BASE)
    back = read_base_record(tmp_path / "a.parquet", RAW)
    pd.testing.assert_frame_equal(back.photos.rows, BASE.photos.rows)
    assert (back.photos.class_names, back.settings, back.code) == (["cat", "dog"], SETTINGS, "code")
    assert (back.name, len(back.photos)) == (BASE.name, 90)


def test_equal_records_have_equal_bytes_and_damage_is_found(tmp_path):
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"
    write_base_record(first, BASE)
    write_base_record(second, record(dataset()))
    assert first.read_bytes() == second.read_bytes()
    second.write_bytes(first.read_bytes()[:-9] + b"123456789")
    with pytest.raises(Damaged):
        read_base_record(second, RAW)


def test_a_name_follows_from_photos_labels_settings_and_code_and_not_from_names_of_files():
    assert record(dataset(path={3: "renamed.jpg"})).name == BASE.name
    others = [record(dataset(range(101))), record(dataset(class_name={3: "cat"})), record(dataset(), code="other")]
    assert len({BASE.name, record(dataset(), seed=2).name, *(other.name for other in others)}) == 5


def test_with_few_new_photos_the_base_is_kept_and_says_how_many():
    choice = choose(dataset(range(104)))
    assert (choice.record, choice.is_renewed) == (BASE, False)
    assert choice.words == (
        "The base is kept: 4 of 94 photos have changed since (4.3%: 4 new); fine_tune.renew_after is 10%."
    )


@pytest.mark.parametrize(
    ("today", "kind"),
    [
        (dataset(range(98)), "gone"),
        (dataset(class_name={3: "cat", 7: "cat"}), "under another label"),
        (dataset(split={3: "test", 7: "val"}), "in another split"),
        (dataset(range(103)), "new"),
    ],
)
def test_what_counts_as_changed(today, kind):
    counts = {what: len(digests) for what, digests in changes_since(BASE, Today(today)).by_kind().items()}
    assert counts.pop(kind) == (3 if kind == "new" else 2)
    assert set(counts.values()) == {0}


@pytest.mark.parametrize(
    ("choice", "why"),
    [
        (choose(dataset(range(120))), "18 of 108 photos have changed since (16.7%: 18 new), and fine_tune.renew_after"),
        (choose(dataset(range(101)), after=0.0), "1 of 91 photos have changed since"),
        (choose(dataset(class_name={3: "em\x1bu"})), "class em\\x1bu came"),
        (choose(dataset(range(0, 100, 2))), "class dog went"),
        (choose(dataset(), now=record(dataset(), fine_tune={"epochs": 3})), "other settings: fine_tune.epochs"),
        (choose(dataset(), now=record(dataset(), code="new")), "the code or a library that trains it changed"),
        (choose(dataset(), before=record(dataset(), is_off=True)), "fine-tuning was off"),
        (choose(dataset(range(101)), asked={BASE.name: "it is bad"}), "it was asked for: it is bad"),
        (choose(dataset(split={1: "val", 3: "val"})), "it saw 2 of the 12 photos that are in val now, or n"),
    ],
)
def test_it_is_renewed_and_says_why(choice, why):
    assert choice.is_renewed
    assert choice.words.startswith(f"The base is renewed: {why}")
    assert (len(choice.changes.new), choice.left_out) == (0, {})


EMUS = range(1, 200, 10)  # 20 of 2,400 photos, of which 2,160 are in train and val


def with_emus(emus: Iterable[int] = EMUS, *, numbers: Iterable[int] = range(2400), **labels: Iterable[int]) -> Dataset:
    """Photos of which some are emus; `labels` gives others another class: cat=[3]."""
    changed = {number: name for name, some in labels.items() for number in some}
    return dataset(numbers, class_name=dict.fromkeys(emus, "emu") | changed)


OF_EMUS = record(with_emus())


@pytest.mark.parametrize(
    ("before", "today", "why"),
    [
        (OF_EMUS, with_emus([1]), "19 of 20 labels of class emu have changed since, more than 10%"),
        (record(with_emus([1])), with_emus(), "19 of 20 labels of class emu have changed since, more than 10%"),
        (OF_EMUS, with_emus(EMUS[3:]), "3 of 20 labels of class emu have changed since, more than 10%"),
        (OF_EMUS, with_emus(dog=range(2, 240, 10)), "24 of 2,160 labels have changed since, more than 1%"),
        (OF_EMUS, with_emus(range(1, 400, 10), numbers=[*range(2400)]), "20 of 40 labels of class emu have changed"),
        (
            OF_EMUS,
            with_emus([*EMUS, *range(2401, 2600, 10)], numbers=[*range(2400), *range(2401, 2600, 10)]),
            "half of class emu is new: 20 of 40 photos",
        ),
        (OF_EMUS, with_emus(EMUS[10:], numbers=set(range(2400)) - {*EMUS[:10]}), "half of class emu is gone: 10 of 20"),
    ],
)
def test_what_a_warm_run_would_not_unlearn_renews_the_base_however_few_photos_it_is(before, today, why):
    choice = choose(today, before=before)
    assert choice.words.startswith(f"The base is renewed: {why}")
    assert changes_since(before, Today(today)).share < 0.02


@pytest.mark.parametrize(
    "today",
    [
        with_emus(EMUS[2:]),  # a tenth of the labels of a class, and not more
        with_emus(dog=range(2, 212, 10)),  # 21 of 2,160 labels
        with_emus(EMUS[9:], numbers=set(range(2400)) - {*EMUS[:9]}),
        with_emus([*EMUS, *range(2401, 2590, 10)], numbers=[*range(2400), *range(2401, 2590, 10)]),
    ],
)
def test_a_few_labels_or_photos_less_keep_it(today):
    assert not choose(today, before=OF_EMUS).is_renewed


@pytest.mark.parametrize("emus", [EMUS[:2], EMUS[:9]])
def test_one_photo_alone_renews_nothing_however_small_its_class(emus):
    before = record(with_emus(emus))
    assert not choose(with_emus(emus[1:]), before=before).is_renewed
    assert not choose(with_emus(emus[1:], numbers=set(range(2400)) - {emus[0]}), before=before).is_renewed


@pytest.mark.parametrize(("name", "counts"), [("dog", (0, 3, 3)), ("emu", (3, 3, 0))])
def test_a_picture_that_was_saved_anew_under_another_label_is_relabelled(name, counts):
    """The new files have other bytes and nearly the perceptual hashes of the former ones."""
    former, saved = EMUS[:3], range(3001, 3031, 10)
    hashes = {digest(number): hashlib.sha256(str(number).encode()).hexdigest() for number in range(2400)}
    before = record_of(Today(with_emus(), hashes=hashes), SETTINGS, "code", is_off=False)
    hashes |= {digest(new): f"{int(hashes[digest(old)], 16) ^ 7:064x}" for old, new in zip(former, saved, strict=True)}
    photos = with_emus(EMUS[3:], numbers=set(range(2400)) - {*former} | {*saved}, **{name: saved})
    today = Today(photos, hashes=hashes, max_hash_distance=3)
    changes = changes_since(before, today)
    assert (len(changes.new), len(changes.gone), len(changes.relabelled)) == counts
    choice = choose_record(before, record(photos), today, asked={}, renew_after=0.1)
    assert ("3 of 20 labels of class emu have changed since" in choice.words) is (name == "dog")


def test_what_the_base_saw_judges_nothing(tmp_path):
    moved = dataset(split={1: "val", 2: "test", 10: "test", 20: "train"})
    left_out = choose(moved, after=0.5).left_out
    assert left_out == {"val": {digest(1)}, "test": {digest(2), digest(10)}}
    write_left_out(tmp_path / "a.parquet", left_out)
    out = set(moved.rows.digest) - set(unseen(moved, tmp_path / "a.parquet").rows.digest)
    assert out == {digest(1), digest(2), digest(10)}
    assert left_out_of(BASE, Today(dataset())) == {}
    assert left_out_of(BASE, Today(dataset(split={0: "train"}))) == {}


def test_a_near_duplicate_of_what_the_base_was_trained_on_judges_nothing_whether_that_is_there_or_gone():
    """The user gave 105 to test: 1, of the same group, is left out of train, but the base was trained on it."""
    groups = {digest(number): digest(number) for number in range(110)}
    groups |= {digest(105): digest(1), digest(100): digest(0)}
    today = dataset([number for number in range(110) if number != 1])
    assert left_out_of(BASE, Today(today, groups)) == {"test": {digest(105)}}
    # 100 is in val, as 0 is, which only chose the settings; 1 is gone for good, and 105 is what it was saved as anew.
    del groups[digest(1)]
    near = f"{int(HASHES[digest(1)], 16) ^ 0b111:064x}"
    hashes = HASHES | {digest(105): near}
    for distance, expected in ((3, {"test": {digest(105)}}), (2, {}), (None, {})):
        assert left_out_of(BASE, Today(today, groups, hashes, distance)) == expected


def test_a_photo_of_a_patient_whom_the_base_saw_judges_nothing_when_the_older_photos_are_gone(tmp_path):
    given = {digest(2): "a" * 64, digest(7): "b" * 64}  # of photos of train; a record has no names
    write_base_record(tmp_path / "a.parquet", record_of(Today(dataset(), given=given), SETTINGS, "code", is_off=False))
    saw = read_base_record(tmp_path / "a.parquet", RAW)
    today = dataset([*(number for number in range(100) if number not in (2, 7)), 105])
    groups = {digest(105): digest(105), digest(95): digest(95)}
    known = {digest(105): "a" * 64, digest(95): "c" * 64}
    assert left_out_of(saw, Today(today, groups, given=known)) == {"test": {digest(105)}}
    assert left_out_of(BASE, Today(today, groups, given=known)) == {}


def test_a_photo_that_was_renamed_is_found_and_one_that_is_gone_keeps_its_name():
    today = dataset([number for number in range(100) if number != 9], path={3: "new/name.jpg"})
    paths = located(BASE, today).rows.set_index("digest").path
    assert (paths[digest(3)], paths[digest(9)], paths[digest(7)]) == ("new/name.jpg", "9.jpg", "7.jpg")


def shuffled(number: int) -> str:
    """A digest whose last digits, which decide on the sample, say nothing of the number."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def many(numbers: Iterable[int], **changes: dict[int, str]) -> Dataset:
    """The photos of `dataset`, with digests as good as drawn."""
    made = dataset(numbers, **changes)
    digests = [shuffled(int(each, 16)) for each in made.rows.digest]
    return made.with_rows(made.rows.assign(digest=digests).sort_values("digest").reset_index(drop=True))


def sampled(today: Dataset, most: int = 300) -> BaseRecord:
    return record_of(Today(today), SETTINGS, "code", is_off=False, max_photos=most)


SAMPLE = sampled(many(range(1000)))


def test_a_base_of_a_sample_says_of_how_many_photos_and_one_of_all_says_nothing(tmp_path):
    write_base_record(tmp_path / "a.parquet", SAMPLE)
    back = read_base_record(tmp_path / "a.parquet", RAW)
    assert (len(back.photos), back.of, back.name) == (300, 900, SAMPLE.name)
    assert back.parts == SAMPLE.parts == {"train": {"cat": 400, "dog": 400}, "val": {"cat": 100}}
    assert back.sample_words == " It is made of a sample of 300 of 900 photos (fine_tune.max_photos)."
    assert not BASE.sample_words
    whole = record_of(Today(dataset(), hashes=HASHES), SETTINGS, "code", is_off=False, max_photos=90)
    for name, each in {"b.parquet": whole, "c.parquet": BASE}.items():
        write_base_record(tmp_path / name, each)
    assert (tmp_path / "b.parquet").read_bytes() == (tmp_path / "c.parquet").read_bytes()


@pytest.mark.parametrize(("today", "share"), [(many(range(1000)), 0), (many(range(100, 1000)), 0.1)])
def test_photos_that_the_sample_left_out_are_never_new_also_where_they_take_the_places_of_others(today, share):
    choice = choose(today, before=SAMPLE, now=sampled(today), after=0.5)
    assert not choice.changes.new
    assert choice.changes.share == pytest.approx(share, abs=0.03)
    assert choice.record is SAMPLE


def test_of_photos_that_come_in_as_large_a_share_is_new_to_a_sample_as_to_the_whole():
    today = many(range(1080))
    choice = choose(today, before=SAMPLE, now=sampled(today), after=0.5)
    assert choice.changes.new == {each for each in sampled(today).saw() if each not in SAMPLE.saw()}
    assert choice.changes.share == pytest.approx(80 / 1080, abs=0.03)
    assert " of 300 photos of the sample have changed since" in choice.words
    assert not choice.left_out  # of val and test nothing is lost by what train left out


@pytest.mark.parametrize(("most", "is_renewed"), [(400, True), (200, False)])
def test_a_larger_sample_renews_the_base_and_a_smaller_one_does_not(most, is_renewed):
    today = many(range(1000))
    choice = choose(today, before=SAMPLE, now=sampled(today, most))
    assert choice.is_renewed is is_renewed
    assert ("made of 300 photos, and 400 may be trained on now" in choice.words) is is_renewed
