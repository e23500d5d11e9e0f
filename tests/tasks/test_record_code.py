import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from regraft.core.config import Params
from regraft.core.errors import InvalidData
from regraft.core.provenance import Snapshot, take_snapshot
from tasks import code_record
from tasks.record_code import record_code
from tests.support.small_project import quiet

STAGES = ["cache_features", "check_features", "choose_base", "evaluate", "export_onnx", "fine_tune", "preprocess"]
STAGES += ["quantise", "train_base", "train_head", "validate_data"]


@pytest.fixture
def change(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give modules another text, or libraries another version."""
    now = take_snapshot()

    def change(modules: dict[str, bytes] | None = None, versions: dict[str, str] | None = None) -> None:
        changed: Snapshot = replace(
            now, modules=now.modules | (modules or {}), versions=now.versions | (versions or {})
        )
        monkeypatch.setattr(code_record, "take_snapshot", lambda: changed)
        monkeypatch.setattr(code_record, "installed_versions", lambda: changed.versions)

    return change


def test_under_dvc_repro_the_data_folder_is_checked_by_the_first_stage_that_runs(
    small_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data/raw").mkdir(parents=True)
    Path("data/raw/dvc.yaml").touch()
    with pytest.raises(InvalidData, match=r"dvc\.yaml"):
        record_code.function(small_params, quiet)


@pytest.fixture
def said(small_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the stage in an empty folder, or again; what it said."""
    monkeypatch.chdir(tmp_path)

    def said() -> list[str]:
        record_code.function(small_params, quiet)
        return capsys.readouterr().out.splitlines()

    assert said() == ["record_code: recorded the code and libraries of 11 stages"]
    return said


def recorded() -> dict[str, dict[str, dict[str, str]]]:
    return json.loads(Path("build/provenance.json").read_text())


def text_of(module: str) -> bytes:
    return take_snapshot().modules[module]


def test_nothing_changed_and_it_says_so(said):
    before = Path("build/provenance.json").read_bytes()
    assert said() == ["record_code: no stage is affected"]
    assert Path("build/provenance.json").read_bytes() == before


def test_a_comment_changes_no_byte_of_the_record(said, change):
    before = Path("build/provenance.json").read_bytes()
    change({"regraft.training.heads": text_of("regraft.training.heads") + b"\n# a comment\n"})
    assert said() == ["record_code: no stage is affected"]
    assert Path("build/provenance.json").read_bytes() == before


def test_it_says_which_module_changed_and_which_stages_run_again(said, change):
    change({"regraft.training.heads": text_of("regraft.training.heads") + b"\nnew = 1\n"})
    assert said() == ["record_code: regraft.training.heads changed: train_base, train_head run again"]


def test_a_damaged_record_is_written_anew(said):
    before = Path("build/provenance.json").read_bytes()
    for damage in (b"", b"[]", b'{"train_head": 1}', b'{"train_head": {"code": {}}}', b"\xff"):
        Path("build/provenance.json").write_bytes(damage)
        assert said() == ["record_code: recorded the code and libraries of 11 stages"]
        assert Path("build/provenance.json").read_bytes() == before


def test_another_version_of_a_recorded_library_is_seen(said, change):
    assert not code_record.has_other_libraries(Path())
    change(versions={"onnxruntime": "9.9"})
    assert code_record.has_other_libraries(Path())
