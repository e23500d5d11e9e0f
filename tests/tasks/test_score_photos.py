"""Scoring a folder with a real model in production; without one, and without photos, it says what to do."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from regraft.core.config import Params
from regraft.core.errors import RegraftError
from regraft.core.files import read_json
from regraft.export.classifier import OnnxClassifier, open_said
from regraft.photos import scan
from tasks.history import models_in_use
from tasks.promote import force
from tasks.report import refresh_report, write_report
from tasks.score_photos import OUTPUT, nothing_to_score, score_photos
from tests.support.pipeline import ROOT
from tests.support.small_project import changed, quiet, write_photos

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


@pytest.fixture
def params(project: Path, small_params: Params, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A project with a model in production, and with nine photos and a broken one to score."""
    monkeypatch.setattr(scan, "_SETTLED_NS", 0)  # a file that was written just now would be read once more
    force(small_params, "for a test")
    write_photos(project / "incoming", per_class=3, seed=7)
    (project / "incoming" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photo")
    return changed(small_params, score={"photos": "incoming", "drift": "off"})


def test_new_photos_are_scored_and_a_run_without_news_changes_nothing(params: Params, project: Path) -> None:
    first = score_photos(params, quiet, NOON)
    assert first.words.startswith("9 of 9 photos in incoming are new; the model was run on 9.")
    assert "1 cannot be scored (broken.jpg: " in first.words
    scores = pd.read_parquet(OUTPUT)
    assert scores.path.nunique() == 10
    classes = [name for name in scores.columns if name.startswith("p:")]
    assert classes == ["p:deep blue", "p:grün", "p:red"]
    assert scores[classes].sum(axis=1)[scores.error.isna()].to_numpy() == pytest.approx(1, abs=1e-5)

    stored = open_said(params.paths.store, OnnxClassifier(params.paths.production / "model.onnx"))
    assert stored.facts["model"] in models_in_use(params.paths)  # so `gc` keeps it
    assert len(stored) >= 9

    tomorrow = NOON + timedelta(days=1)
    contents = OUTPUT.read_bytes()
    said = score_photos(params, quiet, tomorrow)
    assert said.words == "all 10 files in incoming were scored before."
    assert OUTPUT.read_bytes() == contents

    write_photos(project / "incoming", per_class=1, seed=8)
    later = score_photos(params, quiet, tomorrow)
    assert later.words.startswith("3 of 12 photos in incoming are new; the model was run on 3.")


def test_the_report_names_model_and_bad_files_and_leaves_the_page_of_the_run_alone(params, project: Path) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, project)
    write_report()
    score_photos(params, quiet, NOON)
    report = read_json(params.paths.reports / "scores.json")
    assert report["counts"] == {
        "photos": 9,
        "new": 9,
        "computed": 9,
        "unsure": report["counts"]["unsure"],
        "novel": report["counts"]["novel"],
        "bad": 1,
        "skipped": 0,
        "gone": 0,
    }
    page = (params.paths.reports / "scores.html").read_text()
    assert all(text in page for text in (report["model"][:12], "broken.jpg", "grün"))
    assert (params.paths.reports / "scores.md").read_text().startswith("# What was scored")
    assert not refresh_report()


def test_a_photo_that_is_gone_is_noticed_although_nothing_is_new(params: Params, project: Path) -> None:
    score_photos(params, quiet, NOON)
    shutil.rmtree(project / "incoming" / "red")
    score_photos(params, quiet, NOON)
    assert read_json(params.paths.reports / "scores.json")["counts"]["gone"] == 3
    long_after = NOON + timedelta(days=params.score.keep_days + 1)
    score_photos(params, quiet, long_after)
    assert len(pd.read_parquet(OUTPUT)) == 7


def test_without_photos_or_without_a_model_the_message_says_what_to_do(project: Path, small_params: Params) -> None:
    said = score_photos(small_params, quiet, NOON)
    assert said == nothing_to_score(small_params)
    assert "score.photos in params.yaml is null. Set it to a folder" in said.words
    (project / "incoming").mkdir()
    wanted = changed(small_params, score={"photos": "incoming"})
    with pytest.raises(RegraftError, match=r"no model is in production.*Run `regraft retrain`"):
        score_photos(wanted, quiet, NOON)
    force(small_params, "for a test")
    (project / "models" / "production" / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(RegraftError, match=r"is damaged.*`regraft promote --rollback`"):
        score_photos(wanted, quiet, NOON)
