import pytest

from regraft.photos.base_record import record_of
from regraft.photos.dataset import COLUMNS, Dataset
from regraft.photos.left_out import Today
from regraft.photos.sample import training_sample
from regraft.training.warm import warm_photos, warm_settings
from tests.regraft.photos.test_base_record import RAW, dataset, digest, many, shuffled
from tests.support.library import fine_tune_settings

BASE = record_of(Today(dataset()), {}, "", is_off=False)


def chosen(today, **settings):
    return warm_photos(today, BASE, fine_tune_settings(**{"replay": 2, "replay_per_class": 1} | settings))


def test_nothing_new_nothing_is_visited():
    assert (len(chosen(dataset()).photos), chosen(dataset()).new) == (0, 0)
    assert chosen(dataset([*range(100), 105, 110])).new == 0  # of test and val


def test_new_ones_are_visited_with_so_many_old_ones_each():
    photos = chosen(dataset(range(104)))
    assert (photos.new, photos.replayed) == (3, 6)
    assert photos.photos.rows.digest.tolist() == [digest(number) for number in (1, 2, 3, 4, 6, 7, 101, 102, 103)]
    assert set(photos.photos.rows.split) == {"train"}


@pytest.mark.parametrize(("replay", "per_class", "old"), [(0, 1, 2), (0, 5, 10), (1000, 1, 80), (0, 1000, 80)])
def test_of_each_class_there_are_enough(replay, per_class, old):
    photos = chosen(dataset(range(104)), replay=replay, replay_per_class=per_class)
    assert photos.replayed == old
    assert set(photos.photos.rows.class_name) == {"cat", "dog"}


def test_five_new_photos_do_not_bring_photos_of_a_thousand_classes_back():
    names, photos = [f"class {number:04}" for number in range(1000)], many(range(5000))
    indices = [int(each[:8], 16) % 1000 for each in photos.rows.digest]
    rows = photos.rows.assign(split="train", class_index=indices, class_name=[names[index] for index in indices])
    today = Dataset(rows.astype(COLUMNS), names, RAW)
    record = record_of(Today(today.with_rows(today.rows[5:])), {}, "", is_off=False)
    settings = fine_tune_settings(replay=8, replay_per_class=10)
    found = warm_photos(today, record, settings)
    assert found.new == 5
    assert 320 <= found.replayed <= 360  # 4,995 without a limit
    replayed = found.photos.rows[~found.photos.rows.digest.isin(today.rows.digest[:5])]
    assert replayed.class_name.nunique() >= 320  # none is there ten times, and most not at all
    assert warm_photos(today, record, settings.model_copy(update={"replay": 100})).replayed >= 2000
    fewer = today.with_rows(today.rows.drop(index=range(10, 5000, 50)).reset_index(drop=True))
    stayed = set(warm_photos(fewer, record, settings).photos.rows.digest)
    assert len(set(found.photos.rows.digest) - stayed) <= 20  # of the 100 that went about 7 were visited


def test_another_label_and_another_split_make_a_photo_new_and_one_that_is_gone_is_not_visited():
    today = dataset(range(3, 100), class_name={3: "cat"}, split={10: "train"})
    photos = chosen(today)
    assert (photos.new, photos.replayed) == (2, 4)
    assert photos.photos.rows.digest.tolist() == [digest(number) for number in (3, 4, 6, 7, 8, 10)]


def test_a_warm_run_has_fewer_epochs_at_a_smaller_rate():
    settings = warm_settings(fine_tune_settings(epochs=10, warm_epochs=2, learning_rate=0.01, warm_rate=0.1))
    assert (settings.epochs, settings.learning_rate) == (2, 0.001)


def test_a_warm_run_of_a_sample_visits_what_came_in_and_nothing_that_was_left_out():
    before, today = many(range(1000)), many(range(1040), class_name={3: "cat"})
    record = record_of(Today(before), {}, "", is_off=False, max_photos=300)
    sample = training_sample(today, 300)
    photos = warm_photos(sample, record, fine_tune_settings(replay=1, replay_per_class=1))
    known = set(record.photos.rows.digest)
    came = {shuffled(number) for number in range(1000, 1040)}
    visited = set(photos.photos.rows.digest)
    assert 0 < photos.new == len(visited & (came | {shuffled(3)}))
    assert visited <= known | came
