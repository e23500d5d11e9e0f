"""One at a time on this machine: whoever changes production holds a lock, and says who that is to whoever waits."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from regraft.core.addresses import shown_path
from regraft.core.errors import Busy, RegraftError
from regraft.core.files import open_regular

PATIENCE_SECONDS = 30.0  # a change takes as long as two copies of a model
FILE = "production.lock"


@contextmanager
def locked(folder: Path, doing: str, *, patience: float) -> Iterator[None]:
    """Hold the lock of a folder while the block runs; what the system refuses becomes a readable error.

    Args:
        folder: of production; made if it is not there.
        doing: what the block does, for those who wait.
        patience: so many seconds another one is waited for.

    Raises:
        Busy: somebody else holds the lock; it names the process, its machine, what it does and since when.
    """
    from filelock import FileLock, Timeout

    lock = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=patience):
            now = datetime.now(UTC).isoformat(timespec="seconds")
            # In place: the lock belongs to this very file. Nobody depends on the text.
            lock.write_text(f"process {os.getpid()} on {socket.gethostname()}, which is {doing} since {now}")
            yield
    except Timeout:
        raise Busy(
            f"{shown_path(folder)} is being changed by {_holder(lock)}. It was waited for {patience:g} seconds; "
            f"production was not touched. Wait until that process has ended, or end it, and run this again."
        ) from None
    except OSError as error:
        name = f" ({shown_path(Path(os.fsdecode(error.filename)))})" if error.filename else ""
        raise RegraftError(
            f"{shown_path(folder)} could not be changed: {error.strerror or error}{name}. It should be a folder that "
            f"can be written to, with room for another model. See to that and run the same command again: what was "
            f"begun is completed or undone then."
        ) from error


def _holder(lock: Path) -> str:
    try:
        with open_regular(lock) as file:
            text = file.read(300).decode(errors="replace")
    except OSError:
        return "another process"
    return " ".join(text.split()) or "another process"  # an error shows no control characters (`RegraftError`)
