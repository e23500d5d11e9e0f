"""Splits that never move: arrivals, departures and returns in any order, clones, kills, and the record as a file."""

import hashlib
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.core.errors import InvalidData
from regraft.photos.dataset import Dataset, write_dataset
from regraft.photos.duplicates import joined_groups
from regraft.photos.split_record import SplitRecord, digest_of, new_record, read_record, recall, write_record
from regraft.photos.splitting import place

SHARES = {"val_share": 0.25, "test_share": 0.25}
# The first digit says which split a photo gets alone: 0 to 3 test, 4 to 7 val, 8 to f train.


def digest(start: str, number: int, end: str = "0") -> str:
    return f"{start}{number:062x}{end}"


def manifest_of(photos: dict[str, str | None], links: list[set[str]], groups: dict[str, str]) -> pd.DataFrame:
    """Used photos with the splits that the user gave, the near-duplicates among them, and their given groups.

    A photo's number says its class, one of three.
    """
    digests = list(photos)
    near = {name: {name} for name in digests}
    for first, second in (link for link in links if link <= photos.keys()):
        joined = near[first] | near[second]
        near |= dict.fromkeys(joined, joined)
    table = pd.DataFrame({"digest": digests, "split": photos.values(), "verdict": "use"}, dtype="str")
    table["label"] = pd.Series([["red", "green", "blue"][int(name[1:63], 16) % 3] for name in digests], dtype="str")
    named = pd.Series([min(near[name], key=lambda each: each[::-1]) for name in digests], dtype="str")
    table["group"] = joined_groups(named, pd.Series([groups.get(name) for name in digests], dtype="str"))
    return table


def run(
    manifest: pd.DataFrame, earlier: dict[str, str], *, by_name: bool = False
) -> tuple[Dataset, dict[str, str], SplitRecord]:
    """Place the photos; return the data set, as far as the record asks for it, its splits and the record."""
    placed = place(manifest, **SHARES, earlier=earlier, by_name=by_name)
    rows = manifest.assign(split=placed.split)[placed.stays]
    dataset = Dataset(rows, [], Path("raw"))
    splits = dict(zip(dataset.rows.digest, dataset.rows.split, strict=True))
    return dataset, splits, new_record(manifest, dataset, earlier, **SHARES)


@st.composite
def lives(draw: st.DrawFn) -> tuple[list[dict[str, str | None]], list[set[str]], dict[str, str]]:
    """What is in the folder in each of several runs, which photos are near-duplicates, and which have a group."""
    ends = draw(st.permutations("0123456789ab"))  # they decide which photo of a group names it
    photos = [digest(draw(st.sampled_from("048")), number, end) for number, end in enumerate(ends)]
    some = st.sets(st.sampled_from(photos))
    links = draw(st.lists(st.sets(st.sampled_from(photos), min_size=2, max_size=2), max_size=5))
    groups = draw(st.dictionaries(st.sampled_from(photos), st.sampled_from("PQ"), max_size=4))
    user = st.sampled_from([None, None, None, "train", "val", "test"])
    given_splits = draw(st.one_of(st.just({}), st.dictionaries(st.sampled_from(photos), user)))
    runs = draw(st.lists(some, min_size=2, max_size=6))
    return [{name: given_splits.get(name) for name in sorted(present)} for present in runs], links, groups


@given(lives())
@settings(max_examples=25, deadline=None, derandomize=True)
def test_no_photo_ever_changes_its_split_and_no_group_is_in_two(life):
    runs, links, groups = life
    history: dict[str, str] = {}
    datasets: list[dict[str, str]] = [{}]
    record = SplitRecord(**SHARES, splits={})
    for photos in runs:
        manifest = manifest_of(photos, links, groups)
        _, splits, record = run(manifest, datasets[-1] | record.splits)
        for name, split in splits.items():
            wanted = photos.get(name)
            if wanted is None:
                assert history.setdefault(name, split) == split
            assert wanted in (None, "train", split)
        assert (manifest.digest.map(splits).dropna().groupby(manifest.group).nunique() == 1).all()
        # A clone has the folder and the record; a run that was killed, or a machine that was behind, has the new record
        # and an old data set. The next run of nobody moves anything.
        assert run(manifest, record.splits, by_name=True)[1:] == (splits, record)
        for dataset in datasets[-2:]:
            is_behind = digest_of(dataset) != record.data_set
            assert run(manifest, dataset | record.splits, by_name=is_behind)[1] == splits
        assert run(manifest, splits | record.splits)[1:] == (splits, record)
        datasets.append(splits)


