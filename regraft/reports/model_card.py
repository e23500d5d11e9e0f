"""reports/model_card.md: what the shipped file is, what it is for and what not, and how well it does.

Markdown that stands beside the file wherever that goes. The sections are those of Mitchell et al., "Model cards for
model reporting", FAT* 2019. What only people know stands in `report.card` of params.yaml.
"""

import json
from pathlib import Path
from typing import Any

from regraft.config import CardWords
from regraft.export.two_parts import facts_of as facts_of_graph
from regraft.files import read_json, readable_bytes, reading, write_text
from regraft.onnx_graphs.parsing import parse_graph
from regraft.reports.first_screen import Circumstances
from regraft.reports.markdown import cell, table
from regraft.reports.measured import digests
from regraft.reports.model_card_data import evaluation_data, training_data
from regraft.reports.model_card_figures import quantitative_analyses
from regraft.reports.model_card_limits import caveats, considerations, factors, must_not
from regraft.reports.sources import Sources

FILE = "model_card.md"
_NAMED = 50  # classes that are listed
_UNSAID = "Nobody has said ({} in params.yaml)."
_TRAINED = {
    "head": "a new head on the frozen backbone",
    "top": "a new head, and the layers of the backbone from {} on",
    "all": "all layers",
}
_METRICS = """Figures are of the file itself, from the raw files on, and count photos. Intervals are at 95%: Wilson's
for a share, Tango's for a difference on the same photos. Photos of one group, such as near-duplicates, count in them as
far as they are independent evidence.

- **Accuracy**: the share of photos whose largest probability is that of their class. **Recall**: the same of one class.
- **Log loss** and **Brier score** judge all probabilities of a photo; lower is better.
- **ECE**, the expected calibration error, is how far confidence and accuracy lie apart on average.
- **Answered**: the share of photos whose largest probability reaches the threshold in the file. Below it, a client had
  better say that it is unsure."""


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
    """Return the card as Markdown; whatever names in it look like, they bring no markup. Arguments as above."""
    facts = facts_of(sources.onnx)
    class_names = list(read_json(sources.reports / "dataset.json", "classes")["classes"])
    sections = {
        "Model details": _details(sources, circumstances, words, facts, class_names),
        "Intended use": [_said(words.intended_use, "report.card.intended_use"), _task(class_names, facts)],
        "What it must not be used for": [*_paragraphs(words.not_for), must_not(sources)],
        "Factors": [factors(sources)],
        "Metrics": [_METRICS],
        "Evaluation data": evaluation_data(sources),
        "Training data": training_data(sources, facts),
        "Quantitative analyses": quantitative_analyses(sources),
        "Ethical considerations": [considerations(sources, facts)],
        "Caveats and recommendations": [caveats(sources)],
    }
    parts = [f"# Model card: photos of {len(class_names)} classes"]
    for title, blocks in sections.items():
        parts += [f"## {title}", *blocks]
    return "\n\n".join(parts) + "\n"


def facts_of(path: Path) -> dict[str, str]:
    """Return what an exported file says of itself."""
    with reading(path, "a model that Regraft exported"):
        return dict(facts_of_graph(parse_graph(path.read_bytes())))


def _details(
    sources: Sources, circumstances: Circumstances, words: CardWords, facts: dict[str, str], class_names: list[str]
) -> list[str]:
    export, trained = read_json(sources.reports / "export.json"), read_json(sources.reports / "fine_tune.json")
    more = f" and {len(class_names) - _NAMED} more" if len(class_names) > _NAMED else ""
    how = _TRAINED[export["trained"]].format(facts.get("fine_tuned_from", "a cut"))
    network = f"{facts.get('backbone', 'unknown')}, {how}. {trained['reason']}"
    int8 = digests(sources)["int8"]
    rows = [
        ["what it is", "a classifier of photos: a convolutional network with its preprocessing, as one ONNX file"],
        ["classes", ", ".join(class_names[:_NAMED]) + more],
        ["file", f"{sources.onnx.name}, {readable_bytes(export['bytes'])}, SHA-256 {export['sha256']}"],
        *([["the same in int8", f"SHA-256 {int8}"]] if int8 else []),
        ["network", network],
        ["input", facts.get("input", "image: uint8 RGB")],
        *[[f"output {name}", what] for name, what in json.loads(facts.get("outputs", "{}")).items()],
        ["made by", f"Regraft {facts.get('regraft_version', '')}"],
        ["data", circumstances.data],
        ["code", circumstances.code],
        ["card written", circumstances.written],
        ["licence of the pretrained weights", facts.get("backbone_weights_licence", "not recorded")],
        ["licence of this model", words.licence or _UNSAID.format("report.card.licence")],
        ["whom to ask", words.contact or _UNSAID.format("report.card.contact")],
    ]
    return [table(["", ""], rows)]


def _task(class_names: list[str], facts: dict[str, str]) -> str:
    seen: dict[str, Any] = json.loads(facts.get("preprocessing", "{}"))
    crop = ""
    if "crop_fraction" in seen:
        crop = f" It sees the centre square ({seen['crop_fraction']:.0%} of the shorter side) and nothing beside it."
    return (
        f"It says which of {len(class_names)} classes a photo shows, where the photo shows exactly one of them and was "
        f"taken as the photos were that it was trained on.{crop}"
    )


def _said(text: str | None, setting: str) -> str:
    return "\n\n".join(_paragraphs(text)) or cell(_UNSAID.format(setting))


def _paragraphs(text: str | None) -> list[str]:
    """Return what a person wrote as paragraphs of plain text."""
    return [cell(part) for part in (text or "").split("\n\n") if part.strip()]
