"""Keeping a store small: `gc` removes rows that no wanted version of the features needs, `compact` merges small shards.

Both refuse while somebody uses the store. A reader would survive a removed shard on a local disk, but not on every
network file system; and a run that has just found its rows would lose them to `gc`. Both write the new shards before
the old ones go, so that a kill leaves some rows twice and none missing.
"""

import re
import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regraft.errors import RegraftError
from regraft.files import readable_bytes, write_bytes
from regraft.store.description import read_description
from regraft.store.leases import is_running, store_in_use
from regraft.store.namespace import Namespace
from regraft.store.remote import Remote
from regraft.store.shards import Shard, as_keys, buffers_of
from regraft.store.uses import forget_use, is_young, read_use, recorded

SHARD_BYTES = 256_000_000  # of a merged shard
_DAY = 86_400
_TEMPORARY = re.compile(r"^\..*\.(\d+)\.tmp(\.|$)")


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
    root: Path, shared: str | None, versions: dict[str, str], *, models: Collection[str] = (), really: bool
) -> None:
    """Remove every row that neither a wanted version of the features nor a model in use needs, and say so.

    Args:
        root: the store's folder.
        shared: the shared root, or None; it is collected too.
        versions: the MD5 of every wanted version of the features, with a place that names it.
        models: the SHA-256 of the ONNX files in use; the probabilities that they gave stay.
        really: False only says what would be removed.

    Raises:
        Busy: somebody is using the store.
    """
    remote = Remote(shared) if shared else None
    with store_in_use(root, shared, alone=True):
        records = recorded(root, remote)
        for version in sorted(versions.keys() - records):
            print(
                f"The store has no record for {versions[version]} (features {version[:8]}): they need computing again."
            )
        needed: dict[str, list[np.ndarray]] = {}
        # A stage writes its record before DVC writes dvc.lock.
        wanted = versions.keys() | {version for version in records if is_young(root, version)}
        for version in wanted & records:
            use = read_use(root, remote, version)
            for name in use.namespaces:
                needed.setdefault(name, []).append(use.keys)
        freed = 0
        for name in namespaces(root, remote):
            if _model_of(root / name) in models:
                continue
            freed += _collect_namespace(root, remote, name, needed.get(name, []), really=really)
        rubbish = {path: path.stat().st_size for path in root.glob("*/*") if _is_rubbish(path)}
        if rubbish:
            print(f"Damaged shards and left-over temporary files: {readable_bytes(sum(rubbish.values()))}.")
        freed += sum(rubbish.values())
        for path in rubbish if really else ():
            path.unlink(missing_ok=True)
        if really:
            for version in records - wanted:
                forget_use(root, remote, version)
    print(f"{readable_bytes(freed)} {'freed' if really else 'would be freed. This was a dry run; --yes does it'}.")


def compact(root: Path, shared: str | None) -> None:
    """Merge the small shards of every namespace and drop rows that are there twice.

    Raises:
        Busy: somebody is using the store.
    """
    remote = Remote(shared) if shared else None
    with store_in_use(root, shared, alone=True):
        for name in namespaces(root, remote):
            namespace = open_folder(root, remote, name)
            before = len(namespace.shards)
            plan = _verified(namespace, _merge_plan)
            _carry_out(plan)
            print(f"{name}: {before} shards before, {len(namespace.shards)} now; {plan.rows} rows were there twice.")


def namespaces(root: Path, remote: Remote | None) -> list[str]:
    """Return the names of all namespaces, here and in the shared root."""
    here = {path.parent.name for path in root.glob("*/namespace.json")}
    there = set(remote.folders()) - {"leases", "uses"} if remote else set()
    return sorted(here | there)


def open_folder(root: Path, remote: Remote | None, name: str) -> Namespace:
    """Open a namespace by the name of its folder.

    Raises:
        RegraftError: what its arrays are is not known, because namespace.json is damaged.
    """
    description = root / name / "namespace.json"
    if not description.exists() and remote and (contents := remote.read(f"{name}/namespace.json")):
        write_bytes(description, contents)
    facts = read_description(description)
    if facts is None:
        raise RegraftError(
            f"{description} is damaged or missing. The next retraining that needs these rows writes it again; if none "
            "does, delete the folder."
        )
    return Namespace(root / name, facts, remote)


def _collect_namespace(root: Path, remote: Remote | None, name: str, needed: list[np.ndarray], *, really: bool) -> int:
    """Remove what is not needed of one namespace and return how many bytes that are."""
    if needed:
        wanted = np.unique(np.concatenate(needed))
        plan = _verified(open_folder(root, remote, name), lambda namespace: _gc_plan(namespace, wanted))
        if len(plan.old) < len(plan.namespace.shards) or any(len(rows) for _, rows in plan.old):
            print(f"{name}: {plan.rows} of {sum(map(len, plan.namespace.shards))} rows, {readable_bytes(plan.freed)}.")
            if really:
                _carry_out(plan)
                _sweep_remote(remote, name)
            return plan.freed
    # Nothing in it is needed: it goes without being fetched or looked at.
    size = sum(path.stat().st_size for path in (root / name).glob("*") if not _is_rubbish(path))
    size = max(size, sum(remote.sizes(name).values()) if remote else 0)
    print(f"{name}: all of it, {readable_bytes(size)}.")
    if really:
        if remote:
            remote.remove_folder(name)
        shutil.rmtree(root / name, ignore_errors=True)
    return size


def _model_of(folder: Path) -> str | None:
    """Return the SHA-256 of the model whose probabilities a namespace holds; None if it holds something else."""
    facts = read_description(folder / "namespace.json") or {}
    return facts.get("model")


def _gc_plan(namespace: Namespace, wanted: np.ndarray) -> _Plan:
    needed = [rows[np.isin(shard.keys[rows], wanted)] for shard, rows in _live(namespace)]
    return _Plan(namespace, [(s, rows) for s, rows in zip(namespace.shards, needed, strict=True) if len(rows) < len(s)])


def _merge_plan(namespace: Namespace) -> _Plan:
    old = [(shard, rows) for shard, rows in _live(namespace) if shard.size < SHARD_BYTES / 2 or len(rows) < len(shard)]
    is_alone = len(old) == 1 and len(old[0][0]) == len(old[0][1])
    return _Plan(namespace, [] if is_alone else old)


def _live(namespace: Namespace) -> list[tuple[Shard, np.ndarray]]:
    return list(zip(namespace.shards, namespace.live_rows(), strict=True))


def _verified(namespace: Namespace, make_plan: Callable[[Namespace], _Plan]) -> _Plan:
    """Return a plan that keeps sound rows only: what is damaged is set aside and the plan made again."""
    while True:
        plan, planned_with = make_plan(namespace), namespace.shards
        namespace.missing([key for shard, rows in plan.old for key in as_keys(shard.keys[rows])])
        if namespace.shards is planned_with:  # else damage was found, and it has looked at its folder again
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
    namespace.send(namespace.write(keys, values, seconds))


def _is_rubbish(path: Path) -> bool:
    """Whether a file is a damaged shard that was set aside, or what a writer left that was killed."""
    match = _TEMPORARY.match(path.name)
    is_left_over = match and (not is_running(int(match[1])) or time.time() - path.stat().st_mtime > _DAY)
    return path.suffix == ".damaged" or bool(is_left_over)


def _sweep_remote(remote: Remote | None, name: str) -> None:
    """Remove from the shared root what is no shard any more; nobody writes there now, or there were a lease."""
    if remote:
        for file in remote.sizes(name):
            if file.endswith((".damaged", ".tmp")):
                remote.remove(f"{name}/{file}")
