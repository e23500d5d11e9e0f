"""The shipped files: size, distance from Keras, what the network sees of a photo, and the same file in int8."""

import json
from collections import defaultdict
from typing import Any

import numpy as np
from PIL import Image

from regraft.core.errors import RegraftError
from regraft.core.files import read_json, readable_bytes, reading
from regraft.export.classifier import facts_of
from regraft.onnx_graphs.parsing import parse_graph
from regraft.photos.dataset import Dataset, Photo
from regraft.photos.images import Threads
from regraft.photos.preparation import Preparation
from regraft.reports.contact_sheet import SIDE, Tile
from regraft.reports.evaluation_page import of_all
from regraft.reports.page import Block, Heading, Page, Photos, Table
from regraft.reports.sources import Sources
from regraft.reports.thumbnails import BLANK
from regraft.serving.thresholds import one_in

_TRAINED = {"head": "the head, on the frozen backbone", "top": "head and top of the backbone", "all": "all layers"}
_COMPARED = {"head": "the head in NumPy behind the frozen graph", "top": "Keras", "all": "Keras"}
_PER_CLASS, _MAX_CLASSES = 8, 30  # photos that show what the network sees


def metadata_of(sources: Sources) -> dict[str, str]:
    """Return the metadata of the shipped file."""
    with reading(sources.onnx, "a model that Regraft exported"):
        return dict(facts_of(parse_graph(sources.onnx.read_bytes())))


def onnx_page(sources: Sources) -> Page:
    """Return the page on the shipped file."""
    report = read_json(sources.reports / "export.json")
    with reading(sources.onnx, "a model that Regraft exported"):
        seen = json.loads(metadata_of(sources)["preprocessing"])
        preparation = Preparation(seen["image_size"], seen["crop_fraction"])
    size = preparation.image_size
    rows = [
        ["size", readable_bytes(report["bytes"])],
        ["sha256", report["sha256"]],
        ["trained", _TRAINED[report["trained"]]],
        *_of_frozen_graph(report.get("frozen_graph")),
        ["temperature", report["calibration"]["words"]],
        ["novel", f"above {report['novel_above']:.3f}, as {one_in(report['novel_share'])} ordinary photos by chance"],
        ["when it is unsure", report["abstention"]["words"]],
    ]
    parities = [
        [name, each["images"], f"{each['largest_difference']:.1e}", f"{each['same_top1']:.1%}"]
        for name, each in report["parity"].items()
    ]
    header = ["", "pictures", "largest difference of a probability", "same most probable class"]
    square = f"A square of {preparation.crop_fraction:.0%} of the shorter side, resized to {size} x {size}"
    blocks: list[Block] = [
        Table(["", ""], rows),
        Heading(f"Compared with {_COMPARED[report['trained']]}"),
        "From the raw file on; test photos are reported and decide nothing.",
        Table(header, parities),
        Heading("What the network sees"),
        f"{square}; a row per class:",
        Photos("what the network sees", _seen(preparation, sources)),
    ]
    return Page("onnx-file", "ONNX file", blocks)


def _of_frozen_graph(agreement: dict[str, Any] | None) -> list[list[str]]:
    """Return the difference from Keras at conversion; an int8 graph has none, since it follows from further away."""
    if agreement is None:
        return []
    figures = f"{agreement['images']} images, up to {agreement['largest_difference']:.1e} of the largest value"
    return [["difference of the frozen graph from Keras, when it was converted", figures]]


def _seen(preparation: Preparation, sources: Sources) -> list[tuple[str, list[Tile]]]:
    dataset = sources.read_dataset()
    train = dataset.of("train").rows
    first = train[train.class_index < _MAX_CLASSES].groupby("class_index").head(_PER_CLASS)
    chosen = dataset.with_rows(first.sort_values("class_index", kind="stable"))
    rows: dict[str, list[Tile]] = defaultdict(list)
    tiles = prepared_photos(chosen, preparation, sources.threads)
    for class_name, tile in zip(chosen.rows.class_name, tiles, strict=True):
        rows[class_name].append(tile)
    return list(rows.items())


def prepared_photos(dataset: Dataset, preparation: Preparation, threads: Threads) -> list[Tile]:
    """Return photos as `preparation` gives them to the network, reduced to thumbnails, without captions."""

    def drawn(photo: Photo) -> np.ndarray:
        try:
            with dataset.opened(photo) as rgb:
                square = preparation(rgb)
        except (RegraftError, OSError, ValueError):  # the report is still worth reading
            return BLANK
        return np.asarray(Image.fromarray(square).resize((SIDE, SIDE)))

    return [Tile(square, "") for square in threads.map(drawn, dataset.photos())]


def int8_page(sources: Sources) -> Page:
    """Return the page on the int8 file: its precision, the reason, and the cost in accuracy."""
    report = read_json(sources.reports / "int8.json")
    rows = [
        ["precision", report.get("precision", "")],
        ["why", report["words"]],
        ["size", readable_bytes(report["bytes"])],
        ["sha256", report["sha256"]],
        ["here", report["processor"]],
        *_int8_on_test(report.get("test")),
    ]
    if "abstention" in report:
        rows.append(["when it is unsure", report["abstention"]])
    return Page("int8", "Int8 file", [Table(["", ""], rows)])


def _int8_on_test(test: dict[str, Any] | None) -> list[list[str]]:
    if test is None or test["accuracy"] is None:
        return []
    accuracy, found = test["accuracy"], test["difference"]
    words = (
        f"{accuracy['int8']:.2%} in int8, {accuracy['float32']:.2%} in float32, of {test['images']} "
        f"photos{of_all(test)}; the difference is {found['value']:+.2%} ({found['low']:+.2%} to {found['high']:+.2%})"
    )
    return [["accuracy on test, which decided nothing", words]]
