"""Which folder is the store, of a project and of its checkouts."""

import subprocess
from pathlib import Path

import pytest

from regraft.core.errors import RegraftError
from tasks.found_store import find_store

STORE = Path("build/store")


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one commit, whose user has no git settings."""
    monkeypatch.delenv("REGRAFT_STORE", raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    project = tmp_path / "project"
    project.mkdir(parents=True)
    (project / "params.yaml").touch()
    git(project, "init", "--quiet")
    git(project, "add", "params.yaml")
    git(project, "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "-m", "first")
    return project


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


def test_a_project_has_the_store_that_its_params_name(main):
    assert find_store(main, STORE) == STORE


def test_a_project_without_git_has_one_too(tmp_path):
    assert find_store(tmp_path, STORE) == STORE


def test_a_worktree_uses_the_store_of_the_main_checkout(main, tmp_path):
    git(main, "worktree", "add", "--quiet", str(tmp_path / "other"))
    assert find_store(tmp_path / "other", STORE) == main / STORE


def test_a_temporary_checkout_of_dvc_uses_the_store_of_its_project(main):
    temporary = main / ".dvc" / "tmp" / "exps" / "tmp1234"
    temporary.mkdir(parents=True)
    assert find_store(temporary, STORE) == main / STORE
    (temporary / "sub").mkdir()
    assert find_store(temporary / "sub", STORE) == main / STORE


def test_git_names_a_store_for_all_checkouts(main, tmp_path):
    git(main, "config", "regraft.store", str(tmp_path / "named"))
    temporary = main / ".dvc" / "tmp" / "exps" / "tmp1234"
    temporary.mkdir(parents=True)
    assert find_store(main, STORE) == find_store(temporary, STORE) == tmp_path / "named"


def test_the_environment_comes_first(main, tmp_path, monkeypatch):
    git(main, "config", "regraft.store", str(tmp_path / "named"))
    monkeypatch.setenv("REGRAFT_STORE", str(tmp_path / "environment"))
    assert find_store(main, STORE) == tmp_path / "environment"


def test_a_reproduction_has_a_store_of_its_own_whatever_is_named(main, monkeypatch, tmp_path):
    folder = main / ".dvc" / "tmp" / "regraft" / "reproduce"
    folder.mkdir(parents=True)
    monkeypatch.setenv("REGRAFT_STORE", str(tmp_path / "environment"))
    assert find_store(folder, STORE) == STORE


def test_a_relative_path_is_refused_since_it_would_be_another_folder_in_each_checkout(main, monkeypatch):
    monkeypatch.setenv("REGRAFT_STORE", "store")
    with pytest.raises(RegraftError, match=r"REGRAFT_STORE must be the absolute path .* Received: store\."):
        find_store(main, STORE)


def test_a_submodule_stands_for_itself(main):
    (main / "sub").mkdir()
    (main / "sub" / ".git").write_text("gitdir: ../.git/modules/sub\n")
    (main / ".git" / "modules" / "sub").mkdir(parents=True)
    assert find_store(main / "sub", STORE) == STORE