@given(st.lists(st.tuples(st.lists(st.integers(0, 12), min_size=3, max_size=3), st.integers(0, 9)), max_size=6))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_each_class_has_its_share_of_val_and_test_as_photos_come_and_go(nights):
    record, before, present, came = SplitRecord(**SHARES, splits={}), {}, set(), 0
    for arrivals, every in nights:
        present -= {name for number, name in enumerate(sorted(present)) if every and number % every == 0}
        stayed = {name: split for name, split in before.items() if name in present}
        for number in (3 * (came + each) + name for name, count in enumerate(arrivals) for each in range(count)):
            present.add(hashlib.sha256(f"{number}".encode()).hexdigest()[:1] + f"{number:062x}0")
        came += max(arrivals)
        manifest = manifest_of(dict.fromkeys(sorted(present)), [], {})
        _, before, record = run(manifest, before | record.splits)
        for _, photos in manifest.groupby("label"):
            now, old = (photos.digest.map(splits).value_counts() for splits in (before, stayed))
            due, new = 0.25 * len(photos), len(photos) - old.sum()
            assert min(due - 1, old.get("test", 0) + new) <= now.get("test", 0) <= max(due + 1, old.get("test", 0))
            assert now.get("val", 0) <= max(due + 1, old.get("val", 0))
            if new >= 2 * due + 2:  # enough to make up for whatever left
                assert now.get("val", 0) >= due - 1


# Single stories of classes with many photos, where names decide.

A, B, C = digest("0", 1, "5"), digest("8", 2, "3"), digest("8", 3, "9")  # alone: test, train, train; B names any group


def later(*runs: tuple[str, ...], links: tuple[str, ...] = (A + B, B + C)) -> list[dict[str, str]]:
    """The splits of A, B and C after each run in which some of them are there."""
    near = [{link[:64], link[64:]} for link in links]
    record, before, splits = SplitRecord(**SHARES, splits={}), {}, []
    for present in runs:
        manifest = manifest_of(dict.fromkeys(present), near, {})
        _, before, record = run(manifest, before | record.splits, by_name=True)
        splits.append(before)
    return splits


def test_a_near_duplicate_joins_the_photo_that_is_there_whichever_names_the_group():
    assert later((A,), (A, B))[-1] == {A: "test", B: "test"}
    assert later((B,), (A, B))[-1] == {A: "train", B: "train"}


def test_a_newcomer_that_links_two_groups_joins_the_better_protected_one_and_the_other_is_left_out():
    assert later((A, C), (A, B, C))[-1] == {A: "test", B: "test"}


def test_a_photo_that_returns_has_its_old_split_whoever_came_meanwhile():
    # B was placed alone while A was away: A stays a test photo, so B is not trained on any more.
    assert later((A,), (), (B,), (A, B))[-2:] == [{B: "train"}, {A: "test"}]


