"""Store: arrays that are computed once per image, in files that never change.

In: keys and arrays, from whoever computed them. Out: the same arrays, verified, for later runs and for other machines
that share the store. `shards.py` says how they lie on the disk.
"""
