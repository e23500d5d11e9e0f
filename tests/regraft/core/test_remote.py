"""Files at an address: written whole, replaced only over what was read, unreachable in words without a secret."""

import socket
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from regraft.core import remote as module
from regraft.core.remote import Remote, Unreachable


@pytest.fixture(params=["s3", "file", "memory"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    """An address where nothing is."""
    if request.param == "s3":
        request.getfixturevalue("s3_server")
    places = {
        "file": f"file://{tmp_path}/shared",
        "s3": f"s3://bucket/{tmp_path.name}",
        "memory": f"memory://{tmp_path}",
    }
    return Remote(places[request.param])


def test_what_was_put_is_read_listed_and_removed(remote, tmp_path):
    (tmp_path / "local").write_bytes(b"0123456789")
    remote.put("a/b.bin", tmp_path / "local")
    remote.put("c.bin", b"12")
    remote.download("a/b.bin", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == remote.get("a/b.bin") == b"0123456789"
    assert (remote.get_range("a/b.bin", 2, 4), remote.get_range("a/b.bin", 8, 99)) == (b"23", b"89")
    listed = remote.list()
    assert (listed["a"].is_folder, listed["c.bin"].size, list(remote.list("a"))) == (True, 2, ["b.bin"])
    assert (listed["c.bin"].written or 0) > 1e9
    assert {name: entry.size for name, entry in remote.walk()} == {"a/b.bin": 10, "c.bin": 2}
    remote.remove("c.bin")
    remote.remove("c.bin")
    assert remote.get("c.bin") is None


def test_what_is_not_there_is_none_or_a_missing_file(remote, tmp_path):
    assert (remote.get("x"), remote.get_range("x", 0, 1), remote.get_tagged("x"), remote.list("x")) == (None,) * 3 + (
        {},
    )
    with pytest.raises(FileNotFoundError):
        remote.download("x", tmp_path / "x")


def test_a_file_is_replaced_only_over_the_one_that_was_read(remote):
    assert remote.put_if("p.json", b"one", None)
    assert not remote.put_if("p.json", b"other", None)
    contents, tag = remote.get_tagged("p.json")
    assert remote.put_if("p.json", b"two", tag)
    assert not remote.put_if("p.json", b"three", tag)
    assert (contents, remote.get("p.json")) == (b"one", b"two")


def test_a_file_that_was_written_half_is_never_read(tmp_path, monkeypatch):
    remote = Remote(f"file://{tmp_path}")
    remote.put("a", b"old")
    monkeypatch.setattr(LocalFileSystem, "mv", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        remote.put("a", b"new")
    assert remote.get("a") == b"old"


def test_an_address_that_never_answers_is_unreachable_and_only_its_bucket_is_named(s3_server, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setitem(module.S3_LIMITS, "read_timeout", 0.2)
        with pytest.raises(Unreachable, match=r"The store at s3://bucket cannot be reached: .*\. Look\.") as raised:
            Remote("s3://bucket/hush", kind="store at", advice="Look.").get("a")
    assert "hush" not in str(raised.value)
