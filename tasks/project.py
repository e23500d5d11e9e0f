"""The project's folder, and how a command ends where something outside the code has to change."""

import gc
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from regraft.addresses import shown_path
from regraft.errors import RegraftError, WrongFolder, safe_text
from regraft.files import NO_ACCESS, NO_ROOM
from tasks.startup import quieten_libraries
from tasks.stopping import status_of, stopped_words, terminable

ROOT_FILES = ("params.yaml", "dvc.yaml")


def enter_project() -> Path:
    """Make sure that this process is in the project's root and return it."""
    root = Path.cwd()
    missing = [name for name in ROOT_FILES if not (root / name).is_file()]
    if missing:
        raise WrongFolder(
            f"run this in the project's root, the folder that holds {' and '.join(ROOT_FILES)}. "
            f"There is no {missing[0]} in {root}: change to the right folder first."
        )
    loaded = Path(__file__)
    own = root / "tasks" / loaded.name
    # DVC hashes the code in the project's folder, so no other may run. `python -m` starts that of the folder.
    if own.exists() and not own.samefile(loaded):
        raise WrongFolder(
            f"this command belongs to {loaded.parents[1]}, and {root} has code of its own. "
            f"Run `python -m flows.cli` in its place, or `pip install -e .` here."
        )
    return root


@contextmanager
def readable_errors(name: str) -> Iterator[None]:
    """Print the message of a RegraftError without a traceback and leave with exit status 1; a signal, with its own."""
    quieten_libraries()
    # Python looks for garbage after every 700 new objects. An import of TensorFlow makes millions and no garbage: that
    # search was a third of its 2.6 s.
    gc.set_threshold(100_000, 20, 20)
    try:
        with terminable(), room_on_disk():
            yield
    except RegraftError as error:
        print(f"\n{name} stopped: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno not in NO_ACCESS or not error.filename:
            raise
        path = safe_text(shown_path(Path(os.fsdecode(error.filename))))
        print(
            f"\n{name} stopped: {path} cannot be written or read ({error.strerror}). "
            f"Make it accessible to you, and run the same command again.",
            file=sys.stderr,
        )
        sys.exit(1)
    except KeyboardInterrupt as stop:
        print(f"\n{stopped_words()}", file=sys.stderr, flush=True)
        # Threads that wait for work which nobody hands out any more would keep the process for minutes.
        os._exit(status_of(stop))


@contextmanager
def room_on_disk() -> Iterator[None]:
    """Turn a full disk, whoever was writing, into an error that says what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise
        raise _no_room(f"what DVC remembers in {Path.cwd()}", str(error)) from error
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise _no_room(error.filename or f"a file in {Path.cwd()}", str(error.strerror)) from error


def _no_room(what: str, why: str) -> RegraftError:
    return RegraftError(
        f"there is no room for {what} ({why}). Free some, for instance by `regraft store gc` or `dvc gc --workspace`, "
        f"and run the same command again: what was finished before is kept."
    )
