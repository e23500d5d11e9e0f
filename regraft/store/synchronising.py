"""Making a namespace's folder here and in the shared root the same.

The folder here is this machine's copy. A shard that is only here is named `<name>.arrow`; once it was sent it is
`<name>.sent.arrow`, so that a shard that the shared root no longer has can be told from one it does not have yet.
Names are random and shards never change: two processes that send the same one write the same bytes.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from regraft.errors import RegraftError
from regraft.files import replacing
from regraft.photos.images import Threads
from regraft.store.joining import join
from regraft.store.names import DESCRIPTION, SENT, is_shard
from regraft.store.remote import Remote
from regraft.store.shards import name_of, set_aside, shard_paths

_CONNECTIONS = 4


def synchronise(folder: Path, remote: Remote, check: Callable[[Path], None], unusable: set[str]) -> bool:
    """Make the shards in a namespace's folder those of the shared root, after sending what is only here.

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
    here = {name_of(path): path for path in shard_paths(folder)}
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
    absent = sorted(there.keys() - {name_of(path) for path in shard_paths(folder)} - unusable)
    fetched = Threads(_CONNECTIONS).map(lambda name: _fetch(folder, name, remote, check), absent)
    outcomes = dict(zip(absent, fetched, strict=True))
    unusable.update(name for name, outcome in outcomes.items() if outcome == "damaged")
    return "vanished" in outcomes.values()


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


def _fetch(folder: Path, name: str, remote: Remote, check: Callable[[Path], None]) -> str:
    """Fetch one shard, a second time if it arrives damaged; return "here", "vanished" or "damaged"."""
    address, target = f"{folder.name}/{name}.arrow", folder / f"{name}{SENT}"
    for _ in range(2):
        try:
            with replacing(target) as temporary:
                remote.fetch(address, temporary)
                check(temporary)
            return "here"
        except FileNotFoundError:
            return "vanished"
        except ValueError:
            continue
    remote.rename(address, f"{folder.name}/{name}.damaged")
    print(
        f"{remote.shown}: {address} is damaged. It is kept as {name}.damaged, and its rows are computed again.",
        file=sys.stderr,
    )
    return "damaged"
