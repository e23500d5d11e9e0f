"""What of the pooled features was computed before, and where: a clone has pulled a features.arrow and has no store.

Only pooled features are in that file. Activations, which fine-tuning reads, are computed where they are missing.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from regraft.core.errors import Damaged
from regraft.features.recomputing import Recomputing, find_recomputing
from regraft.features.table import Features, read_features
from regraft.store.namespace import Namespace
from regraft.store.shards import Key, as_keys

_ROWS = 4096  # in a shard


def take_known(
    namespace: Namespace, wanted: Sequence[Key], digests: Collection[str], files: Callable[[], Iterable[Path]]
) -> tuple[int, Recomputing | None]:
    """Fill a namespace with what earlier features files have of it.

    Args:
        namespace: of the pooled features.
        wanted: keys of the rows that are needed.
        digests: of the photos that they are of.
        files: returns the paths of features files; asked only if a row is missing. What is not there, is damaged or has
            no keys is passed over. One that names rows, and does not hold them, only tells what is lost.

    Returns:
        How many rows were taken, and which of the others are computed again although they were computed before.
    """
    if not namespace.missing(wanted, verify=False):
        return 0, None
    formers = [features for path in files() if (features := _read(path))]
    taken = sum(_seed(namespace, former, wanted) for former in formers)
    return taken, find_recomputing(namespace, wanted, digests, formers)


def _seed(namespace: Namespace, former: Features, wanted: Sequence[Key]) -> int:
    """Take rows that are missing from features that were made from this very namespace.

    The file's seal covers all its bytes, and here each row gets a checksum of its own. What computing them took is not
    known, and counts as nothing.
    """
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


def _read(path: Path) -> Features | None:
    try:
        return read_features(path, with_keys=True)
    except (FileNotFoundError, Damaged):
        return None
