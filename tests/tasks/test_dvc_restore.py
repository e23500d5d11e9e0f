import logging
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from regraft.core.errors import RegraftError
from regraft.core.files import md5_of
from regraft.production.registry import Production
from tasks.dvc_restore import prove_restore
from tasks.promote import challenge
from tests.support.small_project import quiet


@pytest.fixture
def cached(project, small_params, monkeypatch) -> Path:
    """Where DVC's cache has the model that is in production; dvc.lock names it."""
    from dvc.repo import Repo

    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(project / "site"))
    logging.getLogger("dvc").setLevel(logging.WARNING)  # else a Prefect that other tests imported takes the line
    Repo.init(str(project), no_scm=True, force=True).close()
    challenge(small_params, quiet)
    version = md5_of(small_params.paths.onnx)
    outs = [{"path": small_params.paths.onnx.as_posix(), "hash": "md5", "md5": version}]
    with (project / "dvc.lock").open("w") as lock:
        YAML().dump({"schema": "2.0", "stages": {"export_onnx": {"outs": outs}}}, lock)
    path = project / ".dvc" / "cache" / "files" / "md5" / version[:2] / version[2:]
    path.parent.mkdir(parents=True)
    shutil.copyfile(small_params.paths.onnx, path)
    return path


def test_production_is_restored_from_the_cache_and_a_damaged_copy_there_does_not_count(project, small_params, cached):
    assert "was restored from DVC's cache, has its bytes, and answers" in prove_restore(project, small_params)
    cached.write_bytes(cached.read_bytes()[:-1])
    assert "was restored from versions/" in prove_restore(project, small_params)
    production = Production(small_params.paths.production)
    production.version_of(production.digest or "").unlink()
    with pytest.raises(RegraftError, match="no copy of the model in production"):
        prove_restore(project, small_params)


def test_a_damaged_model_in_production_is_a_problem_whatever_can_be_restored(project, small_params, cached):
    model = Production(small_params.paths.production).model
    model.chmod(0o644)
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(RegraftError, match="is damaged"):
        prove_restore(project, small_params)
