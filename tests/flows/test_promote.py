"""The gate as a step of a run: a night that brings nothing new says so instead of refusing once more."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from flows import promote
from regraft.core.files import write_json
from regraft.production.gate.verdict import Name, Verdict
from tasks.step import Outcome

ROOT = Path(__file__).parents[2]
MODEL = "a" * 64


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Let the gate of an empty project say something, and return how the run ends."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)

    def judge(words: str, *, name: Name = "Refused", model: str = MODEL, is_asked: bool = False) -> Outcome:
        verdict = Verdict(name, name == "Promoted", words, {"about": {"model": model}})

        def challenge(*_: object) -> Verdict:
            write_json(tmp_path / "reports" / "gate.json", {"about": {"model": model}, "words": words})
            return verdict

        monkeypatch.setattr("tasks.promote.challenge", challenge)
        monkeypatch.setattr(promote, "pages_of", lambda *_: {})
        return promote.promote_model(is_asked=is_asked)

    return judge


def test_the_same_refusal_of_the_same_model_is_nothing_new(judge):
    outcomes = [judge("Refused: it is worse."), judge("Refused: it is worse.")]
    assert [(outcome.name, outcome.type) for outcome in outcomes] == [
        ("Refused", "CANCELLED"),
        ("Nothing new", "COMPLETED"),
    ]


@pytest.mark.parametrize("news", [{"model": "b" * 64}, {"words": "Refused: a class has vanished."}, {"is_asked": True}])
def test_another_model_other_words_or_a_question_are_answered(judge, news):
    judge("Refused: it is worse.")
    assert judge(**{"words": "Refused: it is worse."} | news).name == "Refused"


def test_a_model_that_is_let_in_is_promoted_whatever_was_said_before(judge):
    judge("Promoted: it is better.", name="Promoted")
    assert judge("Promoted: it is better.", name="Promoted").name == "Promoted"


def test_a_damaged_production_is_told_of_every_night(judge):
    production = Path("models", "production")
    production.mkdir(parents=True)
    (production / "model.onnx").write_bytes(b"nobody put this here")
    (production / "log.jsonl").write_text(
        '{"at":"2026-11-26T00:00:00+00:00","action":"promoted","sha256":"' + MODEL + '","words":"a test"}\n'
    )
    assert [judge("Refused: production is damaged.").name for _ in range(2)] == ["Refused", "Refused"]
