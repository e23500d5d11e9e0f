"""The store: arrays that are computed once per image and stored between runs.

    <root>/<kind>-<first 16 digits of the namespace's fingerprint>/
        namespace.json      what the arrays are, for people and for `regraft store`
        <random>-<start>-<stop>-<checksum>.arrow
                            shards: immutable Arrow IPC files of rows (key, checksum, seconds, value); the values lie
                            from byte <start> to <stop>, and <checksum> is that of all other bytes
        <the same>.sent.arrow   a shard that lies in the shared root too
    <root>/leases/          who is using the store now; nothing is collected meanwhile
    <root>/uses/            which rows each version of build/features.arrow was made from; `gc` goes by it

A namespace stands for everything that can change a value and is no matter of one image: weights, cut, dtype, engine. A
key stands for one image and how it is looked at: a SHA-256 and the number of the view. The shards
themselves are the index: there is nothing to keep in step with them, so writers need no lock, and two that compute the
same row merely store it twice.

A shard gets its final name only when its bytes are on the disk, so half a shard is never seen. What is not a value is
verified before Arrow looks at it (a damaged header could crash the process), a value whenever it is read: a shard that
was damaged is set aside, and its rows count as missing. Nothing here is irreplaceable; whatever is missing is computed
again by whoever needs it.

Values are read by plain reads into the caller's array. A memory-mapped file would be charged to the process page by
page, so that memory seemed to grow with the data set, and would keep a file open per shard.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
