from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regraft.core.files import write_json
from regraft.export.evaluation import write_confusion, write_predictions
from regraft.photos.dataset import write_dataset
from regraft.photos.images import Threads
from regraft.photos.preparation import Preparation
from regraft.reports.contact_sheet import SIDE, Tile, draw_sheet
from regraft.reports.evaluation_page import confusion_page
from regraft.reports.export_page import prepared_photos
from regraft.reports.page import Photos
from regraft.reports.sources import Sources
from regraft.reports.thumbnails import thumbnails
from tests.support.library import LIMITS, sources_in


@pytest.fixture
def sources(dataset, raw, tmp_path: Path) -> Sources:
    write_dataset(tmp_path / "dataset.parquet", dataset)
    write_json(tmp_path / "reports" / "metrics.json", {"test": {"images": len(dataset.of("test"))}})
    return replace(sources_in(tmp_path), raw=raw, photos=3)


def captions(page) -> list[str]:
    """What is said below the photos of a page."""
    return [
        tile.caption for block in page.blocks if isinstance(block, Photos) for _, row in block.groups for tile in row
    ]


def size(png: bytes) -> tuple[int, int]:
    return Image.open(BytesIO(png)).size


def test_a_thumbnail_is_the_centre_of_its_photo(dataset, sources):
    photo = dataset.photos()[0]
    (tile,) = thumbnails(dataset, {photo.path: "said"}, Threads(1), LIMITS)
    square = Preparation(SIDE, 1.0)(np.asarray(Image.open(sources.raw / photo.path).convert("RGB")))
    assert tile.caption == "said"
    # A JPEG may be decoded at a smaller size for it.
    assert np.abs(tile.pixels.astype(int) - square).mean() < 3


def test_a_photo_that_is_gone_or_was_replaced_since_the_run_is_grey(dataset, sources, tmp_path):
    first, second = dataset.photos()[:2]
    other = replace(dataset, folder=tmp_path / "raw")
    (tmp_path / "raw" / second.path).parent.mkdir(parents=True)
    (tmp_path / "raw" / second.path).write_bytes((sources.raw / first.path).read_bytes())
    tiles = thumbnails(other, {first.path: "", second.path: "", "unknown.png": ""}, Threads(1), LIMITS)
    assert [np.unique(tile.pixels).tolist() for tile in tiles] == [[128], [128], [128]]


def test_a_prepared_photo_is_what_the_network_is_given(dataset, sources, preparation):
    one = dataset.with_rows(dataset.rows[dataset.rows.path.str.endswith("png")].head(1))
    (tile,) = prepared_photos(one, preparation, Threads(1))
    expected = preparation(dataset.read_photo(one.photos()[0]))
    assert np.array_equal(tile.pixels, np.asarray(Image.fromarray(expected).resize((SIDE, SIDE))))


def test_the_most_confident_mistakes_come_first(dataset, sources):
    test = dataset.of("test")
    truth = test.rows.class_index.to_numpy()
    confidence = np.where(np.arange(len(test)) == 4, 0.9, 0.6)
    said = np.where(np.arange(len(test)) < 5, (truth + 1) % 3, truth)  # the first five are wrong, the fifth most surely
    probabilities = np.full((len(test), 3), 0.1) + np.eye(3)[said] * confidence[:, None]
    write_predictions(sources.reports / "predictions.csv", test, probabilities)
    write_confusion(sources.reports / "confusion.csv", test, probabilities)
    found = captions(confusion_page(sources))
    assert len(found) == 3
    assert found[0] == f"{test.class_names[said[4]]} 100%\nis {test.class_names[truth[4]]}"
    assert all(" 70%\n" in caption for caption in found[1:])


@pytest.mark.parametrize("caption", ["\udc80", "x" * 300])
def test_any_caption_can_be_drawn(caption):
    tile = Tile(np.zeros((SIDE, SIDE, 3), np.uint8), caption)
    assert size(draw_sheet([("", [tile]), (caption, [tile])])) == (944, 304)
