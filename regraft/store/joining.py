"""Which shared store this machine has sent its rows to: a marker in the shared root, and a note of it here.

A shard that was sent and is no longer in the shared root was collected or merged there, so the copy here goes too. That
holds only as long as it is the same shared root. A share that is not mounted is an empty folder, and somebody may name
another address: then nothing may be removed here. `regraft-store.json` in the shared root has a random number for that,
and `regraft-shared.json` in the store's folder the number and the address that this machine was last sent to.
"""

import json
import re
import sys
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeGuard

from regraft.core.errors import RegraftError
from regraft.core.files import open_regular, write_json, writing
from regraft.store.names import KEPT, SENT, is_namespace, is_shard
from regraft.store.remote import Remote
from regraft.store.shards import name_of

MARKER = "regraft-store.json"
_NOTE = "regraft-shared.json"
_ATTEMPTS, _PAUSE = 5, 0.2  # to read a marker that another machine is writing at this moment


@dataclass(frozen=True, slots=True)
class _Note:
    """What this machine knows; both are empty if the note is damaged."""

    id: str = ""
    address: str = ""  # its SHA-256


def open_shared(root: Path, address: str, *, may_create: bool) -> Remote:
    """Return the shared root of the store in `root`, after making sure that it is there.

    Args:
        root: the store's folder.
        address: of the shared root.
        may_create: whether an address without a marker becomes a shared store. Who only looks after a store makes none.

    Raises:
        RegraftError: it cannot be reached, or is not there.
    """
    remote = Remote(address)
    join(root, remote, may_create=may_create)
    return remote


def join(root: Path, remote: Remote, *, may_create: bool = False) -> bool:
    """Make sure that the shared root is the one that this machine has sent its rows to, or send them again.

    Returns:
        Whether it is another one, so that all shards here count as not sent.

    Raises:
        RegraftError: the root is the known one, and its marker is gone: it is not mounted, or was emptied.
    """
    note, marker = _read_note(root), _read_marker(remote)
    is_known = note is not None and note.address in (remote.digest, "")
    if marker is None:
        if is_known:
            raise RegraftError(
                f"The shared store {remote.shown} is empty: expected the marker {MARKER} that was there. Nothing is "
                "removed here, and what is computed is sent by the next run. Mount the share, or restore the marker; "
                f"if the store was emptied on purpose, delete {root / _NOTE}, and everything is sent again."
            )
        if not may_create:
            raise RegraftError(
                f"There is no shared store at {remote.shown}: expected the marker {MARKER}. Check the address; a first "
                "`regraft retrain` makes the store."
            )
    if not marker:
        marker = _write_marker(remote, note.id if note and is_known else "", is_new=marker is None)
    if note == _Note(marker, remote.digest):
        return False
    with writing(root):
        count = _forget_what_was_sent(root)
        write_json(root / _NOTE, asdict(_Note(marker, remote.digest)))
    if count:
        print(
            f"{remote.shown} is not the shared store that this machine used last: all {count} shards here are compared "
            "with it, and sent where it has none.",
            file=sys.stderr,
        )
    return True


def _read_marker(remote: Remote) -> str | None:
    """Return the number of a shared root; "" if it is damaged, None if there is none."""
    for attempt in range(_ATTEMPTS):
        contents = remote.read(MARKER)
        if contents is None:
            return None
        if _is_hex(number := _facts(contents).get("id"), 32):
            return number
        if attempt < _ATTEMPTS - 1:
            time.sleep(_PAUSE)
    return ""


def _write_marker(remote: Remote, known: str, *, is_new: bool) -> str:
    """Mark a shared root, and return its number: that of another machine which was faster, if there is one."""
    marker = known or uuid.uuid4().hex
    contents = json.dumps({"id": marker}).encode()
    if is_new:
        remote.create(MARKER, contents)
        return _read_marker(remote) or marker
    print(f"{remote.shown}: the marker {MARKER} was damaged and is written again.", file=sys.stderr)
    remote.write(MARKER, contents)
    return marker


def _read_note(root: Path) -> _Note | None:
    try:
        with open_regular(root / _NOTE) as file:
            facts = _facts(file.read())
    except FileNotFoundError:
        return None
    except OSError:
        return _Note()
    is_sound = facts.keys() == {"id", "address"} and _is_hex(facts["id"], 32) and _is_hex(facts["address"], 64)
    return _Note(**facts) if is_sound else _Note()


def _facts(contents: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(contents)
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _is_hex(value: object, length: int) -> TypeGuard[str]:
    return isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{length}}}", value) is not None


def _forget_what_was_sent(root: Path) -> int:
    """Let all shards count as not sent, copies of rows too, and return how many there are."""
    there = [path for ending in (SENT, KEPT) for path in root.glob(f"*/*{ending}")]
    sent = [path for path in there if is_namespace(path.parent.name) and is_shard(path.name)]
    for path in sent:
        try:
            path.rename(path.with_name(f"{name_of(path)}.arrow"))
        except FileNotFoundError:
            continue  # another process has done so too, or set it aside
    return len(sent)
