"""The file with the secret of the Prefect server: this user's alone from its first moment, and written once."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flows.prefect_server import server_secret
from flows.prefect_server.server_secret import make_secret, new_secret, proof_of, read_secret, secret_path
from regraft.core.errors import RegraftError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "regraft-login"


def test_it_is_written_once_and_then_read(path: Path) -> None:
    assert read_secret(path) is None
    secret = make_secret(path)
    assert (make_secret(path), read_secret(path)) == (secret, secret)
    assert list(path.parent.iterdir()) == [path]


def test_nobody_else_may_read_it_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        make_secret(path)
    finally:
        os.umask(before)
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)


def test_several_that_start_at_once_agree(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: make_secret(path), range(40)))) == 1


def test_a_kill_before_it_has_its_name_leaves_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(server_secret.os, "link", die)
        with pytest.raises(KeyboardInterrupt):
            make_secret(path)
    assert read_secret(path) is None
    assert read_secret(path) != make_secret(path)


def test_two_secrets_differ() -> None:
    assert len({new_secret() for _ in range(100)}) == 100


def unreadable(path: Path, kind: str) -> str:
    """Put something in its place, and return how it is called."""
    path.parent.mkdir()
    if kind == "link":
        (path.parent / "other").write_text(new_secret())
        (path.parent / "other").chmod(0o600)
        path.symlink_to("other")
        return "Too many levels of symbolic links"
    if kind == "fifo":
        os.mkfifo(path, 0o600)
        return "no ordinary file"
    if kind == "folder":
        path.mkdir()
        return "no ordinary file"
    path.write_text({"short": "regraft:1", "empty": "", "binary": "\0" * 51}.get(kind, new_secret()))
    path.chmod(int(kind, 8) if kind.isdigit() else 0o600)
    return f"mode {kind}" if kind.isdigit() else "something else"


@pytest.mark.parametrize("kind", ["0640", "0604", "0620", "0666", "link", "fifo", "folder", "short", "empty", "binary"])
def test_what_others_could_have_read_or_written_is_refused_with_what_to_do(path: Path, kind: str) -> None:
    received = unreadable(path, kind)
    for function in (read_secret, make_secret):
        with pytest.raises(RegraftError, match=rf"Received: {received}.*Remove it, and start `regraft serve` again"):
            function(path)


def test_an_error_does_not_print_the_secret(path: Path) -> None:
    secret = make_secret(path)
    path.chmod(0o644)
    with pytest.raises(RegraftError) as error:
        read_secret(path)
    assert secret[8:] not in str(error.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(path: Path) -> None:
    make_secret(path)
    os.chown(path, 12345, -1)
    with pytest.raises(RegraftError, match="owner 12345"):
        read_secret(path)


def test_a_proof_is_good_for_one_secret_one_nonce_and_one_port() -> None:
    proofs = {proof_of(secret, nonce, port) for secret in ("a", "b") for nonce in ("1", "2") for port in (80, 81)}
    assert len(proofs) == 8


def test_it_lies_beside_prefects_database_and_in_no_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    assert secret_path() == tmp_path / "regraft-login"
    monkeypatch.delenv("PREFECT_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert secret_path() == Path("/home/somebody/.prefect/regraft-login")
