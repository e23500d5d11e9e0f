"""Which use records stay: those that this project's history names, and those of machines that are still there.

A project's history knows nothing of what another machine has recorded. So an own record stays for as long as a version
in the history needs it, and an hour, since a stage writes it before DVC writes dvc.lock. Another machine's stays until
that machine has not used the shared store for many days. All times are those of the store.
"""

from collections.abc import Collection

from regraft.store.leases import StoreUse
from regraft.store.machine import owner_of
from regraft.store.names import UseName
from regraft.store.uses import forget_use, owners, records

_YOUNG_SECONDS = 3600
_DAY = 86_400


def wanted_records(use: StoreUse, versions: dict[str, str], stale_days: float) -> list[UseName]:
    """Return the records that stay, and say what is missing and what stays for others.

    Args:
        use: of the store, alone.
        versions: the MD5 of every version of the features that this project wants, with a place that names it.
        stale_days: after so many days without using the shared store a machine is gone.
    """
    known = records(use.root, use.remote)
    for version in sorted(versions.keys() - {record.version for record in known}):
        print(f"The store has no record for {versions[version]} (features {version[:8]}): they need computing again.")
    owner = owner_of(use.root, may_create=False)
    wanted, others = [], 0
    for record in known:
        is_own = record.owner == owner if record.owner else use.remote is None
        if record.version in versions:
            wanted.append(record)
        elif _seconds_since_use(use, record, is_own=is_own) < (_YOUNG_SECONDS if is_own else stale_days * _DAY):
            wanted.append(record)
            others += not is_own
    if others:
        print(f"{others} record(s) of other machines are kept, with the rows that they name.")
    return wanted


def forget_others(use: StoreUse, wanted: Collection[UseName], stale_days: float) -> None:
    """Remove all other records, and what says when machines that are gone last used the store."""
    for record in set(records(use.root, use.remote)) - set(wanted):
        forget_use(use.root, use.remote, record.name)
    for name in owners(use.remote) - {f"{record.owner}.owner" for record in wanted}:
        if (use.age(f"uses/{name}") or 0.0) > stale_days * _DAY:
            forget_use(use.root, use.remote, name)


def _seconds_since_use(use: StoreUse, record: UseName, *, is_own: bool) -> float:
    """Return how long ago a record was written or, if it is another machine's, that used the shared store."""
    names = [f"uses/{record.name}", *([] if is_own else [f"uses/{record.owner}.owner"])]
    return min((age for name in names if (age := use.age(name)) is not None), default=0.0)
