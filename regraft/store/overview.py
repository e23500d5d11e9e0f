"""Looking at a store: what it holds, and whether every row of it is what was written."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from regraft.core.errors import RegraftError
from regraft.core.files import readable_bytes
from regraft.store.facts_upkeep import list_facts
from regraft.store.folders import candidates, facts_of, has_shards, namespaces, open_folder
from regraft.store.joining import open_shared
from regraft.store.names import DESCRIPTION, UseName
from regraft.store.namespace import Namespace
from regraft.store.remote import Remote
from regraft.store.shards import as_keys
from regraft.store.uses import read_use, records


def list_store(root: Path, shared: str | None) -> None:
    """Print a line per namespace, and per folder of facts; only shards that are here are counted in rows."""
    remote = Remote(shared) if shared else None
    for name in namespaces(root, remote):
        if (root / name / DESCRIPTION).exists():
            namespace = open_folder(root, None, name)
            size = readable_bytes(namespace.stored_bytes)
            print(
                f"{name:30} {len(namespace):9,} rows {len(namespace.shards):5} shards {size:>10}  {_words(namespace)}"
            )
        if remote:
            sizes = [size for file, size in remote.sizes(name).items() if file.endswith(".arrow")]
            print(f"{name:30} in {remote.shown}: {len(sizes)} shards {readable_bytes(sum(sizes))}")
    list_facts(root, remote)


def verify(root: Path, shared: str | None) -> None:
    """Read every row of the store, and set damaged shards aside.

    Raises:
        RegraftError: a shard or a description was damaged, or rows that a use record names are nowhere.
    """
    remote = open_shared(root, shared, may_create=False) if shared else None
    opened: dict[str, Namespace] = {}
    damaged = 0
    for name in candidates(root, remote):
        if not facts_of(root, remote, name) and not has_shards(root, remote, name):
            continue  # somebody else's
        namespace = opened[name] = open_folder(root, remote, name)
        for shard in namespace.shards:
            # Shard by shard, and not by the index: of rows that are there twice both are read.
            namespace.verify(shard)
        namespace.refresh()
        found = len(namespace.unusable)
        damaged += found
        size = readable_bytes(namespace.stored_bytes)
        print(f"{name:30} {len(namespace):9,} rows {len(namespace.shards):5} shards {size:>10}  {found} damaged")
    missing = sum(_missing(root, remote, use, opened) for use in records(root, remote))
    if damaged or missing:
        raise RegraftError(
            f"{damaged} shard(s) were damaged and are set aside; {missing} row(s) that a version of the features was "
            "made from are missing. The next retraining computes again what it needs of them."
        )


def _missing(root: Path, remote: Remote | None, record: UseName, opened: dict[str, Namespace]) -> int:
    """Return how many rows of a record no namespace of it has; a namespace need not have all of them."""
    use = read_use(root, remote, record)
    absent = as_keys(use.keys)
    for folder in use.namespaces:
        if folder in opened:
            absent = opened[folder].missing(absent, verify=False)
    return len(absent)


def _words(namespace: Namespace) -> str:
    """What the arrays are, as far as a person wants to know."""
    facts: dict[str, Any] = namespace.facts
    shape = " x ".join(map(str, namespace.shape))
    written = max((shard.path.stat().st_mtime for shard in namespace.shards), default=None)
    words = [
        facts["kind"],
        f"{namespace.dtype} {shape}",
        *(f"{name} {facts[name][:8]}" for name in ("graph", "model") if name in facts),
        str(facts.get("engine", "")),
        f"written {datetime.fromtimestamp(written, UTC):%Y-%m-%d %H:%M} UTC" if written else "",
    ]
    return ", ".join(filter(None, words))
