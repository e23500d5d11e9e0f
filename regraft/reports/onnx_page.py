"""The shipped file: its size, how closely it follows Keras, and what the network in it sees of a photo."""

import json
from collections import defaultdict
from typing import Any

from regraft.export.two_parts import facts_of
from regraft.files import read_json, readable_bytes, reading
from regraft.onnx_graphs.parsing import parse_graph
from regraft.photos.preparation import Preparation
from regraft.reports.blocks import Page, Photos, Tile
from regraft.reports.markdown import table
from regraft.reports.sources import Sources
from regraft.reports.thumbnails import prepared_photos
from regraft.serving.novelty import one_in

_TRAINED = {"head": "the head, on the frozen backbone", "top": "head and top of the backbone", "all": "all layers"}
_COMPARED = {"head": "the head in NumPy behind the frozen graph", "top": "Keras", "all": "Keras"}
_PER_CLASS, _MAX_CLASSES = 8, 30  # photos that show what the network sees


def onnx_page(sources: Sources) -> Page:
    """Return the page."""
    report = read_json(sources.reports / "export.json")
    preparation = _preparation(sources)
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
    seen = (
        f"A square of {preparation.crop_fraction:.0%} of the shorter side, resized to {size} x {size}; a row per class:"
    )
    photos = Photos("what the network sees", _seen(preparation, sources))
    compared = f"## Compared with {_COMPARED[report['trained']]}"
    proof = [compared, "From the raw file on; test photos are reported and decide nothing.", _parity(report["parity"])]
    return Page("onnx-file", "ONNX file", [table(["", ""], rows), *proof, "## What the network sees", seen, photos])


def _parity(parities: dict[str, dict[str, Any]]) -> str:
    """A row per kind of picture: how many, and how far a probability is off at most."""
    rows = [
        [name, each["images"], f"{each['largest_difference']:.1e}", f"{each['same_top1']:.1%}"]
        for name, each in parities.items()
    ]
    return table(["", "pictures", "largest difference of a probability", "same most probable class"], rows)


def _of_frozen_graph(agreement: dict[str, Any] | None) -> list[list[str]]:
    """How closely the frozen graph followed Keras when it was converted; an int8 graph follows it from further away."""
    if agreement is None:
        return []
    figures = f"{agreement['images']} images, up to {agreement['largest_difference']:.1e} of the largest value"
    return [["difference of the frozen graph from Keras, when it was converted", figures]]


def _preparation(sources: Sources) -> Preparation:
    """Return the preparation that is in the file."""
    with reading(sources.onnx, "a model that Regraft exported"):
        facts = json.loads(facts_of(parse_graph(sources.onnx.read_bytes()))["preprocessing"])
        return Preparation(facts["image_size"], facts["crop_fraction"])


def _seen(preparation: Preparation, sources: Sources) -> list[tuple[str, list[Tile]]]:
    dataset = sources.read_dataset()
    train = dataset.of("train").rows
    first = train[train.class_index < _MAX_CLASSES].groupby("class_index").head(_PER_CLASS)
    chosen = dataset.with_rows(first.sort_values("class_index", kind="stable"))
    rows: dict[str, list[Tile]] = defaultdict(list)
    for class_name, tile in zip(
        chosen.rows.class_name, prepared_photos(chosen, preparation, sources.threads), strict=True
    ):
        rows[class_name].append(tile)
    return list(rows.items())
