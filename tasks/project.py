"""The project's folder, and how a command ends where something outside the code has to change."""

import gc
import os
import sqlite3
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from regraft.core.addresses import shown_path
from regraft.core.errors import RegraftError, WrongFolder
from regraft.core.files import NO_ACCESS, NO_FILE, NO_ROOM, refuse_special
from tasks.stopping import status_of, stopped_words, terminable

ROOT_FILES = ("params.yaml", "dvc.yaml")
# What DVC, Prefect and the runs read; the places that params.yaml names are looked at when it is read.
_OWN = (*ROOT_FILES, "dvc.lock", "prefect.yaml", "automations.yaml", ".dvcignore", ".dvc/tmp/regraft")


def enter_project() -> Path:
    """Make sure that this process is in the project's root and return it."""
    root = Path.cwd()
    dvc = [path for folder in (".dvc", ".dvc/tmp") for path in (root / folder).glob("*") if not path.is_dir()]
    refuse_special(*(root / name for name in _OWN), *dvc)
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


def quieten_libraries() -> None:
    """Leave out what TensorFlow and Keras say of the processor and of NumPy; to be called before either is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore", r"In the future `np\.object`", FutureWarning, r"keras\.src\.export\.tf2onnx_lib")


@contextmanager
def readable_errors(name: str) -> Iterator[None]:
    """Print the message of a RegraftError without a traceback and leave with exit status 1; a signal, with its own."""
    quieten_libraries()
    # Python looks for garbage after every 700 new objects. An import of TensorFlow makes millions and no garbage: that
    # search was a third of its 2.6 s.
    gc.set_threshold(100_000, 20, 20)
    try:
        with terminable(), disk_in_words():
            yield
    except RegraftError as error:
        print(f"\n{name} stopped: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as stop:
        print(f"\n{stopped_words()}", file=sys.stderr, flush=True)
        # Threads that wait for work which nobody hands out any more would keep the process for minutes.
        os._exit(status_of(stop))


@contextmanager
def disk_in_words() -> Iterator[None]:
    """Turn a full disk, and a file or folder that one may not use, into an error that says what to do.

    Whoever used it: DVC and other libraries say no more than a number.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise
        raise _no_room(f"what DVC remembers in {Path.cwd()}", str(error)) from error
    except OSError as error:
        if error.errno in NO_ROOM:
            raise _no_room(error.filename or f"a file in {Path.cwd()}", str(error.strerror)) from error
        if not error.filename or not (error.errno in NO_ACCESS or error.strerror == NO_FILE):
            raise
        path = Path(os.fsdecode(error.filename))
        path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        raise RegraftError(
            f"{shown_path(path)} cannot be written or read ({error.strerror}). Make it accessible to you, "
            f"and the folder that it lies in, and run the same command again: what was finished before is kept."
        ) from error


def _no_room(what: str, why: str) -> RegraftError:
    return RegraftError(
        f"there is no room for {what} ({why}). Free some by `regraft store --gc 10` or `dvc gc --workspace`, "
        f"and run the same command again: what was finished before is kept."
    )
