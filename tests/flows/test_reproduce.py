"""A run made again, in a toy project of two stages: the real git and the real DVC, and stages that take no time."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import app
from regraft.core.errors import Busy, RegraftError
from regraft.core.files import md5_of, write_json
from regraft.core.params_file import load_params
from regraft.core.provenance import installed_versions
from tasks.runs.receipts import write_receipt
from tasks.runs.reproduce import FOLDER, reproduce
from tests.support.project import Project
from tests.support.run_receipts import git, record_of, write_project

pytestmark = pytest.mark.flow
_STAGES = {
    "validate_data": ("sorted(path.read_text() for path in Path('data/raw').iterdir())", "build/manifest.parquet"),
    "export_onnx": ("[Path('build/manifest.parquet').read_text()]", "models/model.onnx"),
}
_STAGE = """\
import os
from pathlib import Path

if os.environ.get("TOY_FAILS") == "{name}":
    raise SystemExit("the toy fails")
text = "VERSION 1 " + os.environ.get("TOY_{name}", "") + " ".join({reads})
Path("{writes}").parent.mkdir(exist_ok=True)
Path("{writes}").write_text(text)
"""
_DVC_YAML = """\
stages:
  record_code:
    cmd: mkdir -p build && cp tasks/record.json build/provenance.json
    deps: [tasks/record.json]
    outs: [build/provenance.json]
  validate_data:
    cmd: python -m tasks.validate_data
    deps: [data/raw, tasks/validate_data.py]
    outs: [build/manifest.parquet]
  export_onnx:
    cmd: python -m tasks.export_onnx
    deps: [build/manifest.parquet, tasks/export_onnx.py]
    params: [build/provenance.json: [export_onnx]]
    outs: [models/model.onnx]
"""
FIRST, SECOND, FAILED = (record_of(number).run for number in range(3))


@pytest.fixture(scope="module")
def finished(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a project below it, in which three nights have passed; the last one failed. To be copied."""
    root = tmp_path_factory.mktemp("reproduce") / "big" / "vision"
    write_project(root)
    for name, (reads, writes) in _STAGES.items():
        (root / "tasks" / f"{name}.py").write_text(_STAGE.format(name=name, reads=reads, writes=writes))
    project = Project(root, environment)
    for fruit in ("apple", "banana"):
        project.write(f"data/raw/{fruit}.txt", f"one {fruit}")
    libraries = {"numpy": installed_versions()["numpy"]}
    write_json(
        root / "tasks/record.json", {name: {"code": {f"tasks.{name}": "1"}, "libraries": libraries} for name in _STAGES}
    )
    project.write("tasks/__init__.py", "")  # else `tasks` of another folder comes first
    git(root.parent, "init", "--quiet")
    project.write("dvc.yaml", _DVC_YAML)
    project.write(".dvc/config", "[core]\n    analytics = false\n")
    project.write(".dvc/.gitignore", "/tmp\n/cache\n/config.local\n")
    git(root, "add", "tasks", "params.yaml", "dvc.yaml", ".gitignore", ".dvc")
    git(root, "commit", "--quiet", "-m", "begin")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        _night(project, 0)
        (root / "data" / "raw" / "apple.txt").unlink()
        project.write("tasks/export_onnx.py", project.read("tasks/export_onnx.py").replace("VERSION 1", "VERSION 2"))
        _night(project, 1)
        write_receipt(load_params(Path("params.yaml")), record_of(2, "Failed", "Too dark.", "Recorded", "Failed"))
    return root.parent


def _night(project: Project, number: int) -> None:
    """Do what a run does: record the photos, bring the stages up to date, write a receipt."""
    project.succeed("dvc", "add", "data/raw")
    project.succeed("dvc", "repro")
    write_receipt(load_params(Path("params.yaml")), record_of(number))


