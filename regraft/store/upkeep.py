"""Keeping a store small: `gc` removes rows that no wanted version of the features needs, `compact` merges small shards.

Both refuse while somebody uses the store. A reader would survive a removed shard on a local disk, but not on every
network file system; and a run that has just found its rows would lose them to `gc`. Both write the new shards before
the old ones go, so that a kill leaves some rows twice and none missing.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regraft.core.errors import RegraftError
from regraft.core.files import readable_bytes
from regraft.store.facts_upkeep import collect_facts, merge_facts
from regraft.store.folders import candidates, facts_of, namespaces, open_folder, remove_namespace, size_of
from regraft.store.index import distinct_rows
from regraft.store.leases import StoreUse, store_in_use
from regraft.store.machine import is_running
from regraft.store.names import DESCRIPTION, KEPT, is_half_sent, is_set_aside, writer_of
from regraft.store.namespace import Namespace
from regraft.store.remote import Remote
from regraft.store.shards import Shard, buffers_of, shard_paths
from regraft.store.uses import read_use
from regraft.store.wanted import forget_others, wanted_records

SHARD_BYTES = 256_000_000  # of a merged shard
_NAMED = "features"  # the kind whose rows files name by key and checksum, also where others count by now
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to happen to one namespace: rows of some shards are kept in new ones, then those shards go."""

    namespace: Namespace
    old: list[tuple[Shard, np.ndarray]]  # with the rows to keep

    @property
    def freed(self) -> int:
        """Bytes, about."""
        return sum(round(shard.size * (1 - len(rows) / len(shard))) for shard, rows in self.old)

    @property
    def rows(self) -> int:
        """Rows that go."""
        return sum(len(shard) - len(rows) for shard, rows in self.old)


def collect(
    root: Path,
    shared: str | None,
    versions: dict[str, str],
    *,
    in_use: Collection[str] = (),
    stale_days: float = 30,
    really: bool,
) -> None:
    """Remove every row that neither a wanted version of the features nor a model in use needs, and say so.

    What other machines have recorded stays, whatever this project's history says, unless they are gone.

    Args:
        root: the store's folder.
        shared: the shared root, or None; it is collected too.
        versions: the MD5 of every wanted version of the features, with a place that names it.
        in_use: the SHA-256 of ONNX files, whose probabilities stay, and folders of facts, as `Facts.name`.
        stale_days: after so many days without using the shared store a machine is gone.
        really: False only says what would be removed.

    Raises:
        Busy: somebody is using the store.
        RegraftError: the shared root cannot be reached, or is not mounted; or a record is damaged.
    """
    with store_in_use(root, shared, alone=True) as use:
        remote = use.remote
        wanted = wanted_records(use, versions, stale_days)
        needed: dict[str, list[np.ndarray]] = {}
        for found in [read_use(root, remote, record) for record in wanted]:
            for name in found.namespaces:
                needed.setdefault(name, []).append(found.keys)
        freed = sum(
            _collect_namespace(root, there, name, needed.get(name, []), really=really)
            for name in namespaces(root, remote)
            for there in _where_not_needed(use, name, in_use, stale_days)
        )
        freed += collect_facts(use, in_use, stale_days, really=really)
        freed += _sweep(root, remote, really=really)
        if really:
            forget_others(use, wanted, stale_days)
    print(f"{readable_bytes(freed)} {'freed' if really else 'would be freed. This was a dry run; --yes does it'}.")


def compact(root: Path, shared: str | None) -> None:
    """Merge the small shards of every namespace and drop rows that are there twice.

    Raises:
        Busy: somebody is using the store.
    """
    with store_in_use(root, shared, alone=True) as use:
        for name in namespaces(root, use.remote):
            namespace = open_folder(root, use.remote, name)
            before = len(namespace.shards)
            plan = _verified(namespace, _merge_plan)
            _carry_out(plan)
            print(f"{name}: {before} shards before, {len(namespace.shards)} now; {plan.rows} rows were there twice.")
        merge_facts(root, use.remote)


def _collect_namespace(root: Path, remote: Remote | None, name: str, needed: list[np.ndarray], *, really: bool) -> int:
    """Remove what is not needed of one namespace and return how many bytes that are."""
    if needed:
        wanted = np.unique(np.concatenate(needed))
        plan = _verified(open_folder(root, remote, name), lambda namespace: _gc_plan(namespace, wanted))
        if len(plan.old) < len(plan.namespace.shards) or any(len(rows) for _, rows in plan.old):
            print(f"{name}: {plan.rows} of {sum(map(len, plan.namespace.shards))} rows, {readable_bytes(plan.freed)}.")
            if really:
                _carry_out(plan)
            return plan.freed + _drop_copies(plan.namespace, wanted, really=really)
    # Nothing in it is needed: it goes without being fetched or looked at.
    size = size_of(root, remote, name)
    print(f"{name}: all of it, {readable_bytes(size)}.")
    if really:
        remove_namespace(root, remote, name)
    return size


def _drop_copies(namespace: Namespace, wanted: np.ndarray, *, really: bool) -> int:
    """Remove copies of rows of the shared root if none of them is needed; return the bytes."""
    freed = 0
    for path in shard_paths(namespace.folder) if namespace.remote else ():
        if path.name.endswith(KEPT) and not _has_any(namespace, path, wanted):
            freed += path.stat().st_size
            if really:
                path.unlink()
    if freed:
        print(f"{namespace.folder.name}: copies of rows of the shared root, {readable_bytes(freed)}.")
    return freed


