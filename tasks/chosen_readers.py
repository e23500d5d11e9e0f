"""Who reads and decodes photos that are new: this process, or the cluster that params.yaml names."""

from functools import partial

from regraft.core.config import Params
from regraft.photos.known import Readers
from regraft.photos.scan_on_cluster import ClusterReaders
from regraft.store.facts import Facts
from tasks.chosen_cluster import chosen_cluster


def chosen_readers(params: Params, *, know: bool) -> Readers | None:
    """Return the readers of a cluster, or None if this process reads; `know`: whether the store says what is known."""
    cluster = chosen_cluster(params.machine)
    if cluster is None:
        return None
    known = partial(Facts, shared=params.machine.shared_store, max_pixels=params.validate_data.max_pixels)
    return ClusterReaders(cluster, params.paths.store, known if know else None)
