"""Reports in words and pictures: Markdown pages for the Prefect UI, and the same pages as one HTML file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from regraft.config import Params
from regraft.files import read_json, readable_bytes, replacing
from regraft.params_file import load_params
from regraft.photos.dataset import Dataset
from regraft.reports import photo_pages
from regraft.reports.html import write_page
from regraft.reports.markdown import Bold, picture, table

_NAMED = 20  # rows of a table of problems
_TRAINED = {"head": "the head, on the frozen backbone", "top": "head and top of the backbone", "all": "all layers"}


def pages_of(stage: str, reports: Path) -> dict[str, str]:
    """Return what a stage found out as Markdown pages by key; keys have lower-case letters and dashes only."""
    return {key: page(reports) for key, page in _PAGES.get(stage, {}).items()}


def write_html(reports: Path) -> None:
    """Write reports/report.html: every page on one, readable without a server and without a network."""
    pages = [page for stage in reversed(_PAGES) for page in pages_of(stage, reports).values()]
    write_page(reports / "report.html", "Regraft report", pages)


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
    return "\n\n".join(["# Receipt: what the frozen backbone cost", table(["", ""], rows)])


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
    whole = ["the head", Bold(f"{report['val']['accuracy']:.3f}")]
    return "\n\n".join(
        [
            "# Head",
            " ".join(report["words"]),
            table(["classifier", "accuracy on val"], [*without_training, *with_part, whole]),
            f"## Leaderboard: {tried} tried" + (f", the first {_NAMED}" if tried > _NAMED else ""),
            table(["", *(name.replace("_", " ") for name in leaders.columns)], rows),
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
        return "\n\n".join([f"# {title}", words, picture(reports / f"{name}_curve.png", "learning curve")])

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
    return "\n\n".join(["# ONNX file", table(["", ""], rows)])


def _metrics(reports: Path) -> str:
    test = read_json(reports / "metrics.json")["test"]
    rows = [[name, f"{value:.4f}" if isinstance(value, float) else value] for name, value in test.items()]
    return "\n\n".join(["# Test split, through the shipped file", table(["figure", "value"], rows)])


def _confusion(reports: Path) -> str:
    return "\n\n".join(
        [
            "# Confusion matrix",
            picture(reports / "confusion.png", "confusion matrix"),
            "## Most confident mistakes",
            picture(reports / "mistakes.png", "most confident mistakes"),
        ]
    )


_PAGES: dict[str, dict[str, Callable[[Path], str]]] = {
    "validate_data": photo_pages.PAGES["validate_data"],
    "preprocess": photo_pages.PAGES["preprocess"],
    "cache_features": {"receipt": _receipt},
    "check_features": photo_pages.PAGES["check_features"],
    "train_head": {"head": _head, "head-curve": _curve("Head on cached features", "head")},
    "fine_tune": {"fine-tune-curve": _curve("Fine-tuning", "fine_tune")},
    "export_onnx": {"onnx-file": _export},
    "evaluate": {"metrics": _metrics, "confusion-matrix": _confusion},
}


if __name__ == "__main__":
    print(summary(load_params(Path("params.yaml"))))
