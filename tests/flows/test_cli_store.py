"""`regraft store`, as a person calls it."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from regraft.core.files import sha256_of
from regraft.core.params_file import load_params
from regraft.photos.known import ContentFacts
from regraft.store.facts import Facts, open_facts
from regraft.store.leases import store_in_use
from regraft.store.namespace import Namespace, open_namespace
from regraft.store.shards import key_of
from regraft.store.uses import record_use
from tests.regraft.core.test_config import WITH_A_SECRET

KEYS = [key_of(hashlib.sha256(bytes([number])).hexdigest()) for number in range(3)]
VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)
VERSION = "ab" * 16
LOCK = f"stages: {{cache_features: {{outs: [{{path: build/features.arrow, md5: {VERSION}}}]}}}}"
Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """A function that runs one command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return lambda *arguments: CliRunner().invoke(app, ["store", *arguments])


@pytest.fixture
def project(tmp_path: Path, root: Path) -> Path:
    """A project's folder with its params and a dvc.lock that names one version of the features."""
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_text((root / name).read_text())
    (tmp_path / "dvc.lock").write_text(LOCK)
    return tmp_path


@pytest.fixture
def store(project: Path) -> Namespace:
    """The project's store: three rows, of which one is needed."""
    store = open_namespace(project / "build" / "store", "features", {}, shape=(4,), dtype="float32")
    store.append(KEYS, VALUES, seconds=3)
    store.flush()
    record_use(project / "build" / "store", VERSION, [store], KEYS[:1], shared=None)
    return store


def test_list_finds_the_store_that_params_yaml_names(store: Namespace, call: Call) -> None:
    done = call()
    assert (done.exit_code, done.stdout.split()[:5]) == (0, [store.folder.name, "3", "rows", "1", "shards"])


def test_verify_leaves_with_status_1_if_anything_is_damaged(store: Namespace, call: Call) -> None:
    assert call("--verify").exit_code == 0
    (path,) = store.folder.glob("*.arrow")
    path.write_bytes(path.read_bytes().replace(VALUES[1].tobytes(), b"?" * 16))
    done = call("--verify")
    assert (done.exit_code, "1 damaged" in done.stdout) == (1, True)
    assert "store stopped: 1 shard(s) were damaged and are set aside" in done.stderr


def test_gc_removes_only_when_it_is_told_to(store: Namespace, call: Call) -> None:
    assert "This was a dry run" in call("--gc", "1").stdout
    store.refresh()
    assert len(store) == 3
    assert call("--gc", "1", "--yes").exit_code == 0
    store.refresh()
    assert store.missing(KEYS) == KEYS[1:]


def test_gc_keeps_what_models_in_use_said_of_photos_and_removes_what_others_said(
    store: Namespace, project: Path, call: Call
) -> None:
    exported, production = project / "models/model.onnx", project / "models/production/model.onnx"
    production.parent.mkdir(parents=True)
    exported.write_bytes(b"new")
    production.write_bytes(b"in production")
    said = {}
    for digest in (sha256_of(exported), sha256_of(production), "0" * 64):
        said[digest] = open_namespace(
            store.folder.parent, "probabilities", {"model": digest}, shape=(4,), dtype="float32"
        )
        said[digest].append(KEYS, VALUES, seconds=0)
        said[digest].flush()
    assert call("--gc", "0", "--yes").exit_code == 0
    for namespace in said.values():
        namespace.refresh()
    assert [len(namespace) for namespace in said.values()] == [3, 3, 0]


def test_gc_without_a_dvc_lock_removes_nothing_and_says_so(store: Namespace, project: Path, call: Call) -> None:
    (project / "dvc.lock").unlink()
    done = call("--gc", "1", "--yes")
    store.refresh()
    assert (done.exit_code, len(store)) == (1, 3)
    assert "nobody knows what is still needed" in " ".join(done.stderr.split())


def test_compact_merges_what_another_folder_holds(
    store: Namespace, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.append(KEYS[:1], VALUES[:1], seconds=0)
    store.flush()
    (store.folder.parent.parent / "elsewhere").mkdir()
    monkeypatch.chdir(store.folder.parent.parent / "elsewhere")
    done = call("--compact", "--root", str(store.folder.parent))
    assert f"{store.folder.name}: 2 shards before, 1 now; 1 rows were there twice." in done.stdout


@pytest.mark.parametrize("command", ["", "--verify", "--compact", "--gc 1"])
@pytest.mark.parametrize("address", WITH_A_SECRET)
def test_an_address_with_a_secret_is_refused_on_the_command_line_too(
    store: Namespace, call: Call, command: str, address: str
) -> None:
    done = call(*command.split(), "--shared", address)
    assert (done.exit_code, "The address of the shared store must be" in done.stderr) == (1, True)
    assert "den+Secret1" not in done.output


def test_gc_keeps_what_another_machine_recorded_for_as_many_days_as_it_is_told(
    store: Namespace, project: Path, call: Call
) -> None:
    shared = str(project / "shared")
    elsewhere = project / "elsewhere"
    with store_in_use(elsewhere, shared):
        other = open_namespace(elsewhere, "features", {}, shape=(4,), dtype="float32", shared=shared)
        other.append(KEYS[2:], VALUES[2:], seconds=1)
        other.flush()
        record_use(elsewhere, "cd" * 16, [other], KEYS[2:], shared=shared)
    assert "1 record(s) of other machines are kept" in call("--gc", "1", "--yes", "--shared", shared).stdout
    done = call("--gc", "1", "--yes", "--shared", shared, "--stale-days", "0")
    assert (done.exit_code, "of other machines" in done.stdout) == (0, False)
    store.refresh()
    assert store.missing(KEYS) == KEYS[1:]


@pytest.mark.parametrize("command", ["", "--verify", "--compact", "--gc 1"])
def test_where_there_is_no_store_the_commands_say_so(call: Call, command: str) -> None:
    done = call(*command.split(), "--root", "nowhere")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.strip().startswith("store stopped: there is no store in nowhere. Run `regraft retrain` first")


def test_without_root_the_commands_want_to_be_run_in_a_project(call: Call) -> None:
    done = call()
    assert (done.exit_code, "store stopped: run this in the project's root" in done.stderr) == (1, True)


def test_what_decoders_said_is_listed_merged_and_collected_with_the_decoder(
    store: Namespace, project: Path, call: Call
) -> None:
    root = store.folder.parent
    mine = open_facts(load_params(project / "params.yaml"))
    other = Facts(root, None, max_pixels=1)
    for facts in (mine, mine, other, other):
        facts.add({"0a" * 32: ContentFacts(format="PNG")}, {})
    (other_file, *_) = (root / other.name).iterdir()
    os.utime(other_file, (0, 0))
    assert f"{other.name:30}     2 files" in call().stdout
    assert other.name not in call("--gc", "1", "--yes").stdout  # its other file is young
    assert f"{mine.name}: 2 files before, 1 now." in call("--compact").stdout
    for path in (*(root / mine.name).iterdir(), *(root / other.name).iterdir()):
        os.utime(path, (0, 0))
    (root / other.name / "theirs").touch()
    assert f"{other.name}: all of it" in call("--gc", "1", "--yes").stdout
    assert [path.name for path in (root / other.name).iterdir()] == ["theirs"]
    assert open_facts(load_params(project / "params.yaml")).find(["0a" * 32])
