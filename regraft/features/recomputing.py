"""What a run computes again although it was computed before: another engine, processor or Pillow has rows of its own.

That is right, since values would differ in their last bits. And of many photos a features file only names rows of the
store, which a clone may lack. But nobody should pay for either without knowing.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from regraft.features.table import Features
from regraft.store.folders import candidates, facts_of, open_folder
from regraft.store.namespace import Namespace
from regraft.store.shards import Key, as_array, as_keys


@dataclass(frozen=True, slots=True)
class Recomputing:
    """Rows that are computed again."""

    rows: int
    seconds: float  # what they took when they were computed, as far as that is known
    why: str

    @property
    def words(self) -> str:
        """One sentence for a person."""
        took = f", which took {self.seconds / 60:.1f} minutes," if self.seconds >= 1 else ""
        return f"{self.rows:,} views of photos that were computed before{took} are computed again: {self.why}."

    def as_report(self) -> dict[str, object]:
        """Return it as JSON-able values."""
        return {**asdict(self), "seconds": round(self.seconds, 3)}


def find_recomputing(
    namespace: Namespace, wanted: Sequence[Key], digests: Collection[str], formers: Sequence[Features]
) -> Recomputing | None:
    """Return which rows that a namespace lacks were computed before by something else; None if there are none.

    Args:
        namespace: of the pooled features.
        wanted: keys of the rows that are needed.
        digests: of the photos that they are of.
        formers: earlier features of this project, with keys.
    """
    missing = namespace.missing(wanted, verify=False)
    found = _elsewhere(namespace, missing)
    found += [_drawn_otherwise(namespace, missing, wanted, digests, each) for each in formers]
    found += [_only_named(namespace, missing, each) for each in formers]
    return max((each for each in found if each.rows), key=lambda each: each.rows, default=None)


def find_lost_activations(features: Namespace, activations: Namespace, wanted: Sequence[Key]) -> Recomputing | None:
    """Return which activations are computed although the pooled features of the same views are there; None if none are.

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


def _elsewhere(namespace: Namespace, missing: list[Key]) -> list[Recomputing]:
    """Look for the same rows in namespaces that differ in nothing but what computes."""
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


def _only_named(namespace: Namespace, missing: list[Key], former: Features) -> Recomputing:
    """Look for rows that a features file names and that are not in the store."""
    why = (
        "the features file of the run before names them, and no store here has them; `machine.shared_store` in "
        "params.yaml or REGRAFT_STORE may name one that does"
    )
    if former.keys is None or former.rows is not None or former.namespace != namespace.folder.name or not missing:
        return Recomputing(0, 0.0, why)
    return Recomputing(int(np.isin(as_array(missing), former.keys).sum()), 0.0, why)


def _drawn_otherwise(
    namespace: Namespace, missing: list[Key], wanted: Sequence[Key], digests: Collection[str], former: Features
) -> Recomputing:
    """Look for the same photos among rows of the same namespace that are not wanted any more."""
    why = "another version of Pillow, or other settings in `preprocess`, draw them otherwise"
    if former.keys is None or former.namespace != namespace.folder.name or not missing:
        return Recomputing(0, 0.0, why)
    is_wanted = np.isin(former.keys, as_array(wanted))
    here = set(digests)
    # Every photo has a centre square: that of one which is still there is wanted, unless it has another key now.
    squares = zip(former.digests, is_wanted | (former.views != 0), strict=True)
    photos = {digest for digest, is_as_before in squares if not is_as_before and digest in here}
    rows = ~is_wanted & np.array([digest in photos for digest in former.digests], bool)
    keys = as_keys(former.keys[rows])[: len(missing)]
    return Recomputing(len(keys), namespace.seconds_for(keys), why)