def test_photos_of_an_earlier_version_stay_where_names_put_them_and_only_new_ones_are_counted(tmp_path):
    # Of 60 photos 30 are tested by name, and an old record says nothing of them. A clone without the data set knows no
    # more; where it is, the first new record belongs to it, and then new photos make up for what is too many.
    photos = {digest("08"[number % 2], number): None for number in range(60)}
    manifest = manifest_of(photos, [], {})
    old, splits, _ = run(manifest, {}, by_name=True)
    write_record(tmp_path / "splits.csv", SplitRecord(**SHARES, splits={}))
    for name in ("none.parquet", "dataset.parquet"):
        earlier = recall(tmp_path / "splits.csv", tmp_path / name, **SHARES)
        assert not earlier.is_complete
        assert run(manifest, earlier.splits, by_name=True)[1] == splits
        write_dataset(tmp_path / "dataset.parquet", old)
    write_record(tmp_path / "splits.csv", run(manifest, earlier.splits, by_name=True)[2])
    earlier = recall(tmp_path / "splits.csv", tmp_path / "dataset.parquet", **SHARES)
    assert earlier.is_complete
    more = manifest_of(photos | {digest("0", number): None for number in range(60, 120)}, [], {})
    _, now, _ = run(more, earlier.splits)
    assert {name: now[name] for name in splits} == splits
    assert Counter(split for name, split in now.items() if name not in splits) == {"val": 30, "train": 30}


def test_a_split_that_the_user_gives_wins_over_an_earlier_one():
    manifest = manifest_of({A: "train", B: "val", C: "test"}, [], {})
    assert run(manifest, {A: "test", B: "train", C: "train"})[1].items() >= {A: "train", B: "val", C: "test"}.items()


# The record as a file.

RECORD = SplitRecord(0.25, 0.125, {C: "train", A: "test"}, "5" * 64)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "splits.csv"
    write_record(path, RECORD)
    return path


def test_the_record_comes_back_and_is_ordered_for_git(file):
    assert read_record(file) == RECORD
    assert file.read_text().splitlines()[1:] == [
        "photo,split", "val_share,0.25", "test_share,0.125", f"data_set,{'5' * 64}", f"{A},test", f"{C},train",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("test\n", "train\n"),
        lambda text: text.rsplit("\n", 2)[0] + "\n",
        lambda text: text[:-1],
        lambda text: text.replace("0.25", "0.2"),
        lambda text: text + f"{B},test\n",
        lambda text: "",
        lambda text: "\x1b[2J",
    ],
)
def test_an_edited_record_is_refused_with_what_to_do(file, damage):
    file.write_text(damage(file.read_text()))
    with pytest.raises(InvalidData, match=r"splits\.csv should hold .*was edited or is damaged.*`git checkout -- "):
        recall(file, file.with_name("dataset.parquet"), **SHARES)


# What is recalled of the run before.


def recalled(tmp_path: Path, record: SplitRecord | None, dataset: bytes | Dataset | None) -> tuple[dict[str, str], str]:
    if record:
        write_record(tmp_path / "splits.csv", record)
    if isinstance(dataset, Dataset):
        write_dataset(tmp_path / "dataset.parquet", dataset)
    elif dataset is not None:
        (tmp_path / "dataset.parquet").write_bytes(dataset)
    earlier = recall(tmp_path / "splits.csv", tmp_path / "dataset.parquet", **SHARES)
    return earlier.splits, earlier.note


def test_record_and_data_set_are_recalled_and_the_record_wins(tmp_path):
    dataset, *_ = run(manifest_of({A: "test", B: "test", C: "test"}, [], {}), {})
    splits = {A: "val", B: "test", C: "test"}
    assert recalled(tmp_path, SplitRecord(**SHARES, splits={A: "val"}), dataset) == (splits, "")


@pytest.mark.parametrize(("contents", "is_noted"), [(None, False), (b"PAR1 and then nothing", True)])
def test_without_the_data_set_the_record_is_recalled_and_damage_is_reported(tmp_path, contents, is_noted):
    splits, note = recalled(tmp_path, SplitRecord(**SHARES, splits={A: "val"}), contents)
    assert splits == {A: "val"}
    assert ("dataset.parquet was damaged" in note) == is_noted


def test_with_other_shares_nothing_is_recalled_and_the_report_says_so(tmp_path):
    dataset, *_ = run(manifest_of({A: None}, [], {}), {})
    splits, words = recalled(tmp_path, SplitRecord(0.1, 0.25, {B: "test"}), dataset)
    assert splits == {}
    assert words == (
        "Every photo was placed anew: preprocess.val_share and test_share are 0.25 and 0.25, and were 0.1 and 0.25."
    )
