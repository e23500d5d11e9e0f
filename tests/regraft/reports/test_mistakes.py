"""Where the file looked, beside each mistake."""

from dataclasses import replace

import numpy as np
import onnx
import pandas as pd
import pytest

from regraft.core.files import sha256_of, write_json
from regraft.photos.dataset import write_dataset
from regraft.reports.contact_sheet import SIDE
from regraft.reports.mistakes import mistakes_of
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