def _has_any(namespace: Namespace, path: Path, wanted: np.ndarray) -> bool:
    """Whether a sound shard has one of these rows."""
    try:
        return bool(np.isin(Shard(path, namespace.shape, namespace.dtype).keys, wanted).any())
    except ValueError:
        return False


def _where_not_needed(use: StoreUse, name: str, in_use: Collection[str], stale_days: float) -> list[Remote | None]:
    """Return in which shared root, or None, a namespace is collected beside here; nothing if all of it is needed.

    What a model said of photos stays as long as it is in use here, and in the shared root as long as anybody adds to
    it: which models others use is not known.
    """
    facts = facts_of(use.root, use.remote, name) or {}
    if "model" not in facts:
        return [use.remote]
    is_idle = (use.age(f"{name}/{DESCRIPTION}", here=False) or 0.0) > stale_days * _DAY
    return [] if facts["model"] in in_use else [use.remote if is_idle else None]


def _gc_plan(namespace: Namespace, wanted: np.ndarray) -> _Plan:
    needed = [rows[np.isin(shard.keys[rows], wanted)] for shard, rows in _live(namespace)]
    return _Plan(namespace, [(s, rows) for s, rows in zip(namespace.shards, needed, strict=True) if len(rows) < len(s)])


def _merge_plan(namespace: Namespace) -> _Plan:
    old = [(shard, rows) for shard, rows in _live(namespace) if shard.size < SHARD_BYTES / 2 or len(rows) < len(shard)]
    is_alone = len(old) == 1 and len(old[0][0]) == len(old[0][1])
    return _Plan(namespace, [] if is_alone else old)


def _live(namespace: Namespace) -> list[tuple[Shard, np.ndarray]]:
    rows = distinct_rows(namespace.shards) if namespace.facts["kind"] == _NAMED else namespace.live_rows()
    return list(zip(namespace.shards, rows, strict=True))


def _verified(namespace: Namespace, make_plan: Callable[[Namespace], _Plan]) -> _Plan:
    """Return a plan that keeps sound rows only: what is damaged is set aside and the plan made again."""
    while True:
        plan = make_plan(namespace)
        if namespace.all_sound(plan.old):
            return plan


def _carry_out(plan: _Plan) -> None:
    """Write the rows that are kept as shards of about 256 MB, one in memory at a time; then remove the old shards."""
    namespace = plan.namespace
    parts = [(shard, row) for shard, rows in plan.old for row in rows.tolist()]
    row_bytes = plan.old[0][0].row_bytes if plan.old else 1
    step = max(1, SHARD_BYTES // row_bytes)
    for start in range(0, len(parts), step):
        _copy_rows(namespace, parts[start : start + step])
    for shard, _ in plan.old:
        namespace.remove(shard)
    namespace.refresh()


def _copy_rows(namespace: Namespace, parts: list[tuple[Shard, int]]) -> None:
    values = np.empty((len(parts), *namespace.shape), namespace.dtype)
    buffers = buffers_of(values)
    by_shard: dict[str, tuple[Shard, list[int], list[memoryview]]] = {}
    for (shard, row), buffer in zip(parts, buffers, strict=True):
        _, rows, targets = by_shard.setdefault(shard.name, (shard, [], []))
        rows.append(row)
        targets.append(buffer)
    for shard, rows, targets in by_shard.values():
        if not shard.read(rows, targets):
            raise RegraftError(
                f"{shard.path} was damaged while it was read. Nothing is removed: run the command again."
            )
    keys = np.concatenate([shard.keys[rows] for shard, rows, _ in by_shard.values()])
    seconds = np.concatenate([shard.seconds[rows] for shard, rows, _ in by_shard.values()])
    shard = namespace.write(keys, values, seconds)
    namespace.send(shard)
    if not any(old.is_here for old, *_ in by_shard.values()):
        shard.path.unlink(missing_ok=True)  # as little of it was here before; `refresh` fetches its keys


def _sweep(root: Path, remote: Remote | None, *, really: bool) -> int:
    """Remove damaged shards that were set aside, and what writers left that were killed; return the bytes."""
    folders = [name for name in candidates(root, remote) if facts_of(root, remote, name)]
    rubbish = {
        path: path.lstat().st_size
        for folder in (*folders, "uses", "leases", "graphs")
        for path in (root / folder).glob("*")
        if _is_rubbish(path)
    }
    if rubbish:
        print(f"Damaged shards and left-over temporary files: {readable_bytes(sum(rubbish.values()))}.")
    for path in rubbish if really else ():
        path.unlink(missing_ok=True)
    if really and remote:
        # Nobody writes there now, or there were a lease.
        for folder in (*folders, "uses", "leases"):
            for file in remote.sizes(folder):
                if is_set_aside(folder, file) or is_half_sent(folder, file):
                    remote.remove(f"{folder}/{file}")
    return sum(rubbish.values())


def _is_rubbish(path: Path) -> bool:
    """Whether a file is a damaged shard that was set aside, or what a writer left that was killed."""
    if path.is_dir() and not path.is_symlink():
        return False
    pid = writer_of(path.parent.name, path.name)
    is_left_over = pid is not None and (not is_running(pid) or time.time() - path.lstat().st_mtime > _DAY)
    return is_set_aside(path.parent.name, path.name) or is_left_over
