"""The inputs of a stage: data set, backbone, views, store and features, each opened once, when it is first asked for.

This module decides where values are read and who computes what the store lacks, never a value: rows of the store are
named by the frozen graph, the engine and the view, and features.arrow has a checksum of each row that it names. So it
belongs to the seam (`tasks.code_record`); a contract test holds that each stage imports what decides its values.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.backbones.catalogue import Backbone, choose_backbone
from regraft.core.config import Params
from regraft.core.errors import InvalidData
from regraft.features.table import Features, read_features, write_features
from regraft.photos.base_record import BaseRecord, read_base_record
from regraft.photos.dataset import Dataset, read_dataset
from regraft.photos.elsewhere import Elsewhere, elsewhere_of
from regraft.photos.images import Threads
from regraft.photos.left_out import unseen
from regraft.photos.sample import training_sample
from regraft.photos.views import Views, choose_views
from regraft.store.leases import store_in_use
from regraft.store.located import LocatedRows, locate_rows
from tasks.chosen_cluster import chosen_cluster
from tasks.found_store import VARIABLE
from tasks.progress import Progress

if TYPE_CHECKING:
    from regraft.backbones.trunk import Trunk
    from regraft.features.extraction import Extractor
    from regraft.training.trainer import Inputs


class StageInputs:
    """Opened by a stage from its settings, and handed down."""

    def __init__(self, params: Params, progress: Progress) -> None:
        self.params, self._progress = params, progress

    @cached_property
    def fetcher(self) -> Elsewhere:
        """The reader of photos at addresses, with a count of what it fetched."""
        return elsewhere_of(self.params)

    @cached_property
    def dataset(self) -> Dataset:
        """The photos of today."""
        return read_dataset(self.params.paths.dataset, self.params.paths.raw, self.fetcher)

    @cached_property
    def fine_tuned(self) -> Dataset:
        """The photos that are fine-tuned on: of more than fine_tune.max_photos a sample."""
        return training_sample(self.dataset, self.params.fine_tune.max_photos)

    @cached_property
    def unseen(self) -> Dataset:
        """The same without the photos of val that the base has seen."""
        return unseen(self.fine_tuned, self.params.paths.left_out)

    @cached_property
    def base_record(self) -> BaseRecord:
        """The photos and settings of the base."""
        return read_base_record(self.params.paths.base_photos, self.params.paths.raw, self.fetcher)

    @cached_property
    def backbone(self) -> Backbone:
        """The pretrained network."""
        return choose_backbone(self.params.backbone)

    @cached_property
    def views(self) -> Views:
        """The views of each photo."""
        params = self.params
        return choose_views(params.preprocess, image_size=self.backbone.image_size, count=params.cache_features.views)

    @cached_property
    def trunk(self) -> "Trunk":
        """The frozen backbone, ready to run."""
        from regraft.features.forward_passes import load_stored_trunk  # takes ONNX, which a head does not need

        return load_stored_trunk(self.backbone, self.params.paths.store, shared=self.params.machine.shared_store)

    @cached_property
    def extractor(self) -> "Extractor":
        """The feature store and what fills it; to be used within `store_in_use`."""
        from regraft.features.extraction import Extractor
        from regraft.features.forward_passes import open_feature_store

        root, machine = self.params.paths.store, self.params.machine
        store = open_feature_store(root, self.trunk, shared=machine.shared_store)
        return Extractor(self.views, self.trunk, store, machine, chosen_cluster(machine))

    @cached_property
    def threads(self) -> Threads:
        """Threads that read photos, with a bar of their progress."""
        return Threads(self.params.machine.workers, self._progress("photos"))

    @contextmanager
    def store_in_use(self) -> Iterator[None]:
        """Hold a lease of the store: nothing is removed from it meanwhile."""
        with store_in_use(self.params.paths.store, self.params.machine.shared_store):
            yield

    @property
    def reads_pixels(self) -> bool:
        """Whether fine-tuning reads pixels, and not activations from the store."""
        return self.params.fine_tune.layers == "all"

    def fill_store(self, photos: Dataset) -> None:
        """Compute the views that fine-tuning needs and the store lacks."""
        activations = "none" if self.reads_pixels else "verified"
        self.extractor.fill_store(photos, activations=activations, on_progress=self._progress("views"))

    def available(self, photos: Dataset) -> Dataset:
        """Fill the store for fine-tuning, and return the photos whose inputs can be had.

        The values of a photo stay in the store after its file is gone; lost values are computed from the file.
        """

        def only(is_wanted: list[bool]) -> Dataset:
            return photos.with_rows(photos.rows[is_wanted].reset_index(drop=True))

        if self.reads_pixels:
            photos = only([photos.is_there(photo) for photo in photos.photos()])
        try:
            self.fill_store(photos)
        except InvalidData:  # a file is gone or was changed, and the store lacks some of its values
            missing = self.extractor.missing(photos, activations="none" if self.reads_pixels else "verified")
            photos = only([photo.digest not in missing or photos.is_there(photo) for photo in photos.photos()])
            self.fill_store(photos)
        return photos

    def reader_of(self, photos: Dataset) -> "Inputs":
        """Return the reader of the network's inputs for some photos."""
        from regraft.training.training_loop import cached_activations, live_pixels

        if self.reads_pixels:
            return live_pixels(photos, self.views, Threads(self.params.machine.workers))
        return cached_activations(photos, self.extractor.store.activations, self.views, seed=self.params.seed)

    @property
    def checkpoint_facts(self) -> dict[str, Any]:
        """What the inputs of fine-tuning follow from beside photos and views."""
        return {} if self.reads_pixels else {"activations": self.extractor.store.activations.folder.name}

    def features_of(self, photos: Dataset, path: Path) -> Features:
        """Return the pooled features of some photos, by a temporary file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_features(path, self.extractor, photos, is_named=True)
        return read_features(path, find_rows=self.extractor.store.find_rows)


@contextmanager
def open_features(params: Params, *, only_some: bool = False) -> Iterator[Features]:
    """Yield the features of build/features.arrow; where the file names rows of the store, these are held meanwhile.

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
            root = params.paths.store
            use = held.enter_context(store_in_use(root, params.machine.shared_store))
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
