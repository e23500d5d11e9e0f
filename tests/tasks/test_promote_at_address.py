"""The gate where production lies at an address: nothing is promoted before somebody founds it, or when it is away."""

import shutil
from pathlib import Path

import pytest

from regraft.core.addresses import mirror_of
from regraft.core.config import Params
from regraft.core.errors import Busy, Damaged, RegraftError
from regraft.core.remote import Remote
from regraft.production import exclusive
from regraft.production.records import Records
from regraft.production.remote_registry import RemoteRegistry
from tasks.after_promotion import after_promotion
from tasks.promote import candidates_told, challenge, found_production, history, rollback
from tasks.runs.run_history import write_history_page
from tasks.up_to_date import nothing_to_do
from tests.support.small_project import changed, quiet


@pytest.fixture
def params(small_params: Params, project: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Settings with production at an address where nothing is."""
    monkeypatch.setattr(exclusive, "_LOOK_SECONDS", 0.0)
    return changed(small_params, paths={"production": f"memory://{project}"})


def away(*_: object, **__: object) -> None:
    raise ConnectionError


def test_the_settings_of_an_address_are_those_of_the_folder_that_mirrors_it(params, project):
    assert params.paths.production == mirror_of(f"memory://{project}")
    assert params.paths.candidates == params.paths.production / "candidates"
    assert Params.model_validate(params.model_dump(mode="json")) == params


def test_the_first_model_waits_until_somebody_founds_production_and_then_any_worker_knows_it(params):
    with pytest.raises(RegraftError, match=r"there is no production at memory://.*`regraft promote --first`"):
        challenge(params, quiet)
    found_production(params)
    assert challenge(params, quiet).name == "Promoted"
    assert after_promotion(params) == []
    digest = Records(params.paths.production).digest
    shutil.rmtree(params.paths.production)  # another worker
    assert challenge(params, quiet).name == "Already in production"
    assert Records(params.paths.production).digest == digest
    place = Remote(f"memory://{Path.cwd()}")
    assert (place.get("model.onnx.sha256") or b"").split()[0].decode() == digest
    assert candidates_told(params) == []
    with pytest.raises(RegraftError, match="there is no earlier model"):
        rollback(params)


def test_when_production_is_away_nothing_is_compared_or_promoted_and_the_morning_page_says_so(params, monkeypatch):
    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.cat_file", away)
    for ask in (lambda: challenge(params, quiet), lambda: rollback(params), lambda: found_production(params)):
        with pytest.raises(RegraftError, match="production at memory:// cannot be reached: ConnectionError"):
            ask()
    assert not (params.paths.production / "model.onnx").exists()
    assert "cannot be reached: ConnectionError" in write_history_page(params).read_text()


def test_no_message_spells_the_address_in_the_name_of_its_mirror(params):
    found_production(params)
    folder = params.paths.production
    said = [str(Damaged.of(folder / "runs.parquet", "a", "b")), str(Busy(f"{folder.absolute()} is busy"))]
    assert challenge(params, quiet).name == "Promoted"
    with pytest.raises(RegraftError, match="no earlier model in versions of production at memory://") as stopped:
        rollback(params)
    said += [str(stopped.value)]
    registry = RemoteRegistry(folder, f"memory://{Path.cwd()}")
    pointer = registry.pointer()
    assert pointer
    registry.remote.remove(f"objects/{pointer.files['model.onnx'].object}")
    shutil.rmtree(folder)  # another worker
    said += [Records(folder).standing().problem or "", history(params)[1]]
    assert "model.onnx of production at memory:// is damaged" in said[-1]
    assert not [words for words in said if folder.name in words]


def test_a_run_that_might_have_nothing_to_do_does_not_end_as_if_it_had_not(params, project, monkeypatch):
    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.cat_file", away)
    monkeypatch.setattr("tasks.up_to_date.load_params", lambda _: params)
    monkeypatch.setattr("tasks.up_to_date.is_up_to_date", lambda *_: True)
    with pytest.raises(RegraftError, match="cannot be reached"):
        nothing_to_do(project, promote=True)
