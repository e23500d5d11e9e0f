"""No message, file or traceback holds what could be a secret: neither of the address nor of what libraries say."""

import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from regraft.core.errors import RegraftError
from regraft.store import overview
from regraft.store.leases import store_in_use
from regraft.store.namespace import open_namespace
from regraft.store.remote import Remote
from regraft.store.upkeep import collect, compact
from regraft.store.uses import record_use
from tests.regraft.core.test_config import SECRET, WITH_A_SECRET
from tests.support.store import fill

CALLS: dict[str, Callable[[Path, str], Any]] = {
    "a run": lambda root, url: open_namespace(root, "features", {}, shape=(4,), dtype="float32", shared=url),
    "a stage": lambda root, url: _use(root, url),
    "a record": lambda root, url: record_use(root, "a" * 32, [], [], shared=url),
    "list": overview.list_store,
    "verify": overview.verify,
    "compact": compact,
    "gc": lambda root, url: collect(root, url, {}, really=True),
}


def _use(root: Path, url: str) -> None:
    with store_in_use(root, url):
        pass


@pytest.mark.parametrize("address", WITH_A_SECRET)
def test_an_address_with_a_secret_is_refused_by_everybody_before_it_is_used(tmp_path, address, monkeypatch):
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda *_, **__: pytest.fail("it was used"))
    for call in CALLS.values():
        with pytest.raises(RegraftError) as stop:
            call(tmp_path / "store", address)
        assert not _leaks(stop.value)


OPERATIONS = ["ls", "cat_file", "pipe_file", "put_file", "get_file", "rm_file", "open", "modified"]
QUIET = {"get_file", "modified", "open", "rm_file"}  # not called here, or only where a failure is waited out
ERRORS: list[Callable[[str], Exception]] = [
    lambda text: OSError(text),
    lambda text: PermissionError(13, text, text),
    lambda text: _with_response(text),
    lambda text: _caused_by(text),
]


def _with_response(text: str) -> Exception:
    from botocore.exceptions import ClientError

    return ClientError(
        {"Error": {"Code": text, "Message": text}, "ResponseMetadata": {"HTTPHeaders": {"a": text}}}, text
    )


def _caused_by(text: str) -> Exception:
    error = OSError("outer")
    error.__cause__ = ValueError(text)
    error.add_note(text)
    return error


def _leaks(error: BaseException) -> bool:
    return "den+Secret1" in "".join(traceback.format_exception(error)) + str(error) + repr(error)


@pytest.mark.parametrize("number", range(len(ERRORS)))
@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_a_library_says_of_an_error_is_not_repeated(tmp_path, monkeypatch, capsys, caplog, operation, number):
    caplog.set_level(logging.DEBUG)
    address = f"memory://{tmp_path}/private/{number}"
    store = open_namespace(tmp_path / "store", "features", {}, shape=(4,), dtype="float32", shared=address)
    fill(store, 0)
    text = f"https://user:{SECRET}@host/x?X-Amz-Signature={SECRET} Authorization: Bearer {SECRET}"

    def fail(*_: Any, **__: Any) -> Any:
        raise ERRORS[number](text)

    assert store.remote
    monkeypatch.setattr(store.remote._files, operation, fail)
    errors: list[RegraftError] = []
    for call in (*CALLS.values(), lambda *_: fill(store, 1), lambda *_: store.refresh()):
        try:
            call(tmp_path / "store", address)
        except RegraftError as error:
            errors.append(error)
    assert not any(map(_leaks, errors))
    assert not any("private" in str(error) for error in errors)
    said = capsys.readouterr()
    assert "den+Secret1" not in said.out + said.err + caplog.text
    assert any("memory:// cannot be reached: " in str(error) for error in errors) or operation in QUIET


def test_neither_leases_nor_records_hold_the_address(tmp_path):
    address = f"file://{tmp_path}/private"
    with store_in_use(tmp_path / "store", address):
        store = open_namespace(tmp_path / "store", "features", {}, shape=(4,), dtype="float32", shared=address)
        fill(store, 0)
        record_use(tmp_path / "store", "a" * 32, [store], [], shared=address)
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(files) > 10
        assert not [path for path in files if b"private" in path.read_bytes()]


def test_credentials_of_the_environment_reach_the_store_and_no_message(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{SECRET.replace('/', '')}@127.0.0.1:9/x?token={SECRET}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(RegraftError, match="The shared store s3://bucket cannot be reached: ") as stop:
        Remote("s3://bucket/private").sizes()
    fsspec.filesystem("s3").clear_instance_cache()
    assert not _leaks(stop.value)
