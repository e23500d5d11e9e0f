"""Where the file looked, beside each mistake."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import onnx
import pandas as pd
import pytest
from PIL import Image

from regraft.core.files import sha256_of, write_json
from regraft.photos.dataset import write_dataset
from regraft.reports.contact_sheet import SIDE, Tile, draw_sheet
from regraft.reports.mistakes import mistakes_of, overlay
from regraft.reports.page import Page, Photos, to_markdown, write_page
from tests.support.library import sources_in
from tests.support.shipped_files import tiny_graph


@pytest.fixture
def sources(tmp_path, dataset, raw):
    write_dataset(tmp_path / "dataset.parquet", dataset)
    return replace(sources_in(tmp_path), raw=raw, photos=3)


@pytest.fixture
def ship(sources):
    """A function that makes a graph the file to ship, as the figures know it."""

    def write(graph: onnx.ModelProto) -> None:
        onnx.save(graph, sources.onnx)
        write_json(sources.reports / "export.json", {"sha256": sha256_of(sources.onnx)})

    return write


@pytest.fixture
def shipped(ship, dataset):
    ship(tiny_graph(dataset.class_names, {}))


@pytest.fixture
def wrong(dataset):
    rows = dataset.of("test").rows
    others = [dataset.class_names[(index + 1) % 3] for index in rows.class_index]
    return pd.DataFrame({"path": rows.path, "actual": rows.class_name, "predicted": others, "confidence": 0.9})


@pytest.mark.usefixtures("shipped")
def test_beside_each_shown_mistake_are_two_pictures_of_where_the_file_looked(sources, wrong):
    tiles, words = mistakes_of(wrong, sources)
    assert [len(tile.beside) for tile in tiles] == [2, 2, 2]
    pictures = np.stack([picture for tile in tiles for picture in tile.beside]).astype(int)
    assert pictures.shape == (6, SIDE, SIDE, 3)
    redness = pictures[..., 0] - pictures[..., 2]
    assert redness.max() > 100  # where something speaks for a class
    assert (redness == 0).any()  # and where nothing does
    assert "in the middle for the one that was named" in words


def test_of_a_file_without_exact_maps_there_are_photos_alone_and_the_reason(
    sources, wrong, ship, dataset, colour_model
):
    ship(colour_model(dataset.class_names))
    tiles, words = mistakes_of(wrong, sources)
    assert [tile.beside for tile in tiles] == [(), (), ()]
    assert "no exact activation maps" in words


@pytest.mark.usefixtures("shipped")
def test_of_another_file_than_the_figures_nothing_is_shown(sources, wrong):
    write_json(sources.reports / "export.json", {"sha256": "0" * 64})
    tiles, words = mistakes_of(wrong, sources)
    assert [tile.beside for tile in tiles] == [(), (), ()]
    assert "is not the file that these figures are about" in words


@pytest.mark.usefixtures("shipped")
def test_a_photo_that_is_gone_takes_none_of_the_others_with_it(sources, wrong, dataset, tmp_path):
    rows = dataset.rows[dataset.rows.path != wrong.path[0]]
    write_dataset(tmp_path / "dataset.parquet", dataset.with_rows(rows.reset_index(drop=True)))
    tiles, _ = mistakes_of(wrong, sources)
    assert [len(tile.beside) for tile in tiles] == [0, 2, 2]


def test_colour_is_where_the_map_is_strong():
    strength = np.zeros((4, 4), np.float32)
    strength[:2, :2] = 1
    picture = overlay(Image.new("RGB", (40, 40), (90, 120, 150)), strength)
    assert picture[5, 5, 0] > picture[5, 5, 2] + 100
    assert len(set(picture[35, 35].tolist())) == 1


def test_pictures_beside_a_photo_stay_beside_it_on_both_kinds_of_pages(tmp_path):
    colours = [np.full((SIDE, SIDE, 3), shade, np.uint8) for shade in (30, 120, 220)]
    tiles = [Tile(colours[0], "a\nb", tuple(colours[1:]))] * 3
    plain = [Tile(colours[0], "")] * 16
    assert size_of(draw_sheet([("", tiles)])) == size_of(draw_sheet([("", plain)]))  # two rows, of two mistakes or less
    write_page(tmp_path / "page.html", "title", [Page("key", "title", [Photos("mistakes", [("", tiles)])])])
    page = (tmp_path / "page.html").read_text()
    assert page.count('<div class="strip">') == 3
    assert page.count("<img ") == 9
    assert to_markdown(Page("key", "title", [Photos("mistakes", [("", tiles)])])).count("![mistakes]") == 1


def size_of(picture: bytes) -> tuple[int, int]:
    return Image.open(BytesIO(picture)).size
