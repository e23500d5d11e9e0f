import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from regraft.photos import duplicates
from regraft.photos.duplicates import joined_groups, mark_duplicates, near_components, nearest_of
from regraft.photos.splitting import build_dataset
from tests.support.library import scan_folder

RAW = Path("data", "raw")


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def flipped(phash: str, *positions: int) -> str:
    value = int(phash, 16)
    for position in positions:
        value ^= 1 << position
    return f"{value:064x}"


def row(number: int, label: str, *, of: int | None = None, phash: str | None = None) -> dict[str, object]:
    """A row of a manifest; `of` is the number of the file whose copy it is."""
    content = number if of is None else of
    return {
        "path": f"{label}/{number}.png",
        "label": label,
        "split": None,
        "verdict": "use",
        "reason": None,
        "digest": digest(content),
        "format": "PNG",
        "phash": phash or digest(1000 + content),
        "group": None,
        "conflict": False,
    }


def marked(
    *rows: dict[str, object], distance: int | None = 8, on_label_conflict: Literal["drop", "keep", "error"] = "drop"
) -> pd.DataFrame:
    table = pd.DataFrame(rows).astype({"reason": "str", "group": "str", "split": "str"})
    return mark_duplicates(table, max_hash_distance=distance, on_label_conflict=on_label_conflict).set_index("path")


# Groups.


@pytest.mark.parametrize(("bits", "groups"), [(8, 1), (9, 2)])
def test_near_duplicates_share_a_group_up_to_the_distance(bits, groups):
    phash = digest(7)
    near = flipped(phash, *range(0, 252, 28)[:bits])
    table = marked(row(1, "a", phash=phash), row(2, "b", phash=near))
    assert table.group.nunique() == groups


def test_without_a_distance_only_copies_are_grouped():
    phash = digest(7)
    table = marked(row(1, "a", phash=phash), row(2, "a", phash=phash), row(3, "a", of=1, phash=phash), distance=None)
    assert table.group.nunique() == 2


def test_a_given_group_is_joined_with_the_near_duplicates_of_its_photos():
    phash = digest(7)
    rows = [row(1, "a", phash=phash), row(2, "a", phash=phash), row(3, "a"), row(4, "b"), row(5, "b"), row(6, "b")]
    groups = [None, "P", "P", "Q", "Q", None]
    table = marked(*(each | {"given_group": group} for each, group in zip(rows, groups, strict=True)))
    assert table.group.factorize()[0].tolist() == [0, 0, 0, 1, 1, 2]
    assert table.near_group.factorize()[0].tolist() == [0, 0, 1, 2, 3, 4]
    assert set(table.group) == {hashlib.sha256(name).hexdigest() for name in (b"P", b"Q")} | {digest(6)}


def test_a_photo_links_the_given_groups_of_its_copies():
    near, given = pd.Series(["a", "a", "b", "c"]), pd.Series(["P", "Q", "Q", None], dtype="str")
    joined = joined_groups(near, given)
    assert (joined.nunique(), joined[3]) == (2, "c")
    assert joined[0] == min((hashlib.sha256(name).hexdigest() for name in (b"P", b"Q")), key=lambda name: name[::-1])


def linked(hashes: np.ndarray, distance: int) -> list[set[int]]:
    """Every group by brute force."""
    from scipy.sparse.csgraph import connected_components

    bits = np.unpackbits(hashes, axis=1)
    near = (bits[:, None] != bits[None]).sum(axis=2) <= distance
    return groups_of(connected_components(near, directed=False)[1])


def groups_of(component: np.ndarray) -> list[set[int]]:
    return sorted((set(np.flatnonzero(component == number).tolist()) for number in set(component)), key=min)


@pytest.mark.parametrize("distance", [0, 1, 7, 20, 32])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("crowd", [duplicates._CROWD, 0])  # with 0 hashes are compared if they share two parts
def test_the_groups_are_those_of_comparing_every_pair(distance, seed, crowd, monkeypatch):
    monkeypatch.setattr(duplicates, "_CROWD", crowd)
    random = np.random.default_rng(seed)
    centres = random.integers(0, 256, (40, 32), np.uint8)
    bits = np.unpackbits(centres[random.integers(0, 40, 200)], axis=1)
    noise = random.random(bits.shape) < distance / 600
    hashes = np.packbits(bits ^ noise, axis=1)
    assert groups_of(near_components(hashes, distance)) == linked(hashes, distance)


# One file under two labels.


def test_dropped_conflicts_are_quarantined_with_the_other_paths():
    table = marked(row(1, "a"), row(2, "b", of=1), row(3, "b"))
    assert table.verdict.to_dict() == {"a/1.png": "quarantine", "b/2.png": "quarantine", "b/3.png": "use"}
    assert table.reason["a/1.png"] == ("the same file stands under another label: b/2.png (b); remove the wrong one")


@pytest.mark.parametrize("choice", ["keep", "error"])
def test_conflicts_that_are_not_dropped_are_used_and_marked(choice):
    table = marked(row(1, "a"), row(2, "b", of=1), row(3, "b"), on_label_conflict=choice)
    assert set(table.verdict) == {"use"}
    assert table.conflict.tolist() == [True, True, False]


# The whole way from the folder.


def test_an_edited_copy_is_found_and_stays_in_the_split_of_the_photo(photo, tmp_path):
    for number in range(30):
        folder = tmp_path / ("cat" if number % 2 else "dog")
        folder.mkdir(exist_ok=True)
        detail = np.random.default_rng(number).normal(0, 40, (30, 40, 3)).repeat(5, axis=0).repeat(5, axis=1)
        image = Image.fromarray((photo(number, 200, 150) + detail).clip(0, 255).astype(np.uint8))
        image.save(folder / f"{number}.png")
        image.resize((160, 120)).save(folder / f"{number}-small.jpg", quality=60)
    _, manifest = scan_folder(tmp_path)
    manifest = mark_duplicates(manifest, max_hash_distance=20, on_label_conflict="drop")
    dataset = build_dataset(manifest, tmp_path, val_share=0.3, test_share=0.3)
    assert manifest.group.nunique() == 30
    assert (dataset.rows.groupby(dataset.rows.path.str.extract(r"/(\d+)")[0]).split.nunique() == 1).all()


@pytest.mark.parametrize(
    ("splits", "left"), [(("train", "test"), "test"), (("train", "val"), "val"), (("val", "test"), "test")]
)
def test_of_near_duplicates_in_two_given_splits_the_one_that_is_tested_stays(splits, left):
    phash = digest(7)
    pair = [row(number, "a", phash=phash) | {"split": split} for number, split in enumerate(splits)]
    others = [
        row(10 + 10 * position + number, "ab"[number % 2]) | {"split": split}
        for position, split in enumerate(("train", "val", "test"))
        for number in range(4)
    ]
    dataset = build_dataset(marked(*pair, *others).reset_index(), RAW, val_share=0.2, test_share=0.2)
    assert dataset.rows.split[dataset.rows.path.isin(["a/0.png", "a/1.png"])].tolist() == [left]


def test_the_most_similar_hashes_are_found_and_none_that_only_steps_lead_to():
    start = digest(0)
    others = [flipped(start, *range(8)), flipped(start, 1, 2), flipped(start, *range(16)), flipped(start, 7, 9)]
    assert nearest_of([start, digest(1)], others, 8) == [[1, 3], []]
    assert nearest_of([start, others[2]], [others[0]], 8) == [[0], [0]]
    assert nearest_of([start], others[2:3], 8) == [[]]
    assert nearest_of([start], [], 8) == [[]]
