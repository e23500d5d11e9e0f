"""Inputs of the two stages that fine-tune: activations from the store, or pixels, of photos that can still be had.

Activations are named by the frozen graph, the engine and the view, so this module decides where they are read and who
computes lost ones, and never their values: it belongs to the seam (`tasks.code_record`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regraft.backbones.catalogue import Backbone
from regraft.core.config import Params
from regraft.core.errors import InvalidData
from regraft.features.extraction import Extractor
from regraft.features.forward_passes import load_stored_trunk, open_feature_store
from regraft.features.table import Features, read_features, write_named_features
from regraft.photos.dataset import Dataset
from regraft.photos.images import Threads
from regraft.photos.views import Views
from regraft.store.leases import store_in_use
from regraft.training.inputs import Inputs, cached_activations, live_pixels
from tasks.chosen_cluster import chosen_cluster
from tasks.progress import Progress


class TrainingStore:
    """The photos' views, and the store of a backbone, whose lease is held."""

    def __init__(self, params: Params, backbone: Backbone, views: Views) -> None:
        self._params, self._views = params, views
        self.is_live = params.fine_tune.layers == "all"  # trained from pixels
        root, machine = params.paths.store, params.machine
        trunk = load_stored_trunk(backbone, root, shared=machine.shared_store)
        store = open_feature_store(root, trunk, shared=machine.shared_store, mirror=machine.shared_mirror)
        self._extractor = Extractor(views, trunk, store, machine, chosen_cluster(machine))

    def fill(self, photos: Dataset, progress: Progress) -> None:
        """Compute the views that training needs and the store lacks."""
        activations = "none" if self.is_live else "verified"
        self._extractor.fill_store(photos, activations=activations, on_progress=progress("views"))

    def still_there(self, photos: Dataset, progress: Progress) -> Dataset:
        """Fill the store with everything that training needs of photos, and return those that can be had.

        The values of a photo stay in the store after its file is gone; lost values are computed from the file.
        """

        def only(is_wanted: list[bool]) -> Dataset:
            return photos.with_rows(photos.rows[is_wanted].reset_index(drop=True))

        if self.is_live:
            photos = only([photos.is_there(photo) for photo in photos.photos()])
        try:
            self.fill(photos, progress)
        except InvalidData:  # a file is gone or was changed, and the store lacks some of its values
            missing = self._extractor.missing(photos, activations="none" if self.is_live else "verified")
            photos = only([photo.digest not in missing or photos.is_there(photo) for photo in photos.photos()])
            self.fill(photos, progress)
        return photos

    def inputs_of(self, photos: Dataset) -> Inputs:
        """Return the reader of the inputs of some photos."""
        if self.is_live:
            return live_pixels(photos, self._views, Threads(self._params.machine.workers))
        return cached_activations(photos, self._extractor.store.activations, self._views, seed=self._params.seed)

    @property
    def facts(self) -> dict[str, Any]:
        """What the inputs follow from beside photos and views, for a checkpoint."""
        return {} if self.is_live else {"activations": self._extractor.store.activations.folder.name}

    def features(self, path: Path, photos: Dataset) -> Features:
        """Return the pooled features of some photos, by a temporary file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_named_features(path, self._extractor, photos)
        return read_features(path, find_rows=self._extractor.store.find_rows)


@contextmanager
def open_store(params: Params, backbone: Backbone, views: Views) -> Iterator[TrainingStore]:
    """Hold the store's lease and yield the store."""
    with store_in_use(params.paths.store, params.machine.shared_store):
        yield TrainingStore(params, backbone, views)
