"""What the two stages that fine-tune are given: activations from the store, or pixels, of photos that are there."""

from collections.abc import Callable
from functools import partial
from typing import Any

from regraft.backbones.catalogue import Backbone
from regraft.core.config import Params
from regraft.core.errors import InvalidData
from regraft.core.files import reading
from regraft.features.extraction import Extractor
from regraft.features.feature_store import load_stored_trunk, open_feature_store
from regraft.photos.base_record import BaseRecord
from regraft.photos.dataset import Dataset
from regraft.photos.images import Threads
from regraft.photos.views import Views
from regraft.training.inputs import Inputs, cached_activations, live_pixels
from tasks.chosen_cluster import chosen_cluster
from tasks.progress import Progress


def as_recorded(params: Params, record: BaseRecord) -> Params:
    """Return today's paths and machine with the settings that a record has."""
    # `paths` stays the checked object: the store that was found may lie outside the project, which no text may name.
    contents = params.model_dump(mode="json", exclude={"paths"}) | {"paths": params.paths}
    for name, settings in record.settings.items():
        contents[name] = contents[name] | settings if isinstance(settings, dict) else settings
    with reading(params.paths.base_photos, "settings that params.yaml may have"):
        return Params.model_validate(contents)


def open_extractor(params: Params, backbone: Backbone, views: Views) -> Extractor:
    """Open the store of a backbone; the caller has the store's lease."""
    root, machine = params.paths.store, params.machine
    trunk = load_stored_trunk(backbone, root, shared=machine.shared_store)
    store = open_feature_store(root, trunk, shared=machine.shared_store, mirror=machine.shared_mirror)
    return Extractor(views, trunk, store, machine, chosen_cluster(machine))


def still_there(photos: Dataset, extractor: Extractor, params: Params, progress: Progress) -> Dataset:
    """Make sure that the store has what training needs of photos, and return those of which it can be had.

    What a photo came to stays in the store after its file is gone; what the store lost is computed from the file.
    """
    is_live = params.fine_tune.layers == "all"

    def only(is_wanted: list[bool]) -> Dataset:
        return photos.with_rows(photos.rows[is_wanted].reset_index(drop=True))

    def fill(photos: Dataset) -> Dataset:
        activations = "none" if is_live else "verified"
        extractor.fill_store(photos, activations=activations, on_progress=progress("views"))
        return photos

    if is_live:
        photos = only([photos.is_there(photo) for photo in photos.photos()])
    try:
        return fill(photos)
    except InvalidData:  # a file is gone, or is another one now, and the store has not all of it
        missing = extractor.missing(photos, activations="none" if is_live else "verified")
        return fill(only([photo.digest not in missing or photos.is_there(photo) for photo in photos.photos()]))


def inputs_of(params: Params, extractor: Extractor | None, views: Views) -> Callable[[Dataset], Inputs]:
    """Return what makes the inputs of a part of the photos; without an extractor they are pixels."""
    if extractor is None or params.fine_tune.layers == "all":
        return partial(live_pixels, views=views, threads=Threads(params.machine.workers))
    return partial(cached_activations, activations=extractor.store.activations, views=views, seed=params.seed)


def facts_of_inputs(params: Params, extractor: Extractor | None) -> dict[str, Any]:
    """Return what the inputs follow from beside photos and views, for a checkpoint."""
    if extractor is None or params.fine_tune.layers == "all":
        return {}
    return {"activations": extractor.store.activations.folder.name}
