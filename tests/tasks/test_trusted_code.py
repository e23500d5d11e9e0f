import os
import shutil
from pathlib import Path

import pytest

from regraft.core.errors import RegraftError
from regraft.core.params_file import load_params
from tasks.runs.git import open_git
from tasks.runs.trusted_code import check_code
from tests.support.run_receipts import git, write_repository


@pytest.fixture(scope="session")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in git, with a commit on a branch of somebody else. To be copied."""
    root = tmp_path_factory.mktemp("trusted") / "project"
    write_repository(root)
    git(root, "checkout", "--quiet", "-b", "other")
    return root


@pytest.fixture
def repository(committed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the current folder."""
    root = shutil.copytree(committed, tmp_path / "project")
    monkeypatch.chdir(root)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    return root


def _commit(root: Path) -> str:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "-m", "a run")
    return git(root, "rev-parse", "HEAD")


def _check(root: Path, snapshot: str, trusted: str | None = "main", answer: bool | None = None) -> list[str]:
    asked: list[str] = []

    def confirm(text: str) -> bool:
        asked.append(text)
        return bool(answer)

    params = load_params(root / "params.yaml")
    check_code(open_git(root), params, snapshot, trusted, None if answer is None else confirm)
    return asked


def _refuses(root: Path, snapshot: str, trusted: str | None = "main") -> str:
    with pytest.raises(RegraftError) as refused:
        _check(root, snapshot, trusted)
    return str(refused.value)


def _edit_params(root: Path, before: str, after: str) -> None:
    text = (root / "params.yaml").read_text()
    assert before in text
    (root / "params.yaml").write_text(text.replace(before, after, 1))


def test_records_receipts_expectations_and_numbers_of_the_settings_may_differ(repository):
    for name in ("data/splits.csv", "data/base_renewals.csv", "dvc.lock", "receipts/a.json", "expectations/a.json"):
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text("another")
    _edit_params(repository, "seed: 20261124", "seed: 1")
    _check(repository, _commit(repository))


CODE = [
    "tasks/stage.py",
    "tasks/new.py",
    "dvc.yaml",
    "pyproject.toml",
    "setup.py",
    "Makefile",
    "x.pth",
    "receipts/a.py",
]
CODE += [".dvc/config", ".gitattributes", ".gitmodules", ".lfsconfig", "data/x.py", "expectations/a.py", "photo.dvc"]


@pytest.mark.parametrize("name", CODE)
def test_anything_else_is_code(repository, name):
    (repository / name).parent.mkdir(exist_ok=True)
    (repository / name).write_text("another")
    assert name in _refuses(repository, _commit(repository))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("store: build/store", "store: tasks"),
        ("cluster: null", "cluster: tcp://evil.example:8786"),
        ("photo_private_addresses: false", "photo_private_addresses: true"),
        ("weights: imagenet", "weights: ../weights.h5"),
        ("seed: 20261124", "seed: *"),
    ],
)
def test_settings_that_name_paths_files_and_hosts_are_code_and_so_is_what_cannot_be_read(repository, before, after):
    settings = (repository / "params.yaml").read_text()
    _edit_params(repository, before, after)
    snapshot = _commit(repository)
    (repository / "params.yaml").write_text(settings)
    assert "params.yaml" in _refuses(repository, snapshot)


def test_a_link_in_the_place_of_a_record_and_code_that_is_gone_are_code(repository):
    (repository / "data/splits.csv").unlink()
    (repository / "data/splits.csv").symlink_to("../../home")
    (repository / "tasks/stage.py").unlink()
    refused = _refuses(repository, _commit(repository))
    assert "data/splits.csv; tasks/stage.py" in refused


def test_code_outside_of_the_project_in_a_bigger_repository_is_code(committed, tmp_path, monkeypatch):
    root = shutil.copytree(committed, tmp_path / "big" / "project", ignore=shutil.ignore_patterns(".git"))
    git(root.parent, "init", "--quiet", "-b", "main")
    _commit(root.parent)
    monkeypatch.chdir(root)
    git(root, "checkout", "--quiet", "-b", "other")
    (root.parent / "conftest.py").write_text("")
    (root / "dvc.lock").write_text("another")
    assert "code that is none of the commits that main has: conftest.py." in _refuses(root, _commit(root.parent))


def test_a_commit_that_the_named_branch_has_may_run_and_a_tag_of_its_name_does_not_count(repository):
    (repository / "tasks/stage.py").write_text("code = 2\n")
    snapshot = _commit(repository)
    _check(repository, snapshot, None)  # it is checked out
    _check(repository, snapshot, "other")
    git(repository, "checkout", "--quiet", "main")
    git(repository, "tag", "main", "other")
    assert "tasks/stage.py" in _refuses(repository, snapshot)
    assert "tasks/stage.py" in _refuses(repository, snapshot, None)
    assert "git knows no branch or commit nightly" in _refuses(repository, snapshot, "nightly")


def test_a_snapshot_without_a_common_commit_is_compared_with_the_trusted_one(repository):
    git(repository, "checkout", "--quiet", "--orphan", "alone")
    (repository / "tasks/stage.py").write_text("code = 2\n")
    assert "tasks/stage.py" in _refuses(repository, _commit(repository))


def test_a_person_sees_the_code_without_its_tricks_before_the_question(repository):
    (repository / ".gitattributes").write_text("*.py -diff\n")
    (repository / "tasks/stage.py").write_text("attack()\r# \x1b[2K\u202e nothing\n")
    (asked,) = _check(repository, _commit(repository), answer=True)
    assert "\n+attack()\\r# \\x1b[2K\\u202e nothing\n" in asked
    assert asked.endswith("It would run on this machine, as you. Run it?")


def test_nobody_is_asked_about_more_than_can_be_read(repository):
    (repository / "tasks/stage.py").write_text("\n" * 600)
    snapshot = _commit(repository)
    with pytest.raises(RegraftError, match=f"--trust {snapshot[:12]}"):
        _check(repository, snapshot, answer=True)
