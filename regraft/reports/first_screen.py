"""The first screen of report.html: what a person wants to know in ten seconds."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from regraft.core.files import read_json, readable_bytes
from regraft.production.registry import Change, Production
from regraft.reports.evaluation_page import of_all
from regraft.reports.gate_page import read_gate
from regraft.reports.sources import Sources

_READ = ("metrics", "export", "validation", "dataset", "features", "embeddings", "fine_tune")


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the library does not know of a run."""

    written: str  # when the page is written
    data: str  # which version of the photos the results come from
    code: str  # which version of the project wrote the page


class Figure(NamedTuple):
    """A number in large type and the words below it."""

    value: str
    words: str


@dataclass(frozen=True, slots=True)
class Screen:
    """The values of templates/first_screen.html."""

    colour: str  # good | wait | bad
    title: str
    reason: str
    figures: tuple[Figure, ...]
    rows: list[tuple[str, str]]


def first_screen(sources: Sources, circumstances: Circumstances) -> Screen:
    """Return the verdict and its reason, the accuracies, and the inputs of the run."""
    reports = {name: read_json(sources.reports / f"{name}.json") for name in _READ}
    model, production = reports["export"]["sha256"], Production(sources.production)
    gate = read_gate(sources)
    figures = _figure(reports["metrics"]["test"], "This model"), _beside(model, production, gate)
    made_of = [("Data", circumstances.data), ("Code", circumstances.code), ("Written", circumstances.written)]
    return Screen(*_status(model, production, gate), figures, [*_rows(reports, sources), *made_of])


def _status(model: str, production: Production, gate: dict[str, Any] | None) -> tuple[str, str, str]:
    """Return colour, title and reason of the verdict."""
    change, standing = _last_change(production), production.standing()
    if standing.problem:
        return "bad", "Production is damaged", f"{standing.problem} `regraft promote --rollback` repairs it."
    if standing.digest == model:
        since = f" since {_time(change.at)}" if change else ""
        doubt = gate["name"] if gate and gate["name"] in ("Promoted with warnings", "Undecided") else ""
        colour, title = ("wait", f"{doubt}; in production{since}") if doubt else ("good", f"In production{since}")
        return colour, title, change.words if change else ""
    if gate and not gate["is_accepted"]:
        reason = gate["words"].removeprefix(f"{gate['name']}: ")
        return "bad" if gate["name"] == "Refused" else "wait", gate["name"], reason[:1].upper() + reason[1:]
    there = "No model is in production."
    if standing.digest is not None:
        since = f", since {_time(change.at)}: {change.words}" if change else ""
        there = f"Another model is ({standing.digest[:12]}{since})."
    if rolled_back := production.rolled_back(model):
        return "bad", "Kept out", f"{rolled_back} {there} `regraft promote --force REASON` lets this one in again."
    return "wait", "Not in production", f"{there} `regraft promote` asks the gate to let this one in."


def _beside(model: str, production: Production, gate: dict[str, Any] | None) -> Figure:
    """Return the accuracy of the model in production on the same photos, as far as the gate measured it."""
    is_in_production = production.digest == model
    if gate and (champion := gate.get("champion")):
        of_images = {"of_images": gate["of_images"]} if "of_images" in gate else {}
        return _figure(champion | of_images, "The one before it" if is_in_production else "The one in production")
    if is_in_production:
        return Figure("-", "No model was in production before it." if gate else "No other model was compared with it.")
    missing = "No model is in production." if production.digest is None else "The one in production: not compared yet."
    return Figure("-", missing)


def _figure(test: dict[str, Any], whose: str) -> Figure:
    low, high = test["accuracy_low"], test["accuracy_high"]
    photos = f"{test['images']} test photos{of_all(test)}"
    return Figure(f"{test['accuracy']:.1%}", f"{whose}: accuracy on {photos}; 95% interval {low:.1%} to {high:.1%}")


def _rows(reports: dict[str, Any], sources: Sources) -> list[tuple[str, str]]:
    dataset, receipt, export = reports["dataset"], reports["features"], reports["export"]
    splits = dataset["splits"]
    expectations = [*reports["validation"]["expectations"], *reports["embeddings"]["expectations"]]
    missed = [result["expected"] for result in expectations if not result["success"]]
    named = f"; not met: {'; '.join(missed[:3])}" if missed else ""
    return [
        (
            "Photos",
            f"{dataset['images']:,} in {len(dataset['classes'])} classes ({splits['train']} train, "
            f"{splits['val']} val, {splits['test']} test); {reports['validation']['files']['quarantine']} quarantined",
        ),
        (
            "Checks",
            f"{len(expectations) - len(missed)} of {len(expectations)} met{named}{'; ...' if len(missed) > 3 else ''}",
        ),
        # Only the part before the first semicolon: the page below has all of it.
        ("Network", reports["fine_tune"]["reason"].partition(";")[0].rstrip(".") + "."),
        (
            "Cost",
            f"{receipt['computed']} forward passes of the backbone, {receipt['from_store']} of {receipt['rows']} views "
            f"from the store; {receipt['seconds']:.1f} s spent, {receipt['seconds_saved']:.1f} s saved",
        ),
        ("Model", f"{sources.onnx}, {readable_bytes(export['bytes'])}, sha256 {export['sha256'][:12]}"),
    ]


def _last_change(production: Production) -> Change | None:
    history = production.history()
    # The newest line is about the model that is there, unless somebody put another one there by hand.
    return history[-1] if history and history[-1].sha256 == production.digest else None


def _time(at: str) -> str:
    return at[:16].replace("T", " ") + " UTC"
