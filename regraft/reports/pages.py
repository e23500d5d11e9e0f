"""All pages: one by one as Markdown for the Prefect UI, and together as one HTML file."""

from collections.abc import Mapping
from pathlib import Path

from regraft.core.config import Params
from regraft.core.files import read_json, readable_bytes, reading
from regraft.core.params_file import load_params
from regraft.reports.evaluation_page import (
    abstention_page,
    calibration_page,
    confusion_page,
    metrics_page,
    of_all,
    parts_page,
)
from regraft.reports.export_page import int8_page, onnx_page
from regraft.reports.features_page import features_page, receipt_page
from regraft.reports.first_screen import Circumstances, first_screen
from regraft.reports.gate_page import gate_page
from regraft.reports.measured_page import latency_page, robustness_page
from regraft.reports.page import to_markdown, write_page
from regraft.reports.sources import Sources
from regraft.reports.training_page import base_page, base_training_page, fine_tune_page, head_curve_page, head_page
from regraft.reports.validation_page import class_balance_page, dataset_page, image_statistics_page, validation_page

# In the order of report.html: what came out, then how, then what it was made of.
_PAGES = [
    ("promote_model", gate_page),
    ("evaluate", metrics_page),
    ("evaluate", confusion_page),
    ("evaluate", parts_page),
    ("evaluate", calibration_page),
    ("evaluate", abstention_page),
    ("measure", robustness_page),  # no stage: `regraft report --measure`
    ("measure", latency_page),
    ("fine_tune", fine_tune_page),
    ("choose_base", base_page),
    ("train_base", base_training_page),
    ("train_head", head_page),
    ("train_head", head_curve_page),
    ("export_onnx", onnx_page),
    ("quantise", int8_page),
    ("cache_features", receipt_page),
    ("check_features", features_page),
    ("preprocess", dataset_page),
    ("validate_data", validation_page),
    ("validate_data", class_balance_page),
    ("validate_data", image_statistics_page),
]


def pages_of(stage: str, sources: Sources) -> dict[str, str]:
    """Return the pages of a stage as Markdown by key; keys have lower-case letters and dashes only."""
    with reading(sources.reports, "the reports of a run"):
        pages = [build(sources) for name, build in _PAGES if name == stage]
        return {page.key: to_markdown(page) for page in pages}


def write_html(path: Path, sources: Sources, circumstances: Circumstances) -> None:
    """Write every page into one HTML file, readable without a server and without a network, the verdict first."""
    with reading(sources.reports, "the reports of a run"):
        pages, first = [build(sources) for _, build in _PAGES], first_screen(sources, circumstances)
    write_page(path, "Regraft report", pages, first)


def summary(params: Params, work: Mapping[str, str] | None = None) -> str:
    """Return what a person wants to know after a run, and where to look next.

    Args:
        params: all settings.
        work: what became of each stage in that run (Ran, Restored, Up to date); None where it is not known, and then
            what is told of the work is of the last run that had any.
    """
    with reading(params.paths.reports, "the reports of a run"):
        rows = _summary(params, work)
    return "\n".join(f"{name:14} {text}" for name, text in rows)


def _summary(params: Params, work: Mapping[str, str] | None) -> list[tuple[str, str]]:
    paths = params.paths
    metrics = read_json(paths.reports / "metrics.json", "test")
    test, answered = metrics["test"], metrics.get("answered")
    return [
        (
            "test accuracy",
            f"{test['accuracy']:.4f} ({test['accuracy_low']:.4f} to {test['accuracy_high']:.4f}) on {test['images']} "
            f"photos{of_all(test)} that no training saw",
        ),
        *([("unsure", _unsure(answered))] if answered else []),
        ("model", f"{paths.onnx} ({readable_bytes(paths.onnx.stat().st_size)}): raw photo in, probabilities out"),
        *_work(paths.reports, work),
        ("look at", f"{paths.reports / 'report.html'} in a browser, and docs/guide.md for your own photos"),
        ("", "`make serve`: the same every night and when photos arrive, with the Prefect UI"),
    ]


def _work(reports: Path, work: Mapping[str, str] | None) -> list[tuple[str, str]]:
    """What the run did, and what it cost."""
    receipt = read_json(reports / "features.json")
    passes = f"{receipt['computed']} forward passes, {receipt['from_store']} of {receipt['rows']} rows from the store"
    seconds = f"{receipt['seconds']:.1f} s spent, {receipt['seconds_saved']:.1f} s saved by the store"
    cost = [("receipt", passes), ("", seconds)]
    if work is None:
        return cost
    by = {what: [stage for stage, outcome in work.items() if outcome == what] for what in ("Ran", "Restored")}
    kinds = (("ran", by["Ran"]), ("from DVC's cache", by["Restored"]))
    told = [f"{what}: {', '.join(stages)}" for what, stages in kinds if stages] or ["nothing ran: all was up to date"]
    return [*(cost if "cache_features" in by["Ran"] else [("receipt", "0 forward passes")]), ("", "; ".join(told))]


def _unsure(answered: dict[str, float]) -> str:
    rightly = f", {answered['precision']:.1%} of them rightly" if "precision" in answered else ""
    return (
        f"below {answered['abstain_below']:.6g}; the other {answered['coverage']:.0%} of test photos are named{rightly}"
    )


if __name__ == "__main__":
    print(summary(load_params(Path("params.yaml"))))
