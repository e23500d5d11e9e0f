import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from regraft.core.errors import RegraftError
from regraft.core.files import sha256_of
from regraft.core.params_file import load_params
from tasks.history import features_versions, models_in_use
from tests.support.pipeline import ROOT

FEATURES = Path("build/features.arrow")
LOCK = """schema: '2.0'
stages:
  cache_features:
    cmd: python -m tasks.cache_features
    outs:
    - path: build/features.arrow
      hash: md5
      md5: {md5}
      size: 1
    - path: reports/features.json
      hash: md5
      md5: ffff
      size: 1
"""
Git = Callable[..., str]


def md5(number: int) -> str:
    return f"a{number:031x}"


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """A function that runs git in a repository of its own, with no settings of this machine."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@localhost")

    def run(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    run("init", "--quiet", "--initial-branch=main")
    return run


@pytest.fixture
def commit(git: Git, tmp_path: Path) -> Callable[[int], str]:
    """A function that commits a dvc.lock that names one version of the features, and returns the commit."""

    def write(number: int) -> str:
        (tmp_path / "dvc.lock").write_text(LOCK.format(md5=md5(number)))
        git("add", "dvc.lock")
        git("commit", "--quiet", "--message", f"version {number}")
        return git("rev-parse", "HEAD")

    return write


def versions(project: Path, keep: int = 10) -> set[int]:
    return {int(version[1:], 16) for version in features_versions(project, FEATURES, keep=keep)}


def test_the_working_copy_counts_without_git(tmp_path):
    (tmp_path / "dvc.lock").write_text(LOCK.format(md5=md5(1)))
    assert features_versions(tmp_path, FEATURES, keep=3) == {md5(1): "the working copy"}


def test_the_working_copy_counts_in_a_repository_without_commits(git, tmp_path):
    (tmp_path / "dvc.lock").write_text(LOCK.format(md5=md5(1)))
    assert versions(tmp_path) == {1}


def test_the_last_versions_in_git_count(commit, tmp_path):
    for number in range(1, 6):
        commit(number)
    assert versions(tmp_path, keep=2) == {5, 4}


def test_the_working_copy_counts_besides_the_last_versions_in_git(commit, tmp_path):
    commit(1)
    commit(2)
    (tmp_path / "dvc.lock").write_text(LOCK.format(md5=md5(3)))
    assert versions(tmp_path, keep=1) == {3, 2}


def test_commits_that_leave_dvc_lock_alone_do_not_count(commit, git, tmp_path):
    commit(1)
    commit(2)
    for number in range(3):
        git("commit", "--quiet", "--allow-empty", "--message", f"other {number}")
    assert versions(tmp_path, keep=2) == {1, 2}


def test_other_branches_and_tags_count(commit, git, tmp_path):
    commit(1)
    git("checkout", "--quiet", "-b", "other")
    commit(2)
    git("checkout", "--quiet", "--detach")
    commit(3)
    git("tag", "tagged")
    git("checkout", "--quiet", "main")
    assert versions(tmp_path) == {1, 2, 3}


def test_a_detached_head_counts(commit, git, tmp_path):
    commit(1)
    git("checkout", "--quiet", "--detach")
    commit(2)
    (tmp_path / "dvc.lock").unlink()
    assert versions(tmp_path) == {1, 2}


def test_experiments_count_whatever_is_kept_of_the_history(commit, git, tmp_path):
    base = commit(1)
    experiment = commit(2)
    git("update-ref", f"refs/exps/{base[:2]}/{base[2:]}/warm-oven", experiment)
    git("reset", "--quiet", "--hard", base)
    commit(3)
    assert versions(tmp_path, keep=1) == {3, 2}


def test_queued_experiments_count(commit, git, tmp_path):
    # As DVC queues them: the stash is a reflog, of which the reference itself shows the latest only.
    base = commit(1)
    queued = []
    for number in (2, 3):
        queued.append(commit(number))
        git("reset", "--quiet", "--hard", base)
        git("update-ref", "--create-reflog", "-m", "queued", "refs/exps/celery/stash", queued[-1])
    assert versions(tmp_path, keep=1) == {1, 2, 3}


def test_a_project_in_a_folder_of_the_repository_is_found(git, tmp_path):
    project = tmp_path / "inner"
    project.mkdir()
    for number in (1, 2):
        (project / "dvc.lock").write_text(LOCK.format(md5=md5(number)))
        git("add", "inner/dvc.lock")
        git("commit", "--quiet", "--message", str(number))
    assert versions(project) == {1, 2}


def test_a_version_that_deleted_dvc_lock_is_passed_over(commit, git, tmp_path):
    commit(1)
    git("rm", "--quiet", "dvc.lock")
    git("commit", "--quiet", "--message", "gone")
    assert versions(tmp_path) == {1}


def test_without_any_dvc_lock_nothing_can_be_said(tmp_path):
    with pytest.raises(
        RegraftError, match=r"No dvc\.lock in .* names build/features\.arrow.*Run this in the project's"
    ):
        features_versions(tmp_path, FEATURES, keep=3)


@pytest.mark.parametrize("contents", ["stages: [", "- 1", "stages:\n  cache_features: 3\n"])
def test_a_dvc_lock_that_cannot_be_read_is_an_error(contents, tmp_path):
    (tmp_path / "dvc.lock").write_text(contents)
    with pytest.raises(RegraftError, match=r"dvc\.lock of the working copy cannot be read"):
        features_versions(tmp_path, FEATURES, keep=3)


def test_stages_that_were_not_run_yet_are_passed_over(commit, tmp_path):
    commit(1)
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\nstages:\n  validate_data:\n    cmd: x\n")
    assert versions(tmp_path) == {1}


def test_models_in_use_and_their_frozen_parts_are_wanted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("regraft.export.classifier.frozen_digest", lambda path: f"frozen part of {path.parent.name}")
    paths = load_params(ROOT / "params.yaml").paths
    for model in (paths.onnx, paths.production / "model.onnx"):
        model.parent.mkdir(parents=True, exist_ok=True)
        model.write_bytes(model.as_posix().encode())
    digests = {sha256_of(paths.onnx), sha256_of(paths.production / "model.onnx")}
    assert models_in_use(paths) == digests | {"frozen part of models", "frozen part of production"}
