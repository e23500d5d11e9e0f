"""Scores of photos without labels: what is computed, what is named, what stays, and what is an alarm."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from regraft.core.errors import Damaged
from regraft.export.classifier import OnnxClassifier, open_said
from regraft.photos.images import Threads
from regraft.photos.incoming import find_incoming
from regraft.photos.scan import scan
from regraft.production import prediction_drift
from regraft.production.prediction_drift import Figure, Trained, latest_photos, measure_drift
from regraft.production.scores import Scored, as_arrow, build_rows, merge, read_scores, score, write_scores
from regraft.production.training_data import Reference
from tests.support.library import LIMITS

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
NAMES = ["red", "green", "blue"]


@pytest.fixture
def folder(photo: Callable, tmp_path: Path) -> Path:
    """Five photos, one of them twice, and two files that are none."""
    folder = tmp_path / "incoming"
    folder.mkdir()
    for number in range(5):
        Image.fromarray(photo(number, 48, 32)).save(folder / f"{number}.png")
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "broken.png").write_bytes((folder / "1.png").read_bytes()[:200])
    (folder / "notes.txt").write_text("no photo")
    return folder


@pytest.fixture
def ask(
    colour_classifier: Callable[[list[str]], OnnxClassifier], folder: Path, tmp_path: Path
) -> Callable[..., Scored]:
    """A function that scores the folder; `meanwhile` is done between scan and model."""
    classifier = colour_classifier(NAMES)

    def run(meanwhile: Callable[[], object] = lambda: None) -> Scored:
        incoming = find_incoming(folder)
        found = scan(folder, incoming.paths, limits=LIMITS, threads=Threads(2), cache=None)
        meanwhile()
        said = open_said(tmp_path / "store", classifier)
        return score(incoming, dict(found.items(incoming.paths)), classifier, Threads(2), said)

    return run


def test_a_photo_is_computed_once_whatever_it_is_called(ask: Callable[..., Scored], folder: Path) -> None:
    first = ask()
    assert (first.computed, first.skipped, sorted(first.rows.path[first.rows.error.isna()])) == (
        5,
        1,
        ["0.png", "1.png", "2.png", "3.png", "4.png", "copy.png"],
    )
    (folder / "0.png").rename(folder / "renamed.png")
    again = ask()
    assert again.computed == 0
    said = again.rows.set_index("path")
    assert said.loc["renamed.png", "p:red"] == said.loc["copy.png", "p:red"]


def test_probabilities_are_those_of_the_model_and_a_bad_file_is_named(ask, folder: Path, colour_classifier) -> None:
    rows = ask().rows.set_index("path")
    pixels = np.asarray(Image.open(folder / "3.png"))
    expected = colour_classifier(NAMES).probabilities(pixels)
    assert rows.loc["3.png", ["p:red", "p:green", "p:blue"]].tolist() == expected.tolist()
    assert rows.loc["3.png", "class"] == NAMES[int(expected.argmax())]
    assert "cannot be decoded" in rows.loc["broken.png", "error"]
    assert pd.isna(rows.loc["broken.png", "class"])


def test_photos_that_vanish_meanwhile_are_named_and_all_others_are_scored(ask, folder: Path) -> None:
    def meanwhile() -> None:
        (folder / "2.png").unlink()
        (folder / "4.png").write_bytes((folder / "3.png").read_bytes())

    found = ask(meanwhile)
    errors = found.rows.set_index("path").error
    assert "cannot be read any more" in errors["2.png"]
    assert "has changed" in errors["4.png"]
    assert errors[["0.png", "1.png", "3.png", "copy.png"]].isna().all()
    assert found.computed == 3


def _today(*photos: tuple[str, str], model: str = "m") -> pd.DataFrame:
    facts = {"class": "red", "probability": 0.5, "unsure": False, "model": model, "p:red": 0.5}
    return build_rows([{"path": path, "sha256": digest, **facts} for path, digest in photos], ["red"])


def test_times_follow_the_content_and_the_model() -> None:
    later, latest = NOON + timedelta(days=1), NOON + timedelta(days=2)
    first = merge(build_rows([], []), _today(("a", "1")), NOON, 30)
    renamed = merge(first, _today(("b", "1"), ("c", "2")), later, 30)
    there = renamed[renamed.gone_at.isna()].set_index("path")
    assert there.first_seen.tolist() == [NOON, later]
    again = merge(renamed, _today(("b", "1"), model="other"), latest, 30).set_index("path")
    assert (again.first_seen["b"], again.scored_at["b"]) == (NOON, latest)


def test_the_row_of_a_photo_that_is_gone_stays_for_some_days() -> None:
    scores = merge(build_rows([], []), _today(("a", "1")), NOON, 2)
    kept = []
    for day in range(1, 5):
        scores = merge(scores, _today(), NOON + timedelta(days=day), 2)
        kept.append([(row.path, row.gone_at) for row in scores.itertuples()])
    found_gone = ("a", NOON + timedelta(days=1))
    assert kept == [[found_gone], [found_gone], [], []]


def test_a_run_without_news_leaves_the_table_as_it_is_to_the_byte(ask, tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    write_scores(path, merge(read_scores(path), ask().rows, NOON, 30))
    before, contents = read_scores(path), path.read_bytes()
    after = merge(before, ask().rows, NOON + timedelta(days=1), 30)
    assert as_arrow(after).equals(as_arrow(before))
    write_scores(path, after)
    assert path.read_bytes() == contents


def test_a_damaged_table_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    write_scores(path, merge(build_rows([], []), _today(("a", "1")), NOON, 2))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(Damaged, match="Move it away and run the same command again"):
        read_scores(path)


def _recent(
    count: int, seed: int, *, brightness: float = 0.0, novel: float = 0.01, unsure: float = 0.1
) -> pd.DataFrame:
    """Photos that came in: figures as in `_trained`, brighter by a shift."""
    random = np.random.default_rng(seed)
    rows = build_rows(
        [
            {
                "path": f"{seed}-{number}",
                "sha256": f"{seed:032x}{number:032x}",
                "model": "m",
                "novelty": 0.5,
                "novel": bool(random.random() < novel),
                "unsure": bool(random.random() < unsure),
                "width": 40,
                "height": 30,
                **{name: float(random.normal(5, 1)) for name in ("contrast", "sharpness", "entropy")},
                "brightness": float(random.normal(5 + brightness, 1)),
                **dict(zip(("p:red", "p:green"), random.permutation([0.6, 0.4]), strict=True)),
            }
            for number in range(count)
        ],
        ["red", "green"],
    )
    return latest_photos(merge(build_rows([], []), rows, NOON, 1), "m", NOON, None)


def _trained(seed: int = 10**6, count: int = 400) -> Trained:
    rows = _recent(count, seed).rename(columns={"sha256": "digest"})
    splits = np.array(["train", "train", "val", "test"])[np.arange(count) % 4]
    rows = rows.assign(split=splits, sampled=False, width=40, height=30)
    return Trained(Reference(rows, np.empty((0, 4), np.float32), "n"), "compared", unsure=(10, 100))


def _moved(recent: pd.DataFrame, trained: Trained | None = None) -> dict[str, Figure]:
    found = measure_drift(recent, trained or _trained())
    return {figure.quantity: figure for figure in found.figures if figure.has_moved}


def test_photos_like_those_of_training_are_no_drift() -> None:
    assert _moved(_recent(300, 1)) == {}


def test_today_is_compared_alone_unless_few_photos_are_new_then_with_some_from_before(monkeypatch) -> None:
    before = merge(build_rows([], []), _today(*[(f"a{n}", f"{n:064x}") for n in range(100)]), NOON, 30)
    monkeypatch.setattr(prediction_drift, "LATEST", 30)
    for new, compared in ((3, 30), (50, 50)):
        photos = [(f"a{n}", f"{n:064x}") for n in range(100 + new)]
        scores = merge(before, _today(*photos), NOON + timedelta(days=1), 30)
        recent = latest_photos(scores, "m", NOON + timedelta(days=1), None)
        assert (len(recent), int((recent.first_seen > NOON).sum())) == (compared, new)
    assert len(latest_photos(scores, "m", NOON + timedelta(days=7, hours=1), None)) == 50  # older than a week


def test_darker_photos_are_drift_and_named() -> None:
    moved = _moved(_recent(300, 1, brightness=-1.5))
    assert list(moved) == ["brightness"]
    assert moved["brightness"].words.startswith("brightness: 10, 50, 90 % below")


def test_many_novel_and_many_unsure_photos_are_drift() -> None:
    assert sorted(_moved(_recent(300, 1, novel=0.2, unsure=0.5))) == ["novel", "unsure"]


def test_a_class_that_nobody_brings_any_more_is_drift() -> None:
    recent = _recent(300, 1).assign(label="red")
    assert _moved(recent)["class shares"].words.startswith("class shares: red 5")


def test_without_drift_novelty_and_unsureness_are_an_alarm_as_seldom_as_promised(monkeypatch) -> None:
    """Both thresholds come from few photos; a binomial test would take them for exact, and warn five times as often."""
    for name, value in {"_MANY_NOVEL": 0.0, "_MANY_UNSURE": 0.0, "_CHANCE": 0.2 / 3}.items():
        monkeypatch.setattr(prediction_drift, name, value)
    random, alarms, draws = np.random.default_rng(0), 0, 100
    recent, rows = _recent(100, 2), _trained().reference
    for _ in range(draws):
        val = np.sort(random.random(100))
        unsure = int((random.random(100) < 0.1).sum())
        now = recent.assign(
            novel=pd.array(random.random(100) > val[-1], "boolean"),
            unsure=pd.array(random.random(100) < 0.1, "boolean"),
        )
        moved = _moved(now, Trained(rows, "", (unsure, 100)))
        alarms += bool({"novel", "unsure"} & set(moved))
    assert alarms / draws <= 0.2
