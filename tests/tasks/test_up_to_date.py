"""Whether what the gate said of a model still stands."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from regraft.core.config import Params
from regraft.core.files import sha256_of, write_json
from regraft.core.params_file import load_params
from regraft.production.records import Records
from tasks.up_to_date import _standing_verdict, about_of


@pytest.fixture
def params(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A model that waits for a person, as the gate said at four."""
    monkeypatch.chdir(tmp_path)
    params = load_params(root / "params.yaml")
    for path in (params.paths.onnx, params.paths.dataset):
        path.parent.mkdir(exist_ok=True)
        path.write_text("of this night")
    gate = {"at": "2026-11-26T04:00:00+00:00", "name": "Waiting for approval", "is_accepted": False, "words": "waits"}
    write_json(params.paths.reports / "gate.json", gate | {"about": about_of(params, _digest(params), None)})
    return params


def _digest(params: Params) -> str:
    return sha256_of(params.paths.onnx)


def _changed_at(monkeypatch: pytest.MonkeyPatch, *times: str) -> None:
    monkeypatch.setattr(Records, "digest", None)
    monkeypatch.setattr(Records, "history", lambda self: [SimpleNamespace(at=at) for at in times])


def test_while_nothing_changes_it_stands(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _standing_verdict(params) == "waits"
    _changed_at(monkeypatch, "2026-11-25T04:00:00+00:00")
    assert _standing_verdict(params) == "waits"


def test_after_a_person_promoted_and_rolled_back_it_is_asked_again(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    _changed_at(monkeypatch, "2026-11-26T04:10:00+00:00", "2026-11-26T04:20:00+00:00")
    assert _standing_verdict(params) is None


def test_of_another_model_it_says_nothing(params: Params) -> None:
    params.paths.onnx.write_text("of another night")
    assert _standing_verdict(params) is None
