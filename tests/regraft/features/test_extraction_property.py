"""Whatever is done to a data folder and to the params, exactly what is new is computed: checked against a plain set."""

import hashlib
import os
import shutil
import tempfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from PIL import Image

from regraft.backbones.trunk import Trunk
from regraft.core.files import sha256_of
from regraft.photos.dataset import Dataset
from regraft.photos.manifest import find_files
from regraft.photos.preparation import Preparation
from regraft.photos.views import Augmentation, Views
from tests.support.library import extractor_of, ignore_progress

SIZE = 8
NAMES = [f"{label}/{number}.png" for label in ("cat", "dog") for number in range(3)]
ROW = {"class_name": "str", "class_index": "int32"}


class Sums:
    """A backbone whose features follow from the pixels: their sums, and a constant that stands for its weights."""

    name, is_parallel = "sums", True

    def __init__(self, weights: int) -> None:
        self.weights = weights

    def run(self, images: np.ndarray, *, with_activations: bool) -> tuple[np.ndarray, np.ndarray | None]:
        sums = images.reshape(len(images), -1, 3).sum(axis=1).astype(np.float32) + self.weights
        return sums, sums[:, None, None] if with_activations else None


class Folder(RuleBasedStateMachine):
    """Files are added, removed, renamed, edited and touched, params change; after each step the flow's stages run."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.raw = self.root / "raw"
        self.raw.mkdir()
        self.files: dict[str, bytes] = {}
        self.computed: set[tuple] = set()  # the model: what was ever computed, by everything that can change it
        self.views = Views(
            Preparation(SIZE, 1.0), Augmentation(0.5, 1.2, True, 0.1, 0.1, 0.1), count=1, fast_decoding=False
        )
        self.weights = 0

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @initialize()
    def start(self) -> None:
        for number, name in enumerate(NAMES[:3]):
            self.write(name, number)

    def write(self, name: str, colour: int, mode: str = "RGB") -> None:
        stream = BytesIO()
        Image.new(mode, (10, 12), (colour, 2 * colour, 90)).save(stream, "PNG")
        self.files[name] = stream.getvalue()
        path = self.raw / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(stream.getvalue())

    @rule(name=st.sampled_from(NAMES), colour=st.integers(0, 5))
    def add_or_edit(self, name: str, colour: int) -> None:
        self.write(name, colour)  # colours repeat, so that several files, also of two classes, have the same bytes

    @rule(name=st.sampled_from(NAMES))
    def remove(self, name: str) -> None:
        if self.files.pop(name, None):
            (self.raw / name).unlink()

    @rule(old=st.sampled_from(NAMES), new=st.sampled_from(NAMES))
    def rename(self, old: str, new: str) -> None:
        if old in self.files:
            (self.raw / new).parent.mkdir(exist_ok=True)
            (self.raw / old).rename(self.raw / new)
            self.files[new] = self.files.pop(old)

    @rule(name=st.sampled_from(NAMES), seconds=st.integers(1, 10**9))
    def touch(self, name: str, seconds: int) -> None:
        if name in self.files:
            os.utime(self.raw / name, (seconds, seconds))

    @rule(crop=st.sampled_from([1.0, 0.8]))
    def change_crop(self, crop: float) -> None:
        self.views = replace(self.views, preparation=Preparation(SIZE, crop))

    @rule(count=st.integers(0, 2), flip=st.booleans())
    def change_views(self, count: int, flip: bool) -> None:
        self.views = replace(self.views, count=count, augmentation=replace(self.views.augmentation, flip=flip))

    @rule(weights=st.integers(0, 1))
    def change_weights(self, weights: int) -> None:
        self.weights = weights

    def dataset(self) -> Dataset:
        # What `validate_data` would find; to inspect each file in a process of its own takes nine tenths of the time.
        files = find_files(self.raw)[1]
        rows = pd.DataFrame({"path": [str(file.path) for file in files]})
        rows["digest"] = [sha256_of(self.raw / path) for path in rows.path]
        return Dataset(
            rows.assign(class_name="x", class_index=0, split="train", format="PNG").astype(ROW), ["x"], self.raw
        )

    def wanted(self) -> set[tuple]:
        how = {True: self.views.preparation, False: self.views.augmentation}
        numbers = range(self.views.count + 1)
        return {
            (hashlib.sha256(contents).digest(), number, how[number == 0], self.weights)
            for contents in self.files.values()
            for number in numbers
        }

    @invariant()
    def exactly_what_is_new_is_computed_and_every_value_is_right(self) -> None:
        if not self.files:
            return
        trunk = Trunk(Sums(self.weights), Path("unused"), f"graph {self.weights}", SIZE, (1, 1, 3), 3, None)
        extractor, dataset = extractor_of(self.views, trunk, self.root / "store"), self.dataset()
        receipt = extractor.fill_store(dataset, activations="verified", on_progress=ignore_progress)
        assert receipt.computed == len(self.wanted() - self.computed)
        self.computed |= self.wanted()
        for photo in dataset.photos():
            numbers = self.views.of(photo.split)
            drawn = self.views.draw(dataset.read_photo(photo), photo.digest, numbers)
            expected, _ = trunk.run(drawn, with_activations=False)
            assert np.array_equal(extractor.store.features.read(self.views.keys(photo.digest, numbers)), expected)


TestFolder = Folder.TestCase
TestFolder.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
