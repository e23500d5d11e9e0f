"""features.arrow for the stages that read it: where it names rows of the store, these are found, and held meanwhile.

It decides where a row is read from and never what it is, since the file has the checksum of each.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from regraft.core.config import Params
from regraft.features.table import Features, read_features
from regraft.store.leases import store_in_use
from regraft.store.located import LocatedRows, locate_rows
from tasks.found_store import VARIABLE


@contextmanager
def open_features(params: Params, *, only_some: bool = False) -> Iterator[Features]:
    """Yield the features of build/features.arrow, to be read within the block.

    Args:
        params: where the file, the store and the shared store are.
        only_some: whether a few rows are read once, and only those have to be there. Else all that lie only in the
            shared store are brought here first.

    Raises:
        FileNotFoundError: there is no such file.
        Damaged: it is damaged.
        RegraftError: it names rows that no store here has.
        Busy: rows are being removed from the store.
    """
    with ExitStack() as held:

        def find_rows(namespace: str, keys: np.ndarray, checksums: np.ndarray) -> LocatedRows:
            root, shared = params.paths.store, params.machine.shared_store
            use = held.enter_context(store_in_use(root, shared))
            where = root / namespace, use.remote
            rows = locate_rows(*where, keys, checksums, advice=_advice(params), only_some=only_some)
            held.callback(rows.close)
            if not only_some:
                rows.fetch()
            return rows

        yield read_features(params.paths.features, find_rows=find_rows)


def _advice(params: Params) -> str:
    return (
        f"{params.paths.features} only names them, because there are more than 100,000. "
        f"`dvc repro -sf cache_features` computes what is missing, one forward pass a row, and names what is there. If "
        f"another store has them, name it first: a shared one in params.yaml as machine.shared_store, a folder of this "
        f"machine by {VARIABLE}."
    )
