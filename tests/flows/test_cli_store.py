"""python -m regraft.store, as a person calls it."""

import argparse
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from regraft.store import Namespace, key_of, open_namespace
from regraft.store.__main__ import _count
from regraft.store.uses import record_use

KEYS = [key_of(hashlib.sha256(bytes([number])).hexdigest()) for number in range(3)]
VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)
VERSION = "ab" * 16
LOCK = f"stages: {{cache_features: {{outs: [{{path: build/features.arrow, md5: {VERSION}}}]}}}}"


@pytest.fixture
def store(tmp_path: Path, root: Path) -> Namespace:
    """The store of a project with params.yaml and dvc.lock: three rows, of which one is needed."""
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text())
    (tmp_path / "dvc.lock").write_text(LOCK)
    store = open_namespace(tmp_path / "build" / "store", "features", {}, shape=(4,), dtype="float32")
    store.append(KEYS, VALUES, seconds=3)
    store.flush()
    record_use(tmp_path / "build" / "store", VERSION, [store], KEYS[:1], shared=None)
    return store


@pytest.fixture
def call(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs one command in the project's folder."""
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "regraft.store", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


def test_list_finds_the_store_that_params_yaml_names(store, call):
    done = call("list")
    assert (done.returncode, done.stdout.split()[:5]) == (0, [store.folder.name, "3", "rows", "1", "shards"])


def test_verify_leaves_with_status_1_if_anything_is_damaged(store, call):
    assert call("verify").returncode == 0
    (path,) = store.folder.glob("*.arrow")
    path.write_bytes(path.read_bytes().replace(VALUES[1].tobytes(), b"?" * 16))
    done = call("verify")
    assert (done.returncode, "1 damaged" in done.stdout) == (1, True)
    assert "regraft.store stopped: 1 shard(s) were damaged and are set aside" in done.stderr


def test_gc_removes_only_when_it_is_told_to(store, call):
    assert "This was a dry run" in call("gc", "--keep", "1").stdout
    store.refresh()
    assert len(store) == 3
    assert call("gc", "--keep", "1", "--yes").returncode == 0
    store.refresh()
    assert store.missing(KEYS) == KEYS[1:]


def test_gc_without_a_dvc_lock_removes_nothing_and_says_so(store, call, tmp_path):
    (tmp_path / "dvc.lock").unlink()
    done = call("gc", "--keep", "1", "--yes")
    store.refresh()
    assert (done.returncode, len(store)) == (1, 3)
    assert "nobody knows what is still needed" in " ".join(done.stderr.split())


def test_compact_merges_what_another_folder_holds(store, call, tmp_path):
    store.append(KEYS[:1], VALUES[:1], seconds=0)
    store.flush()
    done = call("compact", "--root", str(store.folder.parent))
    assert f"{store.folder.name}: 2 shards before, 1 now; 1 rows were there twice." in done.stdout


@pytest.mark.parametrize("keep", ["-1", "many", "1.5"])
def test_a_number_of_versions_that_is_none_is_refused(keep):
    with pytest.raises(argparse.ArgumentTypeError, match=r"expected a number of versions, 0 or more\. Received: "):
        _count(keep)


@pytest.mark.parametrize("command", ["list", "verify", "compact", "gc --keep 1"])
def test_where_there_is_no_store_the_commands_say_so(tmp_path, root, command):
    done = subprocess.run(
        [sys.executable, "-m", "regraft.store", *command.split(), "--root", "nowhere"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("regraft.store stopped: there is no store in nowhere. Run the pipeline first")
