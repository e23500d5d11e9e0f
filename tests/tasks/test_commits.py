import os
import shutil
from pathlib import Path

import pytest

from regraft.core.config import Params
from regraft.core.params_file import load_params
from tasks.runs import receipts
from tasks.runs.receipts import write_receipt
from tasks.runs.remotes import commit_and_push
from tests.support.run_receipts import git, record_of, versions, write_repository, write_results

OURS = {"data/.gitignore", "data/raw.dvc", "data/splits.csv", "dvc.lock"}


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in git in which nothing has run yet, with one commit. To be copied."""
    root = tmp_path_factory.mktemp("begun") / "project"
    write_repository(root)
    return root


@pytest.fixture
def repository(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the current folder."""
    root = shutil.copytree(begun, tmp_path / "project")
    monkeypatch.chdir(root)
    monkeypatch.setattr(receipts, "installed_versions", versions)
    for name in [name for name in os.environ if name.startswith(("GIT_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return root


def _params() -> Params:
    return load_params(Path("params.yaml"))


def _commit(number: int = 0, branch: str | None = None, **words: str) -> list[str]:
    """End a run of a night, with its receipt, and commit it."""
    record = record_of(number, **words)
    write_receipt(_params(), record)
    return commit_and_push(_params(), record, branch)


def _changed(root: Path, revision: str = "HEAD") -> set[str]:
    return set(git(root, "show", "--name-only", "--format=", revision).splitlines())


def _receipt(number: int = 0) -> str:
    return f"receipts/{record_of(number).run}.json"


def test_the_commit_of_a_run_has_what_the_run_wrote_for_git_and_nothing_else(repository):
    (repository / "tasks" / "stage.py").write_text("an edit\n")
    (repository / "new.txt").write_text("untracked\n")
    assert _commit() == [f"Committed {git(repository, 'rev-parse', '--short=12', 'HEAD')} on main."]
    assert _changed(repository) == OURS | {_receipt()}
    assert git(repository, "status", "--porcelain").splitlines() == [" M tasks/stage.py", "?? new.txt"]


def test_what_a_person_has_staged_stays_staged_and_is_not_committed(repository):
    (repository / "tasks" / "stage.py").write_text("staged\n")
    git(repository, "add", "tasks/stage.py")
    write_results(repository)
    _commit()
    assert git(repository, "diff", "--cached", "--name-only").splitlines() == ["tasks/stage.py"]
    assert git(repository, "show", "HEAD:dvc.lock").startswith("schema")


def test_each_night_adds_a_commit_and_one_with_nothing_to_do_adds_none(repository):
    _commit(0)
    assert _commit(1, name="Already in production", words="Nothing to do.")[0].startswith(
        f"Committed {git(repository, 'rev-parse', '--short=12', 'HEAD')}"
    )
    before = git(repository, "rev-parse", "HEAD")
    record = record_of(2, "Already in production", "Nothing to do.", *["Up to date"] * 4)
    write_receipt(_params(), record)
    assert commit_and_push(_params(), record, None) == ["Nothing to commit: git has all that this run wrote for it."]
    assert git(repository, "rev-parse", "HEAD") == before


def test_a_branch_of_its_own_is_made_from_head_and_nothing_is_checked_out(repository):
    before = git(repository, "rev-parse", "HEAD")
    _commit(0, "nights")
    write_results(repository, "b")
    _commit(1, "nights")
    assert git(repository, "rev-parse", "HEAD", "nights~2") == f"{before}\n{before}"
    assert _changed(repository, "nights") == {"data/raw.dvc", "dvc.lock", _receipt(1)}
    assert not git(repository, "diff", "--cached")


def test_while_somebody_holds_the_index_the_commit_is_made_and_a_sentence_says_what_to_do(repository):
    (repository / ".git" / "index.lock").touch()
    told = _commit()
    assert _changed(repository) == OURS | {_receipt()}
    assert "git's index is busy" in told[0]


def test_in_the_middle_of_a_merge_nothing_is_committed(repository):
    (repository / ".git" / "MERGE_HEAD").write_text(git(repository, "rev-parse", "HEAD") + "\n")
    assert _commit()[0].startswith("Nothing was committed: a merge, a rebase")
    (repository / ".git" / "MERGE_HEAD").unlink()
    _commit(1)
    assert _changed(repository) >= {_receipt(0), _receipt(1)}


def test_without_git_a_run_is_not_committed_and_a_sentence_says_why(repository):
    shutil.rmtree(repository / ".git")
    (told,) = _commit()
    assert told.startswith("Nothing was committed: `git rev-parse` failed: fatal: not a git repository")


def _remote(root: Path, url: str) -> None:
    (root / ".dvc" / "config").write_text(f"[core]\n    remote = there\n['remote \"there\"']\n    url = {url}\n")


def test_what_dvc_cannot_push_is_a_warning_without_a_word_of_the_address(repository):
    _remote(repository, "azure://key:secret@bucket/folder")
    _, warned = _commit()
    assert warned.startswith("Warning: nothing was pushed to DVC's remote (")
    assert "azure is supported, but requires 'dvc-azure'" in warned
    assert "secret" not in warned


def test_what_is_pushed_is_told_and_pushed_once(repository, tmp_path):
    _remote(repository, str(tmp_path / "remote"))
    assert _commit()[1] == "Pushed data, results and the run cache to DVC's remote."
    assert commit_and_push(_params(), record_of(0), None) == [
        "Nothing to commit: git has all that this run wrote for it."
    ]


def test_a_branch_that_was_merged_goes_on_from_what_is_checked_out(repository):
    _commit(0, "nights")
    git(repository, "merge", "--quiet", "-s", "ours", "--no-ff", "-m", "merged", "nights")
    merged = git(repository, "rev-parse", "HEAD")
    write_results(repository, "b")
    _commit(1, "nights")
    assert git(repository, "rev-parse", "nights~1") == merged
