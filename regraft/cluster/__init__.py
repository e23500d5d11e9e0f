"""Cluster: work in parts, handed to processes on this machine or to a Dask cluster.

In: a cluster's address, what each worker must be, and parts of a list. Out: what the workers returned, part by part,
whichever of them died meanwhile. Nothing of Dask is imported before a cluster is connected to.
"""

from regraft.rooms import open_door

__getattr__, __dir__, __all__ = open_door(__name__, __file__)
