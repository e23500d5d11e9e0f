"""The cluster that params.yaml names, which says in this run how it is getting on."""

import sys

from regraft.cluster.connection import Cluster
from regraft.core.config import Machine
from tasks.step import publish


def chosen_cluster(machine: Machine) -> Cluster | None:
    """Return the cluster that works on photos, or None if this process does."""
    return Cluster(machine.cluster, machine.workers, _show, _say) if machine.cluster else None


def _show(dashboard: str) -> None:
    """Name the dashboard where the run is followed, and here."""
    if dashboard:
        _say(f"Dashboard of the cluster: {dashboard}")
        page = f"[{dashboard}]({dashboard}) shows what the workers do, while the stage runs."
        publish("dashboard of the cluster", {"dask-dashboard": page})


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
