"""Leases: two machines whose clocks differ, containers that look alike, and files that are no leases."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from regraft.core.errors import Busy
from regraft.store import leases
from regraft.store.lease import Lease
from regraft.store.leases import store_in_use
from regraft.store.machine import Process, this_process
from regraft.store.remote import Remote
from regraft.store.upkeep import compact

ELSEWHERE = Process("builder", 17, 4711, "11111111-2222-3333-4444-555555555555", "pid:[4026531836]")
MINUTE, DAY = 60.0, 86_400.0
Change = Callable[[dict[str, Any]], None]


@pytest.fixture(params=["local", "shared"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    """The address of a shared root that machines have used, or None."""
    if request.param == "local":
        return None
    with store_in_use(tmp_path / "first", address := f"memory://{tmp_path}/shared"):
        return address


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def lease_of(process: Process, *, uptime: float = 1e6, **settings: Any) -> bytes:
    """The lease that a process writes, `uptime` seconds after its machine was started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("regraft.store.lease.uptime", lambda: uptime)
        lease = Lease.made(process, since=settings.pop("since", time.time()), is_alone=settings.pop("is_alone", False))
    return lease.model_dump_json().encode()


def put(root: Path, shared: str | None, contents: bytes, *, age: float = 0, name: str = "builder-17-00c0ffee") -> Path:
    """Write a lease as another process does, so many seconds ago by the clock of the store."""
    path = root / "leases" / f"{name}.json"
    if shared:
        Remote(shared).write(f"leases/{path.name}", contents)
        (file,) = [
            file
            for key, file in MemoryFileSystem.store.items()
            if key.endswith(f"{root.parent}/shared/leases/{path.name}")
        ]
        file.modified = datetime.now(UTC) - timedelta(seconds=age)
        return path
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(contents)
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age))
    return path


def is_in_use(root: Path, shared: str | None) -> bool:
    """Whether somebody else keeps gc and compact away."""
    try:
        compact(root, shared)
    except Busy:
        return True
    return False


def names(root: Path, shared: str | None) -> set[str]:
    here = {path.name for path in (root / "leases").glob("*")}
    return here | set(Remote(shared).sizes("leases") if shared else ())


# clocks and machines


@pytest.mark.parametrize("shift", [-DAY, DAY])
@pytest.mark.parametrize("age", [0, 11 * MINUTE])
def test_a_lease_is_as_old_as_the_store_says_whatever_the_clocks_of_machines_show(
    root, shared, monkeypatch, shift, age
):
    now = time.time()
    put(root, shared, lease_of(ELSEWHERE, since=now), age=age)
    monkeypatch.setattr("time.time", lambda: now + shift)
    assert is_in_use(root, shared) == (age < 10 * MINUTE)
    assert bool(names(root, shared)) == (age < 10 * MINUTE)  # what does not count any more is removed


@pytest.mark.parametrize("shift", [-DAY, DAY])
def test_a_clock_that_is_set_while_the_store_is_in_use_ends_no_lease_of_the_same_machine(root, shared, shift):
    # All times of a local disk jump with the clock; the time since the start of the machine does not.
    other = replace(this_process(), pid_namespace="pid:[1]")
    contents = Lease.made(other, since=time.time(), is_alone=False).model_dump_json().encode()
    put(root, shared, contents, age=shift)
    assert is_in_use(root, shared)


def test_a_process_that_has_ended_on_this_machine_keeps_nobody_waiting(root, shared):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    put(root, shared, lease_of(replace(this_process(), pid=ended.pid)))
    assert not is_in_use(root, shared)


def test_a_number_that_another_process_has_got_since_is_not_the_holder(root, shared):
    put(root, shared, lease_of(replace(this_process(), started=1)))
    assert not is_in_use(root, shared)


@pytest.mark.parametrize("change", [{"pid_namespace": "pid:[1]"}, {"boot": ELSEWHERE.boot}, {"boot": ""}])
def test_a_container_or_machine_of_the_same_name_is_not_judged_by_its_numbers_of_processes(root, shared, change):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    put(root, shared, lease_of(replace(this_process(), pid=ended.pid, **change)))
    assert is_in_use(root, shared)


def test_a_stage_does_not_wait_for_readers_and_waits_for_who_removes(root, shared):
    put(root, shared, lease_of(ELSEWHERE))
    with store_in_use(root, shared):
        pass
    put(root, shared, lease_of(ELSEWHERE, is_alone=True))
    with pytest.raises(Busy, match=r"in use by process 17 on builder, since 20\d\d"), store_in_use(root, shared):
        pytest.fail("both are at work")


# renewal


def test_a_lease_is_renewed_while_nothing_touches_the_store(root, shared, monkeypatch):
    monkeypatch.setattr(leases, "_RENEW_SECONDS", 0.05)
    with store_in_use(root, shared) as use:
        before = (root / "leases" / use.lease).read_bytes()
        deadline = time.monotonic() + 20
        while (root / "leases" / use.lease).read_bytes() == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert names(root, shared) == set()


# files that are no leases


@pytest.mark.parametrize(("field", "value"), [("pid", 0), ("since", 10**400), ("seal", "0" * 16), ("more", 1)])
def test_a_lease_with_a_wrong_value_is_kept_for_ten_minutes_and_removed_then(tmp_path, field, value):
    contents = json.dumps({**json.loads(lease_of(ELSEWHERE)), field: value}).encode()
    put(tmp_path, None, contents)
    with pytest.raises(Busy, match=r"a process whose lease, leases/builder-17-00c0ffee.json, cannot be read"):
        compact(tmp_path, None)
    with store_in_use(tmp_path, None):  # it may be damaged, and most leases are those of readers
        pass
    put(tmp_path, None, contents, age=11 * MINUTE)
    assert not is_in_use(tmp_path, None)
    assert names(tmp_path, None) == set()


def test_no_flipped_bit_and_no_truncation_makes_a_live_lease_one_that_is_over(tmp_path):
    good = lease_of(this_process(), uptime=0)
    Path(tmp_path / "leases").mkdir()
    damaged = [good[:length] for length in range(len(good))]
    damaged += [
        good[: bit // 8] + bytes([good[bit // 8] ^ (1 << bit % 8)]) + good[bit // 8 + 1 :]
        for bit in range(8 * len(good))
    ]
    for contents in damaged:
        lease = Lease.read(contents)
        assert lease is None or lease.is_live(0.0), contents


def test_what_is_no_file_keeps_nobody_waiting(root):
    (root / "leases").mkdir()
    os.mkfifo(root / "leases" / "builder-17-00c0ffee.json")
    (root / "leases" / "builder-18-00c0ffee.json").mkdir()
    (root / "leases" / "builder-19-00c0ffee.json").symlink_to("nowhere")
    assert not is_in_use(root, None)
