"""Pooled features that were computed before: taken from an earlier features.arrow, or computed again and said so.

A clone pulls features.arrow and has no store, so its rows fill the store. Other rows are computed again because another
engine, processor or Pillow would give other last bits, or because a file of many photos only names rows of a store that
is not here. The run says so, and what that took.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from regraft.core.errors import Damaged
from regraft.features.table import Features, read_features
from regraft.store.folders import candidates, facts_of, open_folder
from regraft.store.namespace import Namespace
from regraft.store.shards import Key, as_array, as_keys

_ROWS = 4096  # in a shard


@dataclass(frozen=True, slots=True)
class Recomputing:
    """Rows that are computed again."""

    rows: int
    seconds: float  # their cost when they were computed, as far as that is known
    why: str

    @property
    def words(self) -> str:
        """One sentence for a person."""
        took = f", which took {self.seconds / 60:.1f} minutes," if self.seconds >= 1 else ""
        return f"{self.rows:,} views of photos that were computed before{took} are computed again: {self.why}."

    def as_report(self) -> dict[str, object]:
        """Return it as JSON-able values."""
        return {**asdict(self), "seconds": round(self.seconds, 3)}


def take_known(
    namespace: Namespace, wanted: Sequence[Key], digests: Collection[str], files: Callable[[], Iterable[Path]]
) -> tuple[int, Recomputing | None]:
    """Fill a namespace with rows of earlier features files.

    Args:
        namespace: of the pooled features.
        wanted: keys of the rows that are needed.
        digests: of their photos.
        files: returns the paths of features files; called only if a row is missing. A file that is absent, damaged or
            without keys is skipped. One that names rows, and does not hold them, only tells which are lost.

    Returns:
        The number of rows taken, and which of the others are computed again although they were computed before.
    """
    if not namespace.missing(wanted, verify=False):
        return 0, None
    formers = []
    for path in files():
        try:
            formers.append(read_features(path, with_keys=True))
        except (FileNotFoundError, Damaged):
            continue
    taken = sum(_take(namespace, former, wanted) for former in formers)
    missing = namespace.missing(wanted, verify=False)
    found = _by_another_engine(namespace, missing)
    for former in formers:
        if former.keys is not None and former.namespace == namespace.folder.name and missing:
            found.append(_drawn_otherwise(namespace, missing, wanted, digests, former, former.keys))
            found.append(_only_named(missing, former, former.keys))
    return taken, max((each for each in found if each.rows), key=lambda each: each.rows, default=None)


def find_lost_activations(features: Namespace, activations: Namespace, wanted: Sequence[Key]) -> Recomputing | None:
    """Return the activations that are computed although the pooled features of the same views are there; None if none.

    Args:
        features: pooled features; those of an earlier features file were taken already.
        activations: at the cut.
        wanted: keys of the activations that are needed.
    """
    missing = activations.missing(wanted, verify=False)
    new = set(features.missing(missing, verify=False))
    known = [key for key in missing if key not in new]
    why = (
        "fine-tuning reads their activations at the cut, which are in no features file and not in this store; "
        "`machine.shared_store` in params.yaml or REGRAFT_STORE may name a store that has them"
    )
    return Recomputing(len(known), features.seconds_for(known), why) if known else None


def _take(namespace: Namespace, former: Features, wanted: Sequence[Key]) -> int:
    """Take missing rows from features of this very namespace; their cost is not known and counts as nothing."""
    missing = set(namespace.missing(wanted, verify=False))
    if former.keys is None or former.rows is None or former.namespace != namespace.folder.name or not missing:
        return 0
    keys = as_keys(former.keys)
    places = list({key: place for place, key in enumerate(keys) if key in missing}.values())
    for start in range(0, len(places), _ROWS):
        part = places[start : start + _ROWS]
        namespace.append([keys[place] for place in part], former.read(np.array(part)), seconds=0)
        namespace.flush()
    return len(places)


def _by_another_engine(namespace: Namespace, missing: list[Key]) -> list[Recomputing]:
    """Look for the same rows in namespaces that differ in their engine alone."""
    root, found = namespace.folder.parent, []
    for name in candidates(root, namespace.remote) if missing else ():
        facts = facts_of(root, namespace.remote, name)
        if name == namespace.folder.name or not facts or "engine" not in facts:
            continue
        if {**facts, "engine": 0} == {**namespace.facts, "engine": 0}:
            other = open_folder(root, namespace.remote, name)
            lacking = set(other.missing(missing, verify=False))
            keys = [key for key in missing if key not in lacking]
            why = f"that was with {facts['engine']}, and this is {namespace.facts['engine']}"
            found.append(Recomputing(len(keys), other.seconds_for(keys), why))
    return found


def _only_named(missing: list[Key], former: Features, keys: np.ndarray) -> Recomputing:
    """Look for rows that a features file names and the store lacks."""
    rows = int(np.isin(as_array(missing), keys).sum()) if former.rows is None else 0
    why = (
        "the features file of the run before names them, and no store here has them; `machine.shared_store` in "
        "params.yaml or REGRAFT_STORE may name one that does"
    )
    return Recomputing(rows, 0.0, why)


def _drawn_otherwise(
    namespace: Namespace,
    missing: list[Key],
    wanted: Sequence[Key],
    digests: Collection[str],
    former: Features,
    keys: np.ndarray,
) -> Recomputing:
    """Look for the same photos among rows of the same namespace that are not needed any more."""
    is_wanted, here = np.isin(keys, as_array(wanted)), set(digests)
    # Every photo has a centre square: that of one which is still there is needed, unless it has another key now.
    squares = zip(former.digests, is_wanted | (former.views != 0), strict=True)
    photos = {digest for digest, is_as_before in squares if not is_as_before and digest in here}
    rows = ~is_wanted & np.array([digest in photos for digest in former.digests], bool)
    lost = as_keys(keys[rows])[: len(missing)]
    why = "another version of Pillow, or other settings in `preprocess`, draw them otherwise"
    return Recomputing(len(lost), namespace.seconds_for(lost), why)
