import os
import shutil
from pathlib import Path

import pytest

from regraft.core.config import Params
from regraft.core.files import write_json
from regraft.core.params_file import load_params
from tasks.code_record import RECORD
from tasks.runs.git import NoGit, open_git
from tasks.runs.snapshots import keep_snapshot, reference_of, take_snapshot
from tests.support.run_receipts import STARTED, git, write_repository

RUN = "20261126T030000-abcdef"
RECEIPT = Path("receipts", f"{RUN}.json")


@pytest.fixture(scope="session")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in git, with one commit. To be copied."""
    root = tmp_path_factory.mktemp("committed") / "project"
    write_repository(root)
    return root


@pytest.fixture
def repository(committed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the current folder, where git knows nobody's name."""
    return _enter(shutil.copytree(committed, tmp_path / "project"), monkeypatch)


def _enter(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(root)
    for name in [name for name in os.environ if name.startswith(("GIT_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(root.parent))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return root


def _snapshot(root: Path) -> None:
    params = _params(root)
    own = open_git(root)
    snapshot = take_snapshot(own, params, RUN, STARTED)
    RECEIPT.parent.mkdir(exist_ok=True)
    RECEIPT.write_text(f"{snapshot}\n")
    keep_snapshot(own, RUN, snapshot, RECEIPT, STARTED)


def _params(root: Path) -> Params:
    return load_params(root / "params.yaml")


def _held(root: Path, prefix: str = "") -> set[str]:
    return {
        name.removeprefix(prefix)
        for name in git(root, "ls-tree", "-r", "--full-tree", "--name-only", reference_of(RUN)).splitlines()
    }


EXPECTED = {".gitignore", "params.yaml", "dvc.yaml", "automations.yaml", "tasks/stage.py", "tasks/validate_data.py"}
EXPECTED |= {"data/raw.dvc", "data/.gitignore", "dvc.lock", "data/splits.csv", RECEIPT.as_posix()}


def _shown(root: Path, name: str) -> str:
    return git(root, "show", f"{reference_of(RUN)}:{name}")


def test_a_snapshot_holds_what_is_committed_and_what_the_run_read_and_wrote_and_nothing_else(repository):
    (repository / "secret.txt").write_text("untracked")
    (repository / "tasks" / "tool.py").write_text("no stage imports it")
    _snapshot(repository)
    assert _held(repository) == EXPECTED


def test_a_snapshot_holds_edits_of_what_the_run_read_and_of_nothing_else(repository):
    with (repository / "params.yaml").open("a") as file:
        file.write("# edited\n")
    for name in ("tasks/validate_data.py", "automations.yaml"):
        (repository / name).write_text("edited\n")
    git(repository, "add", "automations.yaml")
    _snapshot(repository)
    assert _shown(repository, "params.yaml").endswith("# edited")
    assert _shown(repository, "tasks/validate_data.py") == "edited"
    assert _shown(repository, "automations.yaml") == "automations: []"


def test_a_snapshot_holds_a_new_module_that_a_stage_imports_unless_git_is_to_ignore_it(repository):
    names = ("tasks.new", "tasks.ignored", "tasks.room", "tasks.validate_data")
    write_json(repository / RECORD, {"validate_data": {"code": dict.fromkeys(names, "1"), "libraries": {}}})
    (repository / "tasks" / "room").mkdir()
    for name in ("new.py", "ignored.py", "room/__init__.py", "room/other.py"):
        (repository / "tasks" / name).write_text("")
    _snapshot(repository)
    assert _held(repository) == EXPECTED | {"tasks/new.py", "tasks/room/__init__.py"}


def test_a_snapshot_holds_the_expectations_that_the_run_read(repository):
    folder = repository / "expectations"
    folder.mkdir()
    (folder / "gone.json").write_text("{}")
    git(repository, "add", "expectations")
    git(repository, "commit", "--quiet", "-m", "expectations")
    (folder / "gone.json").unlink()
    for name in ("new.json", "ignored.json", "notes.txt"):
        (folder / name).write_text("{}")
    _snapshot(repository)
    assert _held(repository) == EXPECTED | {"expectations/new.json"}


def test_a_snapshot_leaves_head_branches_the_index_and_files_as_they_were(repository):
    (repository / "tasks" / "stage.py").write_text("staged\n")
    git(repository, "add", "tasks/stage.py")
    (repository / "tasks" / "stage.py").write_text("edited\n")

    def look() -> list[str]:
        seen = [git(repository, *command) for command in (["branch", "-av"], ["diff", "--cached"], ["diff"])]
        return [*seen, git(repository, "stash", "list"), git(repository, "reflog")]

    before = look()
    _snapshot(repository)
    assert look() == before


def test_a_snapshot_calls_no_hook_and_signs_nothing(repository):
    for name in ("pre-commit", "post-commit", "reference-transaction", "post-index-change"):
        hook = repository / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text("#!/bin/sh\ntouch called\nexit 1\n")
        hook.chmod(0o755)
    git(repository, "config", "commit.gpgSign", "true")
    git(repository, "config", "gpg.program", "false")
    _snapshot(repository)
    assert not (repository / "called").exists()


def test_without_a_name_in_git_a_snapshot_is_made_by_regraft(repository):
    git(repository, "config", "user.useConfigOnly", "true")
    _snapshot(repository)
    assert git(repository, "log", "-1", "--format=%an <%ae>", reference_of(RUN)) == "Regraft <regraft@localhost>"


def test_where_nothing_is_committed_there_is_no_snapshot_and_a_sentence_why(repository):
    shutil.rmtree(repository / ".git")
    git(repository, "init", "--quiet")
    git(repository, "add", "params.yaml", "dvc.yaml", "tasks", ".gitignore")
    with pytest.raises(NoGit, match="nothing is committed yet"):
        _snapshot(repository)


def test_a_snapshot_is_made_in_a_folder_of_a_bigger_repository(committed, tmp_path, monkeypatch):
    root = tmp_path / "big" / "vision" / "project"
    shutil.copytree(committed, root, ignore=shutil.ignore_patterns(".git"))
    _enter(root, monkeypatch)
    (tmp_path / "big" / "other.txt").write_text("of somebody else")
    git(tmp_path / "big", "init", "--quiet")
    git(root, "add", "tasks", "params.yaml", "dvc.yaml", ".gitignore", "automations.yaml")
    git(tmp_path / "big", "add", "other.txt")
    git(tmp_path / "big", "commit", "--quiet", "-m", "begin")
    _snapshot(root)
    assert _held(root, "vision/project/") == EXPECTED | {"other.txt"}


def test_where_dvc_goes_without_git_so_do_snapshots(repository):
    (repository / ".dvc" / "config").write_text("[core]\n    no_scm = True\n")
    with pytest.raises(NoGit, match=r"core\.no_scm"):
        open_git(repository)


def test_data_behind_a_link_is_left_out_of_a_snapshot(repository, tmp_path):
    (repository / "data").rename(tmp_path / "elsewhere")
    (repository / "data").symlink_to(tmp_path / "elsewhere")
    _snapshot(repository)
    assert _held(repository) == {name for name in EXPECTED if not name.startswith("data/")}
