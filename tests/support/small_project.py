"""What the tests of the stages share: small photos, and settings that make a stage take a second."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from regraft.core.config import Params

CLASSES = {"red": (200, 40, 40), "grün": (40, 200, 40), "deep blue": (40, 40, 200)}


def changed(params: Params, **sections: dict) -> Params:
    """Params with some settings changed, as `changed(params, fine_tune={"epochs": 1})`."""
    contents = params.model_dump(mode="json")
    for section, settings in sections.items():
        contents[section] |= settings
    return Params.model_validate(contents)


def quiet(what: str):
    """A progress that nobody looks at."""
    return lambda done, total: None


def empty_store(project: Path) -> None:
    """Remove all that was computed of photos; the converted backbone stays, because to convert it takes seconds."""
    for folder in (project / "build" / "store").iterdir():
        if folder.name != "graphs":
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()


def write_photos(folder: Path, per_class: int = 24, seed: int = 1) -> None:
    """Write noisy photos whose colour is their class, with sides between 40 and 90 pixels."""
    random = np.random.default_rng(seed)
    for name, colour in CLASSES.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            height, width = random.integers(40, 90, 2)
            pixels = np.clip(random.normal(colour, 45, (height, width, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{seed}-{number}.png")