@pytest.fixture
def project(finished: Path, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of it, as the current folder."""
    copy = Project(shutil.copytree(finished, tmp_path / "big") / "vision", environment)
    monkeypatch.chdir(copy.root)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("GIT_DIR", raising=False)
    return copy


def _reproduce(run: str, **options: Any) -> tuple[bool, str]:
    told: list[str] = []
    is_same = reproduce(load_params(Path("params.yaml")), run, anyway=False, tell=told.append, **options)
    return is_same, "\n".join(told)


def _contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder; those in which DVC and Regraft keep locks and hashes are none of a person's."""
    files = [path for path in folder.rglob("*") if path.is_file() and not {"tmp", "logs"} & set(path.parts[-6:])]
    return {str(path): path.read_bytes() for path in files if path.name != "index"}


def _trees(root: Path) -> int:
    return len(git(root, "worktree", "list").splitlines())


def test_an_earlier_run_ends_in_the_same_bytes_and_leaves_no_trace(project):
    """Since then a photo went and the code changed. What a kill left of another reproduction is in the way."""
    git(project.root, "worktree", "add", "--quiet", "--detach", str(FOLDER), "HEAD")
    shutil.rmtree(FOLDER)
    FOLDER.mkdir()
    before = _contents(project.root.parent / ".git" / "refs") | _contents(project.root)
    is_same, told = _reproduce(FIRST)
    assert is_same, told
    assert "photos: 2 files, as they were then" in told
    assert told.endswith("The same bytes.")
    assert _contents(project.root.parent / ".git" / "refs") | _contents(project.root) == before
    assert (_trees(project.root), FOLDER.exists()) == (1, False)


def test_other_bytes_are_told_with_the_first_stage_that_wrote_them(project, monkeypatch):
    monkeypatch.setenv("TOY_validate_data", "something")
    is_same, told = _reproduce(FIRST)
    assert not is_same
    assert told.endswith("The first that differ: build/manifest.parquet, which validate_data writes.")


def _forge(project: Project, run: str, name: str, text: str) -> str:
    """Push a commit into the place of a run's snapshot, as whoever may write to the branch of nights can."""
    commit = git(project.root, "rev-parse", f"refs/regraft/runs/{run}^")
    git(project.root, "worktree", "add", "--quiet", "--detach", "../forged", commit)
    (project.root / "../forged/vision" / name).write_text(text)
    git(project.root / "../forged", "add", "--all")
    git(project.root / "../forged", "commit", "--quiet", "-m", f"What run {run} was made from")
    forged = git(project.root / "../forged", "rev-parse", "HEAD")
    git(project.root, "worktree", "remove", "--force", "../forged")
    git(project.root, "update-ref", f"refs/regraft/runs/{run}", forged)
    return forged


@pytest.mark.parametrize("name", ["tasks/export_onnx.py", "numpy.py", "../conftest.py"])
def test_code_that_somebody_wrote_to_the_branch_of_nights_does_not_run(project, name):
    _forge(project, FIRST, name, f"open({str(project.root / 'attacked')!r}, 'w')\n")
    with pytest.raises(RegraftError, match=rf"had code that is none .*{Path(name).name}.*--trust BRANCH"):
        _reproduce(FIRST)
    assert not (project.root / "attacked").exists()
    assert (_trees(project.root), FOLDER.exists()) == (1, False)


def test_edits_of_code_run_once_their_commit_is_named(project):
    with pytest.raises(RegraftError, match=r"--trust"):
        _reproduce(SECOND)
    assert _reproduce(SECOND, trusted=git(project.root, "rev-parse", f"refs/regraft/runs/{SECOND}"))[0]


def test_photos_that_are_nowhere_are_named_and_no_trace_is_left(project):
    _lose(project.root, "banana.txt")
    with pytest.raises(RegraftError, match=r"neither in DVC's cache nor in a remote: banana\.txt"):
        _reproduce("-3")
    assert (_trees(project.root), FOLDER.exists()) == (1, False)


def test_what_a_snapshot_says_to_dvc_leads_nowhere_outside(project):
    """What it names could be anybody's: a path outside of the project, a remote, a repository to be cloned."""
    (project.root / "thesis.txt").write_text("of a person")
    text = f"outs:\n- md5: {'a' * 32}\n  path: {project.root / 'thesis.txt'}\n"
    _forge(project, FIRST, "data/raw.dvc", text)
    with pytest.raises(RegraftError, match=r"raw\.dvc is damaged: .*a path that leads outside"):
        _reproduce(FIRST)
    assert (project.root / "thesis.txt").read_text() == "of a person"


def _lose(root: Path, name: str) -> None:
    md5 = md5_of(root / "data" / "raw" / name)
    (root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]).unlink()


def test_photos_are_fetched_from_dvcs_remote(project, tmp_path):
    shutil.copytree(".dvc/cache", tmp_path / "remote")
    _lose(project.root, "banana.txt")
    project.write(".dvc/config", "[core]\n    remote = there\n['remote \"there\"']\n    url = ../../../remote\n")
    is_same, told = _reproduce(FIRST)
    assert is_same
    assert "1 photos are not in DVC's cache. Fetching" in told


def _edit_receipt(run: str, before: str, after: str) -> None:
    path = Path("receipts", f"{run}.json")
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


def test_other_libraries_are_named_before_anything_runs(project):
    version = installed_versions()["numpy"]
    _edit_receipt(FIRST, f'"numpy": "{version}"', '"numpy": "1.0"')
    with pytest.raises(RegraftError, match=rf"other libraries: numpy 1\.0 \(here {version}\).*--anyway"):
        _reproduce(FIRST)


def test_another_processor_is_named_before_anything_runs(project):
    _edit_receipt(FIRST, '"instruction_set": "', '"instruction_set": "sparc ')
    with pytest.raises(RegraftError, match="the run had another processor"):
        _reproduce(FIRST)


def test_a_run_that_failed_made_no_model(project):
    with pytest.raises(RegraftError, match=r"made no model: it ended as Failed \(Too dark\.\)"):
        _reproduce(FAILED)


def test_a_run_without_a_snapshot_says_why(project):
    _edit_receipt(FIRST, '"problem": ""', '"problem": "DVC is set up to go without git here (core.no_scm)."')
    with pytest.raises(RegraftError, match=r"has no snapshot of its code and params: DVC is set up to go without git"):
        _reproduce(FIRST)


def test_a_snapshot_that_another_clone_has_is_said_to_be_fetched(project):
    git(project.root, "update-ref", "-d", f"refs/regraft/runs/{FIRST}")
    _edit_receipt(FIRST, '"snapshot": "', '"snapshot": "0')
    with pytest.raises(RegraftError, match=r"git fetch ADDRESS 'refs/regraft/\*"):
        _reproduce(FIRST)


def test_two_do_not_reproduce_at_once(project):
    from filelock import FileLock

    with FileLock(FOLDER.with_suffix(".lock")), pytest.raises(Busy, match="being reproduced"):
        _reproduce(FIRST)


@pytest.mark.parametrize(("is_same", "status"), [(True, 0), (False, 2)])
def test_the_exit_status_says_whether_the_bytes_are_the_same(project, monkeypatch, is_same, status):
    monkeypatch.setattr("tasks.project.enter_project", lambda: project.root)
    monkeypatch.setattr("tasks.runs.reproduce.reproduce", lambda *arguments, **options: is_same)
    assert CliRunner().invoke(app, ["reproduce", "-1"]).exit_code == status
