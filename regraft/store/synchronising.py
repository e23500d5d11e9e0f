"""Making a namespace's folder here and in the shared root fit each other.

A shard that is only here is named `<name>.arrow`; once it was sent it is `<name>.sent.arrow`, so that a shard that the
shared root no longer has can be told from one it does not have yet. Of a shard that is only there the keys are fetched
(`distant.py`). Names are random and shards never change: two processes that send the same one write the same bytes.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from regraft.core.errors import RegraftError
from regraft.core.files import temporary_beside
from regraft.photos.images import Threads
from regraft.store.distant import fetch_keys, keys_path, keys_paths, size_said
from regraft.store.joining import join
from regraft.store.names import DESCRIPTION, KEPT, SENT, is_shard
from regraft.store.remote import Remote
from regraft.store.shards import name_of, set_aside, shard_paths

_CONNECTIONS = 8


def synchronise(folder: Path, remote: Remote, check: Callable[[Path], None], unusable: set[str]) -> bool:
    """Send the shards that are only here, drop those that the shared root lost, and fetch the keys of all others.

    Another process may be about to send the same shard: it has the same name and the same bytes then.

    Args:
        folder: of the namespace; namespace.json is in it.
        remote: the shared root.
        check: reads a shard; ValueError if anything in it is damaged.
        unusable: names of shards to leave alone; those found damaged are added.

    Returns:
        Whether to look again: a shard vanished meanwhile, or the shared root is another one than before.

    Raises:
        RegraftError: the shared root cannot be reached, or is not mounted.
    """
    # In this order: what is marked as sent before the shared root is listed must be in that listing, unless it was
    # collected or merged there.
    here = _shards_here(folder)
    there = {name_of(Path(name)): size for name, size in remote.sizes(folder.name).items() if is_shard(name)}
    # After the listing, which says nothing if it is that of a folder on which the share is not mounted any more.
    if join(folder.parent, remote):
        return True
    for name, path in here.items():
        if name not in unusable:
            try:
                _settle(path, remote, there.get(name), check)
            except FileNotFoundError:
                continue  # another process sent it meanwhile, or removed it
            except ValueError:
                unusable.add(name)
                set_aside(path)
    distant = {name: size for name, size in there.items() if name not in {*unusable, *_shards_here(folder)}}
    for path in keys_paths(folder):
        with suppress(FileNotFoundError):  # another process has done so too
            if distant.get(name_of(path)) == size_said(path):
                del distant[name_of(path)]
            else:
                path.unlink()
    return fetch(sorted(distant), partial(_fetch_keys, folder, remote, distant), folder, remote, unusable)


def fetch(names: list[str], get: Callable[[str], None], folder: Path, remote: Remote, unusable: set[str]) -> bool:
    """Get something of several shards of the shared root at a time; those that are damaged there are set aside.

    Args:
        names: of the shards.
        get: of one shard; FileNotFoundError if it is gone, ValueError if it is damaged.
        folder: of the namespace.
        remote: the shared root.
        unusable: names of damaged shards are added.

    Returns:
        Whether one of them has vanished.
    """

    def outcome(name: str) -> str:
        try:
            get(name)
        except FileNotFoundError:
            return "vanished"
        except ValueError:
            return "damaged"
        return "here"

    outcomes = dict(zip(names, Threads(_CONNECTIONS).map(outcome, names), strict=True))
    for name in (name for name, found in outcomes.items() if found == "damaged"):
        unusable.add(name)
        set_aside_there(name, folder, remote)
    return "vanished" in outcomes.values()


def set_aside_there(name: str, folder: Path, remote: Remote) -> None:
    """Rename a damaged shard of the shared root, so that nobody reads it again and a person can look at it."""
    address = f"{folder.name}/{name}.arrow"
    remote.rename(address, f"{folder.name}/{name}.damaged")
    print(
        f"{remote.shown}: {address} is damaged. It is kept as {name}.damaged, and its rows are computed again.",
        file=sys.stderr,
    )


def send(path: Path, remote: Remote) -> Path:
    """Send a shard to the shared root, with its namespace's description, and return its new path here."""
    try:
        remote.send(path.parent / DESCRIPTION, f"{path.parent.name}/{DESCRIPTION}")
        remote.send(path, f"{path.parent.name}/{name_of(path)}.arrow")
    except RegraftError:
        if path.exists():
            raise
        # else another process has sent and renamed it, or the store here was deleted
    # It counts as sent only if it went to the shared root, and not to a folder on which that is not mounted any more.
    return path if join(path.parents[1], remote) else _mark_as_sent(path)


def _shards_here(folder: Path) -> dict[str, Path]:
    return {name_of(path): path for path in shard_paths(folder) if not path.name.endswith(KEPT)}


def _fetch_keys(folder: Path, remote: Remote, sizes: dict[str, int], name: str) -> None:
    contents = fetch_keys(folder, name, sizes[name], remote)
    path = keys_path(folder, name)
    temporary = temporary_beside(path)
    temporary.write_bytes(contents)  # it need not reach the disk: its seal tells, and it can be fetched again
    temporary.replace(path)


def _mark_as_sent(path: Path) -> Path:
    sent = path.with_name(name_of(path) + SENT)
    with suppress(FileNotFoundError):  # another process has done so too
        path.rename(sent)
    return sent


def _settle(path: Path, remote: Remote, size: int | None, check: Callable[[Path], None]) -> None:
    """Drop, send or mark one shard, given its size in the shared root."""
    is_sent, is_there = path.name.endswith(SENT), size == path.stat().st_size
    if is_there:
        if not is_sent:
            _mark_as_sent(path)
    elif is_sent and size is None:
        # Some stores list a new object late, but each says of an object whether it is there.
        if remote.read_range(f"{path.parent.name}/{name_of(path)}.arrow", 0, 1) is None:
            path.unlink()
    else:
        # Not there yet, or there with another size: one of the two is damaged, and nothing damaged is handed on.
        try:
            check(path)
        except ValueError:
            if not is_sent:
                raise
            path.unlink()  # it is fetched again
        else:
            send(path, remote)
