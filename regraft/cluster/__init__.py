"""Cluster: work in parts, handed to processes on this machine or to a Dask cluster.

In: a cluster's address, what each worker must be, and parts of a list. Out: what the workers returned, part by part,
whichever of them died meanwhile. Nothing of Dask is imported before a cluster is connected to.
"""
