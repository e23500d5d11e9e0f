"""git tags of GTO: what `dvc artifacts get` fetches is what was promoted, in a clone that has seen nothing of it."""

import os
from pathlib import Path

import pytest

from regraft.config import Params
from regraft.production.registry import Production
from tests.support.registries import artifact, commit_model, promote_model, told, write_dvc_project
from tests.support.run_receipts import git

STORE = Path("..", "store")
GTO = {"name": "classifier", "stage": "production", "push": False}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in git and DVC, as the current folder."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    write_dvc_project(tmp_path / "project", tmp_path / "store")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def tags(project: Path) -> list[str]:
    return git(project, "tag", "--list").split()


@pytest.mark.flow
def test_a_fresh_clone_fetches_the_model_in_production_through_promotions_and_rollbacks(project, tmp_path):
    origin = tmp_path / "origin.git"
    git(project, "clone", "--quiet", "--bare", ".", str(origin))
    git(project, "remote", "add", "origin", str(origin))
    one = commit_model(project, STORE, 1.0)
    promote_model(project)
    assert told("gto", **GTO | {"push": True})[0].endswith("in stage production, pushed to origin.")
    two = commit_model(project, STORE, 2.0)
    production = promote_model(project)
    (sentence,) = told("gto", **GTO | {"push": True})
    assert f"GTO: model {two[:12]} is classifier@v0.0.2" in sentence
    git(project, "push", "--quiet", "origin", "main")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(origin), str(clone))
    assert artifact(clone, tmp_path / "a.onnx", "--stage", "production") == two
    assert artifact(origin, tmp_path / "b.onnx", "--rev", "v0.0.1") == one
    production.rollback()
    assert f"GTO: model {one[:12]} is classifier@v0.0.1" in told("gto", **GTO | {"push": True})[0]
    assert tags(project)[-2:] == ["classifier@v0.0.1", "classifier@v0.0.2"]  # none for the rollback
    assert artifact(origin, tmp_path / "c.onnx", "--stage", "production") == one


def test_it_is_told_once_and_a_model_that_was_tagged_gets_no_second_version(project):
    commit_model(project, STORE, 1.0)
    promote_model(project)
    assert len(told("gto", **GTO)) == 1
    before = tags(project)
    assert told("gto", **GTO) == []
    (project / ".dvc/tmp/regraft/gto.told").unlink()
    git(project, "commit", "--quiet", "--allow-empty", "-m", "another night")
    assert len(told("gto", **GTO)) == 1
    assert tags(project) == before == ["classifier#production#1", "classifier@v0.0.1"]


def test_a_model_that_no_commit_has_is_said_with_what_to_do_and_production_stays(project):
    commit_model(project, STORE, 1.0)
    (project / "models" / "model.onnx").write_bytes(b"not committed")
    production = promote_model(project)
    (sentence,) = told("gto", **GTO)
    assert sentence.startswith("Warning: promote.gto was not done")
    assert "`regraft retrain --commit` makes one" in sentence
    assert (tags(project), production.standing().problem) == ([], None)


def test_without_a_remote_to_push_to_the_tags_are_there_and_the_run_is_warned(project):
    commit_model(project, STORE, 1.0)
    promote_model(project)
    (sentence,) = told("gto", **GTO | {"push": True})
    assert sentence.startswith("Warning: promote.gto was not done (NoGit: `git push` failed")
    assert tags(project) == ["classifier#production#1", "classifier@v0.0.1"]


def test_without_git_it_is_a_warning(tmp_path, monkeypatch, root):
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text())
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.onnx").write_bytes(b"a model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    promote_model(tmp_path)
    assert "not a git repository" in told("gto", **GTO)[0]


def test_where_nothing_is_asked_for_or_nothing_is_in_production_nobody_is_told(project):
    from regraft.params_file import load_params
    from tasks.registries.tell import tell

    params: Params = load_params(Path("params.yaml"))
    assert (tell(params, "gto"), tell(params, "mlflow")) == ([], [])
    assert told("gto", **GTO) == []
    assert not Production(project / "models" / "production").folder.exists()
