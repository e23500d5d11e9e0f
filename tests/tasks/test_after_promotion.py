"""After a promotion: what is missing beside the model is made, and what cannot be made is a warning and no failure."""

import shutil
from pathlib import Path

import pytest

from flows import promote as flow
from regraft.core.config import Params
from regraft.core.files import sha256_of
from regraft.core.params_file import load_params
from regraft.production.gate.verdict import Verdict
from regraft.production.registry import Production
from regraft.serving.check_model import look_over
from tasks.after_promotion import after_promotion
from tests.support.production import promote
from tests.support.served import write_colour_model

ROOT = Path(__file__).parents[2]


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Those of a project without a model, which is the current folder."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return load_params(Path("params.yaml"))


def promote_without_serving(params: Params) -> None:
    """What a run leaves that is killed right after the promotion."""
    folder = params.paths.production
    Production(folder).promote(write_colour_model(folder), "a test", keep=5)


def test_what_a_killed_run_left_out_the_next_one_makes_whatever_the_gate_says(params, monkeypatch):
    promote_without_serving(params)
    refused = Verdict("Refused", False, "Refused: it is worse.", {"about": {"model": "a" * 64}})
    monkeypatch.setattr("tasks.promote.challenge", lambda *_: refused)
    monkeypatch.setattr(flow, "pages_of", lambda *_: {})
    assert flow.promote_model().message == "Refused: it is worse."
    assert {check.status for check in look_over(params.paths.production)} == {"ok"}


def test_the_model_card_of_this_very_file_lies_beside_it(params):
    promote_without_serving(params)
    params.paths.reports.mkdir()
    card = params.paths.reports / "model_card.md"
    card.write_text(f"# Model card\n\n{sha256_of(params.paths.production / 'model.onnx')}\n")
    assert after_promotion(params) == []
    assert (params.paths.production / "model_card.md").read_text() == card.read_text()


def test_what_cannot_be_served_is_a_warning_of_a_run_that_promoted(params, monkeypatch):
    promote(params.paths.production, "no model at all")
    verdict = Verdict("Promoted", True, "Promoted: it is better.", {"about": {"model": "a" * 64}})
    monkeypatch.setattr("tasks.promote.challenge", lambda *_: verdict)
    monkeypatch.setattr(flow, "pages_of", lambda *_: {})
    outcome = flow.promote_model()
    assert (outcome.name, outcome.type) == ("Promoted with warnings", "COMPLETED")
    assert outcome.message.startswith("Promoted: it is better. Warning: the golden photo beside the model in")
    assert Production(params.paths.production).standing().problem is None


def test_before_there_is_a_model_nothing_is_made(params):
    assert after_promotion(params) == []
    assert not params.paths.production.exists()
