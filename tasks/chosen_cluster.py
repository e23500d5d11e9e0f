"""The cluster that params.yaml names, which says in this run how it is getting on, and its readers of photos."""

import sys
from functools import partial

from regraft.cluster.connection import Cluster
from regraft.core.config import Machine, Params
from regraft.photos.known import Readers
from tasks.step import publish


def chosen_cluster(machine: Machine) -> Cluster | None:
    """Return the cluster that works on photos, or None if this process does."""
    return Cluster(machine.cluster, machine.workers, _show, _say) if machine.cluster else None


def chosen_readers(params: Params, *, know: bool) -> Readers | None:
    """Return the readers of a cluster, or None if this process reads; `know`: whether the store says what is known."""
    from regraft.photos.scan_on_cluster import ClusterReaders
    from regraft.store.facts import Facts

    cluster = chosen_cluster(params.machine)
    if cluster is None:
        return None
    known = partial(Facts, shared=params.machine.shared_store, max_pixels=params.validate_data.max_pixels)
    return ClusterReaders(cluster, params.paths.store, known if know else None)


def _show(dashboard: str) -> None:
    """Name the dashboard where the run is followed, and here."""
    if dashboard:
        _say(f"Dashboard of the cluster: {dashboard}")
        page = f"[{dashboard}]({dashboard}) shows what the workers do, while the stage runs."
        publish("dashboard of the cluster", {"dask-dashboard": page})


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
