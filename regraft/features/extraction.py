"""From photos to cached features: every view of an image goes through the frozen backbone once in its life.

A clone pulls features.arrow and has no store, so the rows of that file fill the store. Other rows of photos that were
computed before are computed again where another engine, processor or Pillow would give other last bits, or where a file
of many photos only names rows of a store that is not here. The run says so, and how long that took the last time.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from regraft.backbones.trunk import Trunk
from regraft.cluster.connection import Cluster
from regraft.core.config import Machine
from regraft.core.errors import Damaged, RegraftError
from regraft.core.files import check_room
from regraft.features.forward_passes import FeatureStore, ForwardPasses, Work
from regraft.features.on_cluster import compute_on_cluster
from regraft.features.table import Features, read_features
from regraft.photos.dataset import Dataset
from regraft.photos.views import Views
from regraft.store.folders import candidates, facts_of, open_folder
from regraft.store.namespace import Namespace
from regraft.store.shards import Key, as_keys

_ROWS = 4096  # of a features file, taken at a time

# Activations at the cut that are needed beside the pooled features: none; those of train and val images; or the same,
# each row verified, because the caller reads them all next.
Activations = Literal["none", "stored", "verified"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """The cost of an extraction, and the cost that the store saved."""

    images: int  # different image files
    views: int  # views of a training image in the store, the centre square among them
    rows: int  # views of all images together
    from_store: int  # rows that were there already
    computed: int  # rows that cost a forward pass now
    seconds: float  # spent on computing them: decoding, resizing, forward passes
    images_per_second: float | None  # computed / seconds
    seconds_saved: float  # cost of the rows from the store when they were computed
    store_bytes: int  # size of the features and activations in the store
    engine: str

    def as_report(self) -> dict[str, object]:
        """Return the receipt as JSON-able values, times rounded to a millisecond."""
        return {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Recomputing:
    """Rows that are computed again."""

    rows: int
    seconds: float  # their cost when they were computed, as far as that is known
    why: str

    @property
    def words(self) -> str:
        """One sentence for a person."""
        took = f", which took {self.seconds / 60:.1f} minutes," if self.seconds >= 1 else ""
        return f"{self.rows:,} views of photos that were computed before{took} are computed again: {self.why}."

    def as_report(self) -> dict[str, object]:
        """Return it as JSON-able values."""
        return {**asdict(self), "seconds": round(self.seconds, 3)}


@dataclass(frozen=True, slots=True)
class Extractor:
    """Runs views of photos through the frozen backbone, each once in its life; the store holds the outputs."""

    views: Views  # which views an image has, and how they are drawn
    trunk: Trunk
    store: FeatureStore
    machine: Machine  # the section of params.yaml: threads, and the batch where one thread makes all forward passes
    cluster: Cluster | None = None  # who computes what is missing; None: this process

    @property
    def namespace(self) -> str:
        """Name of the part of the store that the pooled features lie in."""
        return self.store.features.folder.name

    @property
    def feature_dim(self) -> int:
        """Numbers of a pooled feature."""
        return self.trunk.feature_dim

    @property
    def augmented_views(self) -> int:
        """Views of a training image beside its centre square."""
        return self.views.count

    def read_features(self, sources: Sequence[str], view: int) -> np.ndarray:
        """Return one view's pooled features of some images: float32, shape (len(sources), feature_dim)."""
        return self.store.features.read([self.views.key(source, view) for source in sources])

    def checksums(self, sources: Sequence[str], view: int) -> np.ndarray:
        """Return the checksums of the same rows, without reading any: uint64, shape (len(sources),)."""
        return self.store.features.checksums([self.views.key(source, view) for source in sources])

    def keys(self, dataset: Dataset) -> list[Key]:
        """Return the store's keys of all views of a data set, once each."""
        return list(dict.fromkeys(self._keys(self._needed(dataset, "none"), "views")))

    def missing(self, dataset: Dataset, *, activations: Activations) -> set[str]:
        """Return the digests of the images of which the store lacks a row."""
        needed = self._needed(dataset, activations)
        return {work.photo.digest for work in self._missing(needed, verify_activations=activations == "verified")}

    def take_known(self, dataset: Dataset, files: Callable[[], Iterable[Path]]) -> tuple[int, Recomputing | None]:
        """Fill the store with rows of earlier features files.

        Args:
            dataset: the photos that are needed.
            files: returns the paths of features files; called only if a row is missing. One that is absent, damaged or
                without keys is skipped; one that only names rows tells which photos were computed.

        Returns:
            The number of rows taken, and which of the others are computed again although they were computed before.
        """
        namespace, wanted = self.store.features, self.keys(dataset)
        if not namespace.missing(wanted, verify=False):
            return 0, None
        formers, taken = [], 0
        for path in files():
            try:
                former = read_features(path, with_keys=True)
            except (FileNotFoundError, Damaged):
                continue
            if former.keys is not None and former.namespace == self.namespace:
                formers.append(former)
                taken += _take(namespace, former, wanted)
        missing = namespace.missing(wanted, verify=False)
        found = _by_another_engine(namespace, missing)
        # Every photo has a centre square; a photo that has more views than before is no reason to say anything.
        squares = {self.views.key(photo.source, 0): photo.digest for photo in dataset.photos()}
        digests = {squares[key] for key in missing if key in squares}
        found += [_known_before(namespace, former, digests) for former in formers]
        return taken, max((each for each in found if each.rows), key=lambda each: each.rows, default=None)

    def lost_activations(self, dataset: Dataset, activations_of: Collection[str] | None) -> Recomputing | None:
        """Return which activations `fill_store` computes although the features of the same views are there."""
        keys = list(self._keys(self._needed(dataset, "stored", activations_of), "cut_views"))
        missing = self.store.activations.missing(keys, verify=False)
        new = set(self.store.features.missing(missing, verify=False))
        known = [key for key in missing if key not in new]
        why = (
            "fine-tuning reads their activations at the cut, which are in no features file and not in this store; "
            "`machine.shared_store` in params.yaml or REGRAFT_STORE may name a store that has them"
        )
        return Recomputing(len(known), self.store.features.seconds_for(known), why) if known else None

    def fill_store(
        self,
        dataset: Dataset,
        *,
        activations: Activations,
        activations_of: Collection[str] | None = None,
        on_progress: Callable[[int, int], None],
    ) -> Receipt:
        """Compute what the store does not hold: one forward pass per new view, none for a view that is there.

        Args:
            dataset: the images that are needed.
            activations: see `Activations`; features are always verified, and test images never need activations.
            activations_of: digests of the images that need them; None: all of train and val.
            on_progress: called with the number of views computed and to compute.
        """
        needed = self._needed(dataset, activations, activations_of)
        missing = self._missing(needed, verify_activations=activations == "verified")
        rows, computed = (sum(len(work.views) for work in part) for part in (needed, missing))
        absent = set(self._keys(missing, "views"))
        present = [key for key in self._keys(needed, "views") if key not in absent]
        seconds_saved = self.store.features.seconds_for(present)
        start = time.perf_counter()
        if missing:
            self._compute(dataset, missing, on_progress)
            if self.cluster:
                self._look_again(needed, verify_activations=activations == "verified")
        seconds = time.perf_counter() - start if missing else 0.0
        return Receipt(
            images=len(needed),
            views=self.views.count + 1,
            rows=rows,
            from_store=rows - computed,
            computed=computed,
            seconds=seconds,
            images_per_second=computed / seconds if missing else None,
            seconds_saved=seconds_saved,
            store_bytes=self.store.stored_bytes,
            engine=self.trunk.engine,
        )

    def _needed(
        self, dataset: Dataset, activations: Activations, activations_of: Collection[str] | None = None
    ) -> list[Work]:
        """Every different image once, as if nothing were in the store; a file in two splits has what either needs."""
        needed: dict[str, Work] = {}
        for photo in dataset.photos():
            numbers = list(self.views.of(photo.split))
            is_wanted = activations_of is None or photo.digest in activations_of
            cut_views = numbers if activations != "none" and photo.split != "test" and is_wanted else []
            if before := needed.get(photo.digest):
                numbers, cut_views = max(numbers, before.views, key=len), max(cut_views, before.cut_views, key=len)
            needed[photo.digest] = Work(photo, numbers, cut_views)
        return list(needed.values())

    def _missing(self, needed: list[Work], *, verify_activations: bool) -> list[Work]:
        """Return the part of it that the store lacks."""
        no_features = set(self.store.features.missing(self._keys(needed, "views")))
        no_activations = set(self.store.activations.missing(self._keys(needed, "cut_views"), verify=verify_activations))
        if not no_features and not no_activations:
            return []
        missing = []
        for work in needed:
            source = work.photo.source
            cut_views = [view for view in work.cut_views if self.views.key(source, view) in no_activations]
            numbers = [v for v in work.views if v in cut_views or self.views.key(source, v) in no_features]
            if numbers:
                missing.append(Work(work.photo, numbers, cut_views))
        return missing

    def _keys(self, needed: list[Work], part: Literal["views", "cut_views"]) -> Iterator[Key]:
        return (key for work in needed for key in self.views.keys(work.photo.source, getattr(work, part)))

    def _compute(self, dataset: Dataset, missing: list[Work], on_progress: Callable[[int, int], None]) -> None:
        """Compute and store what is missing, here or on a cluster."""
        self._check_room(missing)
        passes = ForwardPasses(self.views, self.trunk, self.store, self.machine)
        if self.cluster is None:
            passes.compute(dataset, missing, on_progress)
        else:
            compute_on_cluster(self.cluster, passes, dataset, missing, on_progress)

    def _look_again(self, needed: list[Work], *, verify_activations: bool) -> None:
        """See what workers have written; RegraftError if some of it is not there."""
        self.store.features.refresh()
        self.store.activations.refresh()
        if absent := self._missing(needed, verify_activations=verify_activations):
            raise RegraftError(
                f"Workers have computed what was missing, but of {len(absent):,} photos it is not in the store, or "
                "damaged. Run again: only that is computed."
            )

    def _check_room(self, missing: list[Work]) -> None:
        parts = {"views": self.store.features, "cut_views": self.store.activations}
        size = sum(store.row_bytes * len(getattr(work, part)) for part, store in parts.items() for work in missing)
        check_room(self.store.features.folder, size, f"features of {len(missing):,} photos")


