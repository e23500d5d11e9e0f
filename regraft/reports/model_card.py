"""reports/model_card.md: the shipped file, its uses and limits, and its figures, as Markdown that travels with it.

The sections are those of Mitchell et al., "Model cards for model reporting", FAT* 2019; templates/model_card.md has
their text. What only people know stands in `report.card` of params.yaml.
"""

import json
from pathlib import Path
from typing import Any

from regraft.core.config import CardWords
from regraft.core.files import read_json, readable_bytes, reading, write_text
from regraft.export.evaluation import FEW, WORSE, read_classes, read_slices
from regraft.photos.splitting import FEW as SMALL_CLASS
from regraft.reports.evaluation_page import (
    abstention_of,
    calibration_blocks,
    confused_table,
    figures_of_test,
    figures_table,
    of_all,
    parts_tables,
)
from regraft.reports.export_page import metadata_of
from regraft.reports.first_screen import Circumstances
from regraft.reports.gate_page import NOT_ASKED, read_gate
from regraft.reports.measured_page import digests, latency_blocks, robustness_blocks, robustness_of
from regraft.reports.page import Block, Bold, Items, Table, render
from regraft.reports.sources import Sources

FILE = "model_card.md"
_LISTED = 50  # classes, and rows of a table
_NAMED = 10  # classes in a sentence
_UNSAID = "Nobody has said (report.card.{} in params.yaml)."
_TRAINED = {
    "head": "a new head on the frozen backbone",
    "top": "a new head, and the layers of the backbone from {} on",
    "all": "all layers",
}


def write_model_card(path: Path, sources: Sources, circumstances: Circumstances, words: CardWords) -> None:
    """Write the card of the file that the last run exported.

    Args:
        path: of the Markdown file.
        sources: where the figures stand.
        circumstances: what the library does not know of a run.
        words: what people say of the model.

    Raises:
        FileNotFoundError: a stage has not run yet.
        Damaged: a report, or the model, is damaged.
    """
    with reading(sources.reports, "the reports of a run"):
        write_text(path, model_card(sources, circumstances, words))


def model_card(sources: Sources, circumstances: Circumstances, words: CardWords) -> str:
    """Return the card as Markdown; names in it bring no markup. Arguments as above."""
    metadata = metadata_of(sources)
    preprocessing = json.loads(metadata.get("preprocessing", "{}"))
    dataset = read_json(sources.reports / "dataset.json")
    text = render(
        "model_card.md",
        details=_details(sources, circumstances, words, metadata, list(dataset["classes"])),
        intended_use=_paragraphs(words.intended_use or _UNSAID.format("intended_use")),
        not_for=_paragraphs(words.not_for or ""),
        crop=f"{preprocessing['crop_fraction']:.0%}" if "crop_fraction" in preprocessing else "",
        data_sha256=metadata.get("data_sha256"),
        is_pretrained=metadata.get("backbone_weights_licence", "none") != "none",
        analyses=_analyses(sources),
        damage="measured" if robustness_of(sources) else "not measured",
        looks_before=(read_gate(sources) or {}).get("looks_before"),
        **_photos(sources, dataset),
        **_limits(sources),
    )
    return f"{text}\n"


def _details(
    sources: Sources, circumstances: Circumstances, words: CardWords, metadata: dict[str, str], class_names: list[str]
) -> Table:
    export, trained = read_json(sources.reports / "export.json"), read_json(sources.reports / "fine_tune.json")
    how = _TRAINED[export["trained"]].format(metadata.get("fine_tuned_from", "a cut"))
    int8 = digests(sources)["int8"]
    rows = [
        ["what it is", "a classifier of photos: a convolutional network with its preprocessing, as one ONNX file"],
        ["classes", _some(class_names, _LISTED)],
        ["file", f"{sources.onnx.name}, {readable_bytes(export['bytes'])}, SHA-256 {export['sha256']}"],
        *([["the same in int8", f"SHA-256 {int8}"]] if int8 else []),
        ["network", f"{metadata.get('backbone', 'unknown')}, {how}. {trained['reason']}"],
        ["input", metadata.get("input", "image: uint8 RGB")],
        *[[f"output {name}", meaning] for name, meaning in json.loads(metadata.get("outputs", "{}")).items()],
        ["made by", f"Regraft {metadata.get('regraft_version', '')}"],
        ["data", circumstances.data],
        ["code", circumstances.code],
        ["card written", circumstances.written],
        ["licence of the pretrained weights", metadata.get("backbone_weights_licence", "not recorded")],
        ["licence of this model", words.licence or _UNSAID.format("licence")],
        ["whom to ask", words.contact or _UNSAID.format("contact")],
    ]
    return Table(["", ""], rows)


