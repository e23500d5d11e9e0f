"""The files of a namespace: shards here and in the shared root, as one list that `refresh` makes anew."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from regraft.core.files import writing
from regraft.photos.images import Threads
from regraft.store.description import describe
from regraft.store.distant import DistantShard, keys_paths
from regraft.store.names import KEPT, KEYS, SENT
from regraft.store.remote import Remote
from regraft.store.shards import Shard, buffers_of, name_of, set_aside, shard_paths, write_shard
from regraft.store.synchronising import send, set_aside_there, synchronise

_LISTINGS = 5  # of a folder whose files vanish while it is listed
_SHARDS_AT_ONCE = 4  # of the shared root, that are read
_KEPT_BYTES = 32_000_000  # of values in a file of copies, and so in memory


class ShardFolder:
    """All shards of one kind of array; `regraft.store.namespace.Namespace` makes a table of rows of them."""

    def __init__(
        self, folder: Path, facts: dict[str, Any], remote: Remote | None = None, *, keeps_copies: bool = True
    ) -> None:
        """Look at a folder.

        Args:
            folder: of the namespace.
            facts: as in its description.
            remote: the shared root, if it lies there too.
            keeps_copies: whether copies of rows of the shared root are made, and used.
        """
        self.folder, self.facts, self.remote, self.keeps_copies = folder, facts, remote, keeps_copies
        self.shape, self.dtype = tuple(facts["shape"]), np.dtype(facts["dtype"])
        self.unusable: set[str] = set()  # names of shards that are damaged, whether or not they could be renamed
        self._fetched_again: set[str] = set()

    @property
    def row_bytes(self) -> int:
        """What one row takes on the disk, nearly."""
        return math.prod(self.shape) * self.dtype.itemsize

    def look(self, known: Sequence[Shard]) -> list[Shard]:
        """Return all shards; those that are `known` are not read again."""
        before = {shard.name: shard for shard in known}
        for _ in range(_LISTINGS):
            vanished = self._synchronise()
            shards, again = self._list(before)
            before = {shard.name: shard for shard in shards}
            if not vanished and not again:
                break
        # What is here first, then the largest: of equal rows that one counts which need not be fetched or rewritten.
        return sorted(shards, key=lambda shard: (not shard.is_here, -len(shard)))

    def write_file(self, keys: np.ndarray, values: np.ndarray, seconds: np.ndarray, *, ending: str = ".arrow") -> Shard:
        """Write rows as one new shard, in the folder only: keys from `as_array`, and the seconds that each row took."""
        describe(self.folder, self.facts)
        with writing(self.folder):
            return Shard(write_shard(self.folder, keys, values, seconds, ending=ending), self.shape, self.dtype)

    def copies_of(self, distant: list[tuple[Shard, np.ndarray]], lost: list[Shard]) -> Iterator[Shard]:
        """Fetch rows of shards of the shared root, keep them here, and yield the shards with the copies.

        Args:
            distant: the shards, each with the rows that are wanted, which grow.
            lost: shards are added that are damaged or have vanished.
        """
        step = max(1, _KEPT_BYTES // self.row_bytes)
        pieces = [(shard, rows[start : start + step]) for shard, rows in distant for start in range(0, len(rows), step)]
        while pieces:
            batch, count = [], 0
            while pieces and (not batch or count + len(pieces[0][1]) <= step):
                batch.append(pieces.pop(0))
                count += len(batch[-1][1])
            found = Threads(_SHARDS_AT_ONCE).map(lambda piece: self._fetched(piece[0], piece[1], lost), batch)
            read = [(*piece, values) for piece, values in zip(batch, found, strict=True) if len(values)]
            if read:
                keys = np.concatenate([shard.keys[rows] for shard, rows, _ in read])
                seconds = np.concatenate([shard.seconds[rows] for shard, rows, _ in read])
                yield self.write_file(keys, np.concatenate([values for *_, values in read]), seconds, ending=KEPT)

    def send(self, shard: Shard) -> None:
        """Send a new shard to the shared root, if there is one."""
        if self.remote:
            shard.path = send(shard.path, self.remote)

    def remove(self, shard: Shard) -> None:
        """Remove a shard for everybody; `refresh` notices."""
        if self.remote:
            self.remote.remove(f"{self.folder.name}/{shard.name}.arrow")
        for path in (shard.path, shard.path.with_name(f"{shard.name}{SENT}")):
            path.unlink(missing_ok=True)

    def verify(self, shard: Shard) -> None:
        """Read all of a shard; if anything in it is damaged, `refresh` goes on without it."""
        try:
            sound = shard.is_sound() if not shard.is_here else self._check(shard.path) is None
        except FileNotFoundError:
            return
        except ValueError:
            sound = False
        if not sound:
            self._discard(shard.path)

    def _fetched(self, shard: Shard, rows: np.ndarray, lost: list[Shard]) -> np.ndarray:
        values = np.empty((len(rows), *self.shape), self.dtype)
        if shard not in lost:
            try:
                if shard.read(rows.tolist(), buffers_of(values)):
                    return values
                self._discard(shard.path)
            except FileNotFoundError:
                self._forget(shard)
            lost.append(shard)
        return values[:0]

    def _list(self, known: dict[str, Shard]) -> tuple[list[Shard], bool]:
        """Return the folder's shards, and whether to list again; those that are `known` are not read again."""
        shards: dict[str, Shard] = {}
        again = False
        for path in [*shard_paths(self.folder), *(keys_paths(self.folder) if self.remote else ())]:
            name = name_of(path)
            if name in self.unusable or name in shards or self._is_unwanted_copy(path):
                continue
            try:
                shard = known.get(name)
                shards[name] = shard if shard and shard.is_here != path.name.endswith(KEYS) else self._opened(path)
                shards[name].path = path
            except FileNotFoundError:
                again = True  # it was merged into a shard that may have appeared after the folder was listed
            except ValueError:
                self._discard(path)
                again |= name not in self.unusable  # it is fetched again
        return list(shards.values()), again

    def _is_unwanted_copy(self, path: Path) -> bool:
        return bool(self.remote) and path.name.endswith(KEPT) and not self.keeps_copies

    def _opened(self, path: Path) -> Shard:
        if self.remote and path.name.endswith(KEYS):
            return DistantShard(path, self.shape, self.dtype, self.remote)
        return Shard(path, self.shape, self.dtype)

    def _discard(self, path: Path) -> None:
        """Set a damaged shard aside; but what is a copy of a shared one is thrown away, once, and so fetched again."""
        name = name_of(path)
        if self.remote and path.name.endswith(KEPT):
            self.keeps_copies = False  # this disk does not keep what is written
            path.unlink(missing_ok=True)
        elif self.remote and path.name.endswith((SENT, KEYS)) and name not in self._fetched_again:
            self._fetched_again.add(name)
            path.unlink(missing_ok=True)
        elif self.remote and path.name.endswith(KEYS):
            self.unusable.add(name)
            path.unlink(missing_ok=True)
            set_aside_there(name, self.folder, self.remote)
        else:
            self.unusable.add(name)
            set_aside(path)

    def _forget(self, shard: Shard) -> None:
        """Forget a shard that has vanished from the shared root, even if that still lists it: its keys go too."""
        if not shard.is_here:
            shard.path.unlink(missing_ok=True)

    def _synchronise(self) -> bool:
        if not self.remote:
            return False
        describe(self.folder, self.facts)
        with writing(self.folder):
            return synchronise(self.folder, self.remote, self._check, self.unusable)

    def _check(self, path: Path) -> None:
        """Read all of a shard; ValueError if anything in it is damaged."""
        if not Shard(path, self.shape, self.dtype).is_sound():
            raise ValueError("damaged")