def _take(namespace: Namespace, former: Features, wanted: Sequence[Key]) -> int:
    """Take missing rows from a features file of this very namespace; their cost is not known and counts as nothing."""
    missing = set(namespace.missing(wanted, verify=False))
    if former.keys is None or former.rows is None or not missing:
        return 0
    keys = as_keys(former.keys)
    places = list({key: place for place, key in enumerate(keys) if key in missing}.values())
    for start in range(0, len(places), _ROWS):
        part = places[start : start + _ROWS]
        namespace.append([keys[place] for place in part], former.read(np.array(part)), seconds=0)
        namespace.flush()
    return len(places)


def _by_another_engine(namespace: Namespace, missing: list[Key]) -> list[Recomputing]:
    """Look for the same rows in namespaces that differ in their engine alone."""
    root, found = namespace.folder.parent, []
    for name in candidates(root, namespace.remote) if missing else ():
        facts = facts_of(root, namespace.remote, name)
        if name == namespace.folder.name or not facts or "engine" not in facts:
            continue
        if {**facts, "engine": 0} == {**namespace.facts, "engine": 0}:
            other = open_folder(root, namespace.remote, name)
            lacking = set(other.missing(missing, verify=False))
            keys = [key for key in missing if key not in lacking]
            why = f"that was with {facts['engine']}, and this is {namespace.facts['engine']}"
            found.append(Recomputing(len(keys), other.seconds_for(keys), why))
    return found


def _known_before(namespace: Namespace, former: Features, digests: set[str]) -> Recomputing:
    """Look for photos of which a row is missing among those that a features file of this namespace has."""
    rows = [row for row, digest in enumerate(former.digests) if digest in digests]
    if former.rows is None:
        why = (
            "the features file of the run before names them, and no store here has them; `machine.shared_store` in "
            "params.yaml or REGRAFT_STORE may name one that does"
        )
    else:
        why = "another version of Pillow, or other settings in `preprocess`, draw them otherwise"
    assert former.keys is not None
    return Recomputing(len(rows), namespace.seconds_for(as_keys(former.keys[rows])), why)
