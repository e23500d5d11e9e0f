import os
import shutil
import subprocess
from pathlib import Path

import pytest

from regraft.core.config import Params
from regraft.core.errors import RegraftError
from regraft.core.params_file import load_params
from regraft.photos.base_requests import add_request, read_requests
from tasks.dvc_seam import open_repo
from tasks.runs import receipts, remotes
from tasks.runs.git import open_git
from tasks.runs.receipts import write_receipt
from tasks.runs.remotes import commit_and_push, fetch_records, pull
from tests.support.run_receipts import git, record_of, versions, write_repository, write_results

BRANCH = "regraft/nightly"


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare repository with a project in which nothing has run yet. To be copied."""
    folder = tmp_path_factory.mktemp("published")
    write_repository(folder / "project")
    (folder / "project" / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    git(folder / "project", "add", "--force", ".dvc/config")
    git(folder / "project", "commit", "--quiet", "-m", "DVC")
    git(folder, "clone", "--quiet", "--bare", "project", "origin.git")
    return folder / "origin.git"


@pytest.fixture
def origin(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in an empty home."""
    monkeypatch.setattr(receipts, "installed_versions", versions)
    for name in [name for name in os.environ if name.startswith(("GIT_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return shutil.copytree(published, tmp_path / "origin.git")


@pytest.fixture
def clone(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that makes a worker: a fresh clone, which the process is in then."""

    def make(name: str, *options: str) -> Path:
        git(tmp_path, "clone", "--quiet", *options, f"file://{origin}", name)
        monkeypatch.chdir(tmp_path / name)
        return tmp_path / name

    return make


def _params() -> Params:
    params = load_params(Path("params.yaml"))
    return params.model_copy(update={"nights": params.nights.model_copy(update={"branch": BRANCH, "push": "origin"})})


def _night(root: Path, number: int, data: str) -> list[str]:
    """What a night leaves: results, a receipt, a commit that is pushed."""
    (root / "models").mkdir(exist_ok=True)
    (root / "data").mkdir(exist_ok=True)
    (root / ".dvc/tmp/regraft").mkdir(parents=True, exist_ok=True)
    write_results(root, data)
    record = record_of(number)
    write_receipt(_params(), record)
    return commit_and_push(_params(), record, BRANCH)


def _fetch(root: Path) -> str:
    return fetch_records(open_git(root), _params())


def test_a_fresh_clone_goes_on_where_a_deleted_one_ended(origin, clone):
    first = clone("first")
    assert "no branch regraft/nightly yet" in _fetch(first)
    assert _night(first, 0, "a")[-1] == f"Pushed {BRANCH} to origin."
    lock = (first / "dvc.lock").read_text()
    shutil.rmtree(first)

    second = clone("second", "--depth=1")
    assert _fetch(second).startswith(f"The records are those of {BRANCH} at origin (")
    assert (second / "dvc.lock").read_text() == lock
    assert (second / "data" / "splits.csv").is_file()
    assert [path.stem for path in (second / "receipts").iterdir()] == [record_of(0).run]
    assert _night(second, 1, "b")[-1] == f"Pushed {BRANCH} to origin."
    assert git(origin, "rev-list", "--count", f"main..{BRANCH}") == "2"


def _snapshots(root: Path) -> list[str]:
    return git(root, "for-each-ref", "--format=%(refname)", "refs/regraft").split()


def test_no_secret_of_a_person_leaves_with_the_branch_and_the_snapshots(origin, clone):
    worker = clone("worker")
    secrets = {
        ".env.prod": "staged-secret",
        "automations.yaml": "automations: []\n# edited-secret\n",
        "keys.txt": "untracked-secret",
        "tasks/mail.py": "new-secret",
        "db.secret": "ignored-secret",
    }
    for name, text in secrets.items():
        (worker / name).write_text(text)
    git(worker, "add", ".env.prod")
    git(worker, "tag", "-a", "private", "-m", "tagged-secret")
    git(worker, "config", "push.followTags", "true")
    git(worker, "stash", "create")
    assert _night(worker, 0, "a")[-1] == f"Pushed {BRANCH} to origin."
    assert _snapshots(origin) == [f"refs/regraft/runs/{record_of(0).run}"]
    command = ["git", "cat-file", "--batch-all-objects", "--batch"]
    kept = subprocess.run(command, cwd=origin, capture_output=True, check=True).stdout
    assert b"automations: []" in kept
    assert b"-secret" not in kept
    assert b"keys.txt" not in kept


def test_old_snapshots_go_here_and_at_the_remote_but_those_of_other_branches_and_of_production_stay(
    origin, clone, monkeypatch
):
    monkeypatch.setattr(receipts, "KEPT_RUNS", 2)
    first = clone("first")
    git(first, "push", "--quiet", "origin", "HEAD:refs/regraft/runs/20200101T000000-abcdef")
    for number, data in enumerate("abcd"):
        if number == 1:
            (first / "models/production").mkdir()
            shutil.copy(first / "models/model.onnx", first / "models/production/model.onnx")  # that of the first night
        assert _night(first, number, data)[-1] == f"Pushed {BRANCH} to origin."
    runs = [f"refs/regraft/runs/{record_of(number).run}" for number in (0, 2, 3)]
    assert [name for name in _snapshots(first) if "/runs/" in name] == runs
    assert _snapshots(origin) == ["refs/regraft/runs/20200101T000000-abcdef", *runs]
    second = clone("second")
    _fetch(second)
    _night(second, 4, "e")
    assert _snapshots(origin)[1:] == [f"refs/regraft/runs/{record_of(number).run}" for number in (3, 4)]


def _push_odd(root: Path, path: str, target: str | None = None, content: str = "{}") -> None:
    """Add to the branch what no run writes, as whoever may push to it can do: a link, or a file."""
    git(root, "checkout", "--quiet", "-B", BRANCH, f"origin/{BRANCH}")
    (root / path).unlink(missing_ok=True)
    (root / path).symlink_to(target) if target else (root / path).write_text(content)
    git(root, "add", "--force", path)
    git(root, "commit", "--quiet", "-m", "odd")
    git(root, "push", "--quiet", "origin", BRANCH)
    git(root, "checkout", "--quiet", "main")


def test_of_the_folder_of_receipts_only_plain_files_of_their_form_are_taken(origin, clone, monkeypatch):
    _night(clone("worker"), 0, "a")
    attacker = clone("attacker")
    odd = [f"receipts/{record_of(number).run}.json" for number in (1, 2)]
    _push_odd(attacker, odd[0], target="/etc/passwd")
    _push_odd(attacker, odd[1], content=" " * 30_000)
    _push_odd(attacker, "receipts/.dvcignore", content="*")
    monkeypatch.setattr(remotes, "MOST_BYTES", 29_999)
    worker = clone("another")
    said = _fetch(worker)
    assert [path.stem for path in (worker / "receipts").iterdir()] == [record_of(0).run]
    assert all(name in said for name in (*odd, "receipts/.dvcignore"))


def test_a_link_in_the_place_of_a_record_is_refused(origin, clone):
    _night(clone("worker"), 0, "a")
    _push_odd(clone("attacker"), "data/splits.csv", target="/etc/passwd")
    worker = clone("another")
    with pytest.raises(RegraftError, match=r"data/splits\.csv on the branch is a link"):
        _fetch(worker)
    assert not (worker / "data" / "splits.csv").exists()


@pytest.mark.parametrize(("path", "is_taken"), [("tasks/stage.py", False), ("data/splits.csv", True)])
def test_no_code_comes_from_the_branch_of_nights_where_that_is_checked_out(origin, clone, path, is_taken):
    _night(clone("worker"), 0, "a")
    worker = clone("another", "--branch", BRANCH)
    attacker = clone("attacker")
    (attacker / path).parent.mkdir(exist_ok=True)
    _push_odd(attacker, path, content="another\n")
    os.chdir(worker)
    if is_taken:
        assert _fetch(worker) == f"What is checked out has all of {BRANCH}."
    else:
        with pytest.raises(RegraftError, match=r"change more than records: tasks/stage\.py\..*`git merge --ff-only"):
            _fetch(worker)
    found = (worker / path).read_text() if (worker / path).exists() else ""
    assert (found == "another\n") == is_taken


def test_what_a_person_merged_and_went_on_from_counts_and_not_the_branch(origin, clone):
    _night(clone("worker"), 0, "a")
    person = clone("person")
    git(person, "merge", "--quiet", f"origin/{BRANCH}")
    (person / "dvc.lock").write_text("by hand\n")
    git(person, "commit", "--quiet", "-am", "by hand")
    git(person, "push", "--quiet")

    worker = clone("another", "--depth=1")
    assert _fetch(worker) == f"What is checked out has all of {BRANCH}."
    assert (worker / "dvc.lock").read_text() == "by hand\n"
    assert _night(worker, 1, "b")[-1] == f"Pushed {BRANCH} to origin."


def test_requests_for_a_new_base_are_those_of_the_nights_and_of_people(origin, clone):
    first = clone("first")
    add_request(first / "data/base_renewals.csv", "of a night", "the gate said no")
    _night(first, 0, "a")
    person = clone("person")
    (person / "data").mkdir()
    add_request(person / "data/base_renewals.csv", "of a person", "a photo was removed")
    git(person, "add", "--force", "data/base_renewals.csv")
    git(person, "commit", "--quiet", "-m", "renew")
    git(person, "push", "--quiet")

    second = clone("second")
    _fetch(second)
    assert set(read_requests(second / "data/base_renewals.csv")) == {"of a night", "of a person"}


def test_two_machines_on_one_branch_lose_nothing_and_are_told(origin, clone):
    one, other = clone("one"), clone("other")
    os.chdir(one)
    _night(one, 0, "a")
    os.chdir(other)
    told = _night(other, 1, "b")
    assert told[-1].startswith(f"Warning: {BRANCH} was not pushed to origin, which has commits of another machine")
    assert git(origin, "rev-parse", BRANCH) == git(one, "rev-parse", BRANCH)
    with pytest.raises(RegraftError, match="two machines push to it"):
        _fetch(other)


def test_a_file_that_was_changed_here_and_not_committed_is_not_overwritten(origin, clone):
    _night(clone("worker"), 0, "a")
    person = clone("person")
    (person / "dvc.lock").write_text("work of an afternoon\n")
    with pytest.raises(RegraftError, match=r"dvc\.lock was changed here and is not in git"):
        _fetch(person)
    assert (person / "dvc.lock").read_text() == "work of an afternoon\n"


def test_a_push_that_failed_is_made_up_for_by_the_next_night_of_the_same_clone(origin, clone):
    worker = clone("worker")
    origin.rename(origin.with_name("away"))
    assert _night(worker, 0, "a")[-1].startswith(f"Warning: {BRANCH} was not pushed to origin: ")
    origin.with_name("away").rename(origin)
    assert _night(worker, 1, "b")[-1] == f"Pushed {BRANCH} to origin."
    assert git(origin, "rev-list", "--count", f"main..{BRANCH}") == "2"


def test_a_remote_that_is_away_stops_a_pull_and_shows_no_address(clone):
    worker = clone("worker")
    git(worker, "remote", "set-url", "origin", "https://user:secret@localhost:1/x.git")
    with pytest.raises(RegraftError) as stopped:
        _fetch(worker)
    assert f"{BRANCH} of origin cannot be fetched" in str(stopped.value)
    assert "secret" not in str(stopped.value)


def test_without_the_data_at_dvcs_remote_the_branch_is_not_pushed(origin, clone, monkeypatch):
    monkeypatch.setattr(remotes, "push_data", lambda params: ["Warning: nothing was pushed to DVC's remote."])
    told = _night(clone("worker"), 0, "a")
    assert told[-1] == "So origin was not told of the commit either: it would name data that nobody has."
    assert BRANCH not in git(origin, "for-each-ref", "refs/heads")


def _with_shared_store():
    machine = _params().machine.model_copy(update={"shared_store": "s3://bucket"})
    return _params().model_copy(update={"machine": machine})


@pytest.mark.filterwarnings("ignore:_NoneStep.value will soon raise:DeprecationWarning")  # of pygtrie, below DVC
def test_a_fresh_clone_has_the_data_and_the_results_after_a_pull(origin, clone, tmp_path):
    first = clone("first")
    (first / ".dvc" / "config").write_text(
        f"[core]\n    remote = there\n['remote \"there\"']\n    url = {tmp_path}/remote\n"
    )
    (first / "dvc.yaml").write_text(
        "stages:\n  a:\n    cmd: echo 1 > made.txt\n    deps: [data/raw]\n    outs: [made.txt]\n"
        "  cache_features:\n    cmd: mkdir -p build reports; echo 2 | tee build/features.arrow >reports/features.json\n"
        "    deps: [made.txt]\n    outs: [build/features.arrow, reports/features.json]\n"
    )
    (first / "data" / "raw").mkdir(parents=True)
    (first / "data" / "raw" / "labels.csv").write_text("path,label\n")
    with open_repo(first) as repo:
        repo.add("data/raw")
        repo.reproduce()
        repo.push(run_cache=True)
    with (first / "dvc.lock").open("a") as lock:
        output = f"path: x\n      hash: md5\n      md5: {'a' * 32}\n      size: 1"
        lock.write(f"  former:\n    cmd: make it\n    outs:\n    - {output}\n")
    git(first, "add", "data/raw.dvc", "dvc.lock", "dvc.yaml", ".dvc/config")
    git(first, "commit", "--quiet", "-m", "a night")
    git(first, "push", "--quiet")

    second = clone("second")
    _, left_out, pulled = pull(second, _with_shared_store())
    assert left_out == "Left out what dvc.lock has of stages that dvc.yaml has no more: former."
    assert pulled == ("Pulled from DVC's remote: the data; the results of a, reports/features.json; the run cache.")
    assert (second / "reports" / "features.json").read_text() == "2\n"
    assert not (second / "build" / "features.arrow").exists()
    assert (second / "data" / "raw" / "labels.csv").read_text() == "path,label\n"
    assert (second / "made.txt").read_text() == "1\n"
    assert next((second / ".dvc" / "cache" / "runs").iterdir())
    shutil.rmtree(tmp_path / "remote")
    with pytest.raises(RegraftError, match="not all could be pulled"):
        list(pull(clone("third"), _params()))


def test_with_a_shared_store_the_large_table_of_features_is_not_fetched(clone, monkeypatch):
    worker = clone("worker")
    writes = {"build/features.arrow": {}, "reports/features.json": {}}
    locked = {"record_code": {"writes": {"a": {}}}, "cache_features": {"writes": writes}}
    monkeypatch.setattr(remotes, "read_locked", lambda: locked)
    monkeypatch.setattr(remotes, "read_stages", lambda: list(locked))
    pulled: list[list[str]] = []
    monkeypatch.setattr(remotes, "pull_data", lambda params, targets: pulled.append(targets))
    list(pull(worker, _params()))
    list(pull(worker, _with_shared_store()))
    assert pulled == [["record_code", "cache_features"], ["record_code"], ["reports/features.json"]]


_OUT = "schema: '2.0'\nstages:\n  a:\n    cmd: b\n    outs:\n    - {path: c, hash: md5,"
DAMAGED = [
    "",
    "schema: '2.0'\nstages:\n  a: {cmd: b}",
    "schema: '2.0'\n",
    "schema: '2.0'\nstages:\n  a:\n    cm",
    "- a list\n",
    # DVC would copy that file into the project, from where the next push takes it to the remote.
    f"{_OUT} md5: aa/../../../../../../secret}}\n",
    f"{_OUT[:-5]} etag, etag: aa/../../../../../../secret}}\n",
    f"{_OUT[:-5]} checksum, checksum: aa/../../../../../../secret}}\n",
    f"{_OUT} md5: {'a' * 32}, cloud: {{store: {{etag: aa/../../secret, version_id: b}}}}}}\n",
    # DVC would write that file.
    f"{_OUT} files: [{{relpath: ../../planted, md5: {'a' * 32}, size: 1}}]}}\n",
    "<<<<<<< ours\n",
    "\x00",
]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_dvc_lock_stops_a_pull_before_the_data_alone_is_fetched(clone, monkeypatch, text):
    worker = clone("worker")
    (worker / "data").mkdir()
    (worker / "data" / "raw.dvc").write_text("outs:\n- path: raw\n")
    (worker / "dvc.lock").write_text(text)
    monkeypatch.setattr(remotes, "pull_data", lambda *_: pytest.fail("something was fetched"))
    with pytest.raises(RegraftError, match=r"dvc\.lock.*`git checkout"):
        list(pull(worker, _params()))
    (worker / "dvc.lock").unlink()
    (worker / "dvc.lock").symlink_to("nowhere")
    with pytest.raises(RegraftError, match=r"dvc\.lock must be a file"):
        list(pull(worker, _params()))