def _photos(sources: Sources, dataset: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the sections about the photos."""
    validation, features = (read_json(sources.reports / f"{name}.json") for name in ("validation", "embeddings"))
    classes, test = dataset["classes"], figures_of_test(sources)
    rows: list[list[Any]] = [[name, *splits.values()] for name, splits in list(classes.items())[:_LISTED]]
    checks = [*validation["expectations"], *features["expectations"]]
    missed = [check for check in checks if not check["success"]]
    met = f"Of {len(checks)} checks of the photos {len(missed)} are not met:"
    return {
        "dataset": dataset,
        "class_count": len(classes),
        "quarantined": validation["files"]["quarantine"],
        "test": test,
        "of_all": of_all(test),
        "how_split": _how_split(dataset),
        "leaks": next((check["found"] for check in features["expectations"] if check["name"] == "no_leaks"), ""),
        "absent": _some(dataset["not_in_test"]),
        "more_classes": f"The first {_LISTED} of {len(classes)} classes:" if len(classes) > _LISTED else "",
        "classes": Table(["class", "train", "val", "test"], [*rows, [Bold("all"), *dataset["splits"].values()]]),
        "checks": met if missed else f"All {len(checks)} checks of the photos are met.",
        "missed_checks": Items([f"expected {check['expected']}; found {check['found']}" for check in missed]),
        "suspects": len(features["label_errors"]),
        "accuracy": f"{test['accuracy']:.1%}",
        "accuracy_low": f"{test['accuracy_low']:.1%}",
        "accuracy_high": f"{test['accuracy_high']:.1%}",
    }


def _limits(sources: Sources) -> dict[str, str]:
    """Return the parts of the test split that the figures tell little or nothing good of."""
    classes, slices = read_classes(sources.reports / "classes.csv"), read_slices(sources.reports / "slices.csv")
    worse = slices[slices.note == WORSE]
    return {
        "slices": ", ".join(dict.fromkeys(slices.slice.tolist())),
        "few": _some(classes.class_name[classes.note == FEW].tolist()),
        "worse": _some([f"{name} = {value}" for name, value in zip(worse.slice, worse.value, strict=True)]),
    }


def _how_split(dataset: dict[str, Any]) -> str:
    images, given = dataset["images"], dataset["given_splits"]
    if given == images:
        return "The data folder gives the split of every photo."
    others = f"The data folder gives the split of {given} of {images} photos. Of the others each" if given else "Each"
    return (
        f"{others} keeps the split that it once had. New ones of a class with fewer than {SMALL_CLASS} photos go where "
        f"the class has less than its share, whole groups at a time and in the order of SHA-256; in larger classes the "
        f"SHA-256 alone decides, so that shares are met on average."
    )


def _analyses(sources: Sources) -> dict[str, list[Block]]:
    """Return the figures of the report's pages by title, those of the whole test split first."""
    chosen, on_test = abstention_of(sources)
    return {
        "On the test split": [figures_table(sources)],
        "Parts of the test split": parts_tables(sources, _LISTED),
        "What it takes for what": [confused_table(sources)],
        "Probabilities": calibration_blocks(sources),
        "When it is unsure": [f"{chosen['words']} {on_test}"],
        "Worse photos": robustness_blocks(sources),
        "Speed": latency_blocks(sources),
        "The gate": [(read_gate(sources) or {"words": NOT_ASKED})["words"]],
    }


def _some(names: list[str], most: int = _NAMED) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _paragraphs(text: str) -> list[str]:
    """Return what a person wrote as paragraphs of plain text."""
    return [part for part in text.split("\n\n") if part.strip()]
