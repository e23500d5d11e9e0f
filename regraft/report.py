"""Reports in words and pictures: Markdown pages for the Prefect UI, and the same pages as one HTML file."""

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regraft.config import Params, load_params
from regraft.dataset import Dataset
from regraft.files import read_json, readable_bytes, replacing, write_text

_NAMED = 20  # rows of a table of problems
_TRAINED = {"head": "the head, on the frozen backbone", "top": "head and top of the backbone", "all": "all layers"}
_PNG = "data:image/png;base64,"

_HTML = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Regraft report</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1f2328; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
section {{ border-top: 1px solid #d1d9e0; margin-top: 2rem; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; }}
th, td {{ border: 1px solid #d1d9e0; padding: 0.25rem 0.6rem; text-align: left; }}
img {{ max-width: 100%; }}
</style></head><body><h1>Regraft report</h1>
{sections}
</body></html>
"""


def pages_of(stage: str, reports: Path) -> dict[str, str]:
    """Return what a stage found out as Markdown pages by key; keys have lower-case letters and dashes only."""
    return {key: page(reports) for key, page in _PAGES.get(stage, {}).items()}


def write_html(reports: Path) -> None:
    """Write reports/report.html: every page on one, readable without a server and without a network."""
    from markdown_it import MarkdownIt

    # html=False: a class or file name cannot bring markup into the page.
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table")
    renderer.validateLink = lambda url: url.startswith(_PNG)  # type: ignore[method-assign]
    pages = [page for stage in reversed(_PAGES) for page in pages_of(stage, reports).values()]
    # The renderer goes through a link letter by letter, seconds for a picture: it is given a number in its place.
    pictures: list[str] = []

    def number(match: re.Match[str]) -> str:
        pictures.append(match[1])
        return f"{_PNG}{len(pictures) - 1})"

    numbered = [re.sub(rf"{re.escape(_PNG)}([A-Za-z0-9+/=]+)\)", number, page) for page in pages]
    sections = "\n".join(f"<section>{renderer.render(page)}</section>" for page in numbered)
    sections = re.sub(rf'"{re.escape(_PNG)}(\d+)"', lambda match: f'"{_PNG}{pictures[int(match[1])]}"', sections)
    write_text(reports / "report.html", _HTML.format(sections=sections))


def summary(params: Params) -> str:
    """Return what a person wants to know after a run, and where to look next."""
    paths = params.paths
    test = read_json(paths.reports / "metrics.json")["test"]
    receipt = read_json(paths.reports / "features.json")
    rows = [
        ("test accuracy", f"{test['accuracy']:.4f} on {test['images']} photos that no training saw"),
        ("model", f"{paths.onnx} ({readable_bytes(paths.onnx.stat().st_size)}): raw photo in, probabilities out"),
        (
            "receipt",
            f"{receipt['computed']} forward passes, {receipt['from_store']} of {receipt['rows']} rows from the store",
        ),
        ("", f"{receipt['seconds']:.1f} s spent, {receipt['seconds_saved']:.1f} s saved by the store"),
        ("look at", f"{paths.reports / 'report.html'} in a browser, and docs/guide.md for your own photos"),
        ("", "`make ui` in another terminal, then run again: the same in the Prefect UI"),
    ]
    return "\n".join(f"{name:14} {text}" for name, text in rows)


def write_predictions(path: Path, test: Dataset, probabilities: np.ndarray) -> None:
    """Write what the model said of each test image as CSV: path, actual, predicted, confidence."""
    table = pd.DataFrame(
        {
            "path": test.rows.path,
            "actual": test.rows.class_name,
            "predicted": [test.class_names[index] for index in probabilities.argmax(axis=1)],
            "confidence": probabilities.max(axis=1).round(4),
        }
    )
    with replacing(path) as temporary:
        table.sort_values("path").to_csv(temporary, index=False)


def _validation(reports: Path) -> str:
    report = read_json(reports / "validation.json")
    files = report["files"]
    verdict = "The images can be trained on." if report["success"] else "**The images cannot be trained on.**"
    rows = [
        [
            _sign(result),
            result["severity"],
            result["expected"],
            result["found"],
            "" if result["success"] else result["advice"],
        ]
        for result in report["expectations"]
    ]
    lines = [
        "# Validation",
        f"{verdict} {files['use']} images are used, {files['quarantine']} are quarantined, {files['ignore']} files are "
        f"not images. Layout of the data folder: {report['layout']}.",
        _table(["", "severity", "expected", "found", "what to do"], rows),
    ]
    if report["not_used"]:
        named = [[row["path"], row["verdict"], row["reason"]] for row in report["not_used"][:_NAMED]]
        lines += [
            f"## Not used: {len(report['not_used'])} (the first {len(named)}; all are in validation.json)",
            _table(["file", "verdict", "why"], named),
        ]
    return "\n\n".join(lines)


def _class_balance(reports: Path) -> str:
    return "\n\n".join(["# Class balance", _picture(reports / "class_balance.png", "images per class")])


def _dataset(reports: Path) -> str:
    report = read_json(reports / "dataset.json")
    rows = [[name, *splits.values()] for name, splits in report["classes"].items()]
    absent = report["not_in_test"]
    warning = f" No test image, so not measured: {', '.join(map(_cell, absent))}." if absent else ""
    return "\n\n".join(
        [
            "# Data set",
            f"{report['images']} different images; {report['copies_left_out']} copies left out.{warning}",
            _table(["class", "train", "val", "test"], [*rows, [_Bold("all"), *report["splits"].values()]]),
            "What the network sees, a row per class:",
            _picture(reports / "prepared.png", "prepared images"),
        ]
    )


def _receipt(reports: Path) -> str:
    report = read_json(reports / "features.json")
    rate = report["images_per_second"]
    rows = [
        ["different images", report["images"]],
        ["views of a training image", report["views"]],
        ["views of all images", report["rows"]],
        ["from the store", report["from_store"]],
        ["computed", report["computed"]],
        ["seconds spent", f"{report['seconds']:.1f}" + (f" ({rate:.0f} images/s)" if rate else "")],
        ["seconds saved", f"{report['seconds_saved']:.1f}"],
        ["size of the store", readable_bytes(report["store_bytes"])],
        ["engine", report["engine"]],
    ]
    return "\n\n".join(["# Receipt: what the frozen backbone cost", _table(["", ""], rows)])


def _head(reports: Path) -> str:
    report = read_json(reports / "head.json")
    leaders = pd.read_csv(reports / "leaderboard.csv")
    tried = len(leaders)
    rows = [
        [
            place,
            *(
                f"{value:.4f}" if name.startswith("val") else f"{value:g}" if isinstance(value, float) else value
                for name, value in row.items()
            ),
        ]
        for place, row in enumerate(leaders.head(_NAMED).to_dict("records"), 1)
    ]
    probes, curve = report["probes"], report["learning_curve"]
    without_training = [
        ["always the largest class", f"{probes['majority']:.3f}"],
        ["nearest class centroid", f"{probes['nearest_centroid']:.3f}"],
        ["nearest neighbours", f"{probes['nearest_neighbours']:.3f}"],
    ]
    with_part = [
        [f"the head, with {float(share):.0%} of the training photos", f"{value:.3f}"] for share, value in curve.items()
    ]
    whole = ["the head", _Bold(f"{report['val']['accuracy']:.3f}")]
    return "\n\n".join(
        [
            "# Head",
            " ".join(report["words"]),
            _table(["classifier", "accuracy on val"], [*without_training, *with_part, whole]),
            f"## Leaderboard: {tried} tried" + (f", the first {_NAMED}" if tried > _NAMED else ""),
            _table(["", *(name.replace("_", " ") for name in leaders.columns)], rows),
        ]
    )


def _curve(title: str, name: str) -> Callable[[Path], str]:
    def page(reports: Path) -> str:
        report = read_json(reports / f"{name}.json")
        if "val" not in report:
            words = report["reason"]
        else:
            val = report["val"]
            words = (
                f"Best epoch {report['best_epoch']} of {report['epochs_run']}: val accuracy {val['accuracy']:.3f}, "
                f"cross-entropy {val['log_loss']:.3f}."
            )
            words += f" {report['reason']}" if "reason" in report else ""
        return "\n\n".join([f"# {title}", words, _picture(reports / f"{name}_curve.png", "learning curve")])

    return page


def _export(reports: Path) -> str:
    report = read_json(reports / "export.json")
    parity = report["parity"]
    rows = [
        ["size", readable_bytes(report["bytes"])],
        ["sha256", report["sha256"]],
        ["trained", _TRAINED[report["trained"]]],
        ["compared with Keras", f"{parity['images']} val photos, from the raw file"],
        ["largest difference of a probability", f"{parity['largest_difference']:.1e}"],
        ["same most probable class", f"{parity['same_top1']:.1%}"],
    ]
    return "\n\n".join(["# ONNX file", _table(["", ""], rows)])


def _metrics(reports: Path) -> str:
    test = read_json(reports / "metrics.json")["test"]
    rows = [[name, f"{value:.4f}" if isinstance(value, float) else value] for name, value in test.items()]
    return "\n\n".join(["# Test split, through the shipped file", _table(["figure", "value"], rows)])


def _confusion(reports: Path) -> str:
    return "\n\n".join(
        [
            "# Confusion matrix",
            _picture(reports / "confusion.png", "confusion matrix"),
            "## Most confident mistakes",
            _picture(reports / "mistakes.png", "most confident mistakes"),
        ]
    )


_PAGES: dict[str, dict[str, Callable[[Path], str]]] = {
    "validate_data": {"validation": _validation, "class-balance": _class_balance},
    "preprocess": {"dataset": _dataset},
    "cache_features": {"receipt": _receipt},
    "train_head": {"head": _head, "head-curve": _curve("Head on cached features", "head")},
    "fine_tune": {"fine-tune-curve": _curve("Fine-tuning", "fine_tune")},
    "export_onnx": {"onnx-file": _export},
    "evaluate": {"metrics": _metrics, "confusion-matrix": _confusion},
}


def _table(header: list[str], rows: list[list[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    """A table cell that shows what it is given: a file name can neither break the table nor bring markup."""
    text = re.sub(r"([\\`*_{}\[\]()#+!|~<>&])", r"\\\1", " ".join(str(value).split()))
    return f"**{text}**" if isinstance(value, _Bold) else text


class _Bold(str):
    """A cell in bold type."""


def _picture(path: Path, title: str) -> str:
    return f"![{title}]({_PNG}{base64.b64encode(path.read_bytes()).decode()})"


def _sign(result: dict[str, Any]) -> str:
    return "ok" if result["success"] else _Bold("fails") if result["severity"] == "error" else "see"


if __name__ == "__main__":
    print(summary(load_params(Path("params.yaml"))))
