"""The secret of this user's Prefect server. Whoever knows it may run any command as the worker.

It lies beside Prefect's database, outside of every project, because all checkouts of a user share one server. Nothing
here imports Prefect, which takes two seconds.
"""

import hashlib
import hmac
import os
import re
import secrets
import socket
import stat
import time
from contextlib import suppress
from pathlib import Path

from regraft.core.errors import RegraftError

HOST = "127.0.0.1"
PROOF_PATH = "/regraft/proof"
_FORM = re.compile(r"regraft:[\w-]{43}")  # user:password, as Basic authentication wants it; 256 random bits
_PATIENCE_SECONDS = 2.0  # in all: whoever listens may send one byte a second
_LONGEST_ANSWER = 4096  # bytes


def new_secret() -> str:
    """Return a random secret."""
    return f"regraft:{secrets.token_urlsafe(32)}"


def secret_path() -> Path:
    """Return where this user's secret is kept."""
    return Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser() / "regraft-login"


def make_secret(path: Path) -> str:
    """Return the secret of a file, which is written first if it is not there.

    The file has its mode and its contents before it has its name, and a second process that writes at the same moment
    reads the secret of the first.

    Raises:
        RegraftError: the file is not this user's alone.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w") as file:  # noqa: PTH123 - a descriptor
            file.write(new_secret() + "\n")
            file.flush()
            os.fsync(descriptor)
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()
    secret = read_secret(path)
    if secret is None:
        raise RegraftError(f"{path} was removed while it was written. Run the same command again.")
    return secret


def read_secret(path: Path) -> str | None:
    """Return the secret of a file, None if there is no file.

    Raises:
        RegraftError: the file is not this user's alone, or holds something else.
    """
    try:
        # O_NONBLOCK: opening a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unsafe(path, error.strerror or "unreadable") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _unsafe(path, "no ordinary file")
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise _unsafe(path, f"mode {stat.S_IMODE(found.st_mode):04o}, owner {found.st_uid}")
        text = os.read(descriptor, 100).decode("ascii", "replace").strip()
    finally:
        os.close(descriptor)
    if not _FORM.fullmatch(text):
        raise _unsafe(path, "something else")
    return text


def proof_of(secret: str, nonce: str, port: int) -> str:
    """Return what only those who know the secret can answer to a nonce; good for one port, so it cannot be relayed."""
    return hmac.new(secret.encode(), f"regraft {HOST}:{port} {nonce}".encode(), hashlib.sha256).hexdigest()


def knows(secret: str, port: int) -> bool:
    """Whether the server on a port of this machine knows the secret; found out without telling it."""
    nonce = secrets.token_hex(16)
    return hmac.compare_digest(get(f"{PROOF_PATH}?nonce={nonce}", port), proof_of(secret, nonce, port).encode())


def get(path: str, port: int) -> bytes:
    """Return the body of a server's answer, without proxies, redirects or waiting; nothing if there is none."""
    give_up = time.monotonic() + _PATIENCE_SECONDS
    answer = b""
    with suppress(OSError), socket.create_connection((HOST, port), timeout=1) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {HOST}:{port}\r\n\r\n".encode())
        while len(answer) < _LONGEST_ANSWER and time.monotonic() < give_up:
            if not (some := connection.recv(_LONGEST_ANSWER)):
                break
            answer += some
    return answer.partition(b"\r\n\r\n")[2].strip()


def _unsafe(path: Path, received: str) -> RegraftError:
    return RegraftError(
        f"{path} holds the secret of the Prefect server. Expected a file of mode 0600 that is yours and that Regraft "
        f"wrote. Received: {received}. Remove it, and start `regraft serve` again: it writes a new one."
    )
