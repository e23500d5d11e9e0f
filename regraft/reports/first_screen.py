"""The first screen of report.html: what a person wants to know in ten seconds."""

import html
from dataclasses import dataclass
from typing import Any

from regraft.files import read_json, readable_bytes
from regraft.production.registry import Change, Production
from regraft.reports.evaluation_page import of_all
from regraft.reports.gate_page import read_gate
from regraft.reports.sources import Sources


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the library does not know of a run."""

    written: str  # when the page is written
    data: str  # which version of the photos the results come from
    code: str  # which version of the project wrote the page


@dataclass(frozen=True, slots=True)
class _Status:
    colour: str  # good | wait | bad
    title: str
    reason: str


def first_screen(sources: Sources, circumstances: Circumstances) -> str:
    """Return the verdict and why, the accuracies, and what the run was made of, as HTML."""
    reports = {name: read_json(sources.reports / f"{name}.json") for name in _READ}
    model, production = reports["export"]["sha256"], Production(sources.production)
    gate = read_gate(sources)
    status = _status(model, production, gate)
    rows = [*_rows(reports, sources), ("Data", circumstances.data), ("Code", circumstances.code)]
    rows.append(("Written", circumstances.written))
    facts = "\n".join(f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in rows)
    return f"""<div class="verdict {status.colour}"><strong>{html.escape(status.title)}</strong>
<p>{html.escape(status.reason)}</p></div>
<div class="figures">
{_figure(reports["metrics"]["test"], "This model")}
{_beside(model, production, gate)}
</div>
<dl>
{facts}
<dt>Also</dt><dd><a href="validation.html">validation.html</a> shows the photos that validation names</dd>
</dl>"""


_READ = ("metrics", "export", "validation", "dataset", "features", "embeddings", "fine_tune")


def _status(model: str, production: Production, gate: dict[str, Any] | None) -> _Status:
    change, standing = _last_change(production), production.standing()
    if standing.problem:
        return _Status("bad", "Production is damaged", f"{standing.problem} `regraft promote --rollback` repairs it.")
    if standing.digest == model:
        since = f" since {_time(change.at)}" if change else ""
        doubt = gate["name"] if gate and gate["name"] in ("Promoted with warnings", "Undecided") else ""
        colour, title = ("wait", f"{doubt}; in production{since}") if doubt else ("good", f"In production{since}")
        return _Status(colour, title, change.words if change else "")
    if gate and not gate["is_accepted"]:
        reason = gate["words"].removeprefix(f"{gate['name']}: ")
        colour = "bad" if gate["name"] == "Refused" else "wait"
        return _Status(colour, gate["name"], reason[:1].upper() + reason[1:])
    there = "No model is in production." if standing.digest is None else _other(standing.digest, change)
    if rolled_back := production.rolled_back(model):
        return _Status(
            "bad", "Kept out", f"{rolled_back} {there} `regraft promote --force REASON` lets this one in again."
        )
    return _Status("wait", "Not in production", f"{there} `regraft promote` asks the gate to let this one in.")


def _other(digest: str, change: Change | None) -> str:
    return f"Another model is ({digest[:12]}{f', since {_time(change.at)}: {change.words}' if change else ''})."


def _beside(model: str, production: Production, gate: dict[str, Any] | None) -> str:
    """The accuracy of the model in production on the same photos, as far as the gate measured it."""
    if gate and (champion := gate.get("champion")):
        of_images = {"of_images": gate["of_images"]} if "of_images" in gate else {}
        return _figure(
            champion | of_images, "The one before it" if production.digest == model else "The one in production"
        )
    if production.digest == model:
        text = "No model was in production before it." if gate else "No other model was compared with it."
    else:
        text = "No model is in production." if production.digest is None else "The one in production: not compared yet."
    return f'<div class="figure"><b>&ndash;</b><span>{text}</span></div>'


def _figure(test: dict[str, Any], whose: str) -> str:
    low, high = test["accuracy_low"], test["accuracy_high"]
    return (
        f'<div class="figure"><b>{test["accuracy"]:.1%}</b><span>{whose}: accuracy on {test["images"]} test photos'
        f"{of_all(test)}; 95% interval {low:.1%} to {high:.1%}</span></div>"
    )


def _rows(reports: dict[str, Any], sources: Sources) -> list[tuple[str, str]]:
    dataset, receipt, export = reports["dataset"], reports["features"], reports["export"]
    files, splits = reports["validation"]["files"], dataset["splits"]
    expectations = [*reports["validation"]["expectations"], *reports["embeddings"]["expectations"]]
    missed = [result["expected"] for result in expectations if not result["success"]]
    return [
        (
            "Photos",
            f"{dataset['images']:,} in {len(dataset['classes'])} classes ({splits['train']} train, "
            f"{splits['val']} val, {splits['test']} test); {files['quarantine']} quarantined",
        ),
        ("Checks", f"{len(expectations) - len(missed)} of {len(expectations)} met" + _named(missed)),
        ("Network", _first_part(reports["fine_tune"]["reason"])),
        (
            "Cost",
            f"{receipt['computed']} forward passes of the backbone, {receipt['from_store']} of {receipt['rows']} views "
            f"from the store; {receipt['seconds']:.1f} s spent, {receipt['seconds_saved']:.1f} s saved",
        ),
        ("Model", f"{sources.onnx}, {readable_bytes(export['bytes'])}, sha256 {export['sha256'][:12]}"),
    ]


def _first_part(sentence: str) -> str:
    """Return a sentence without what follows its first semicolon; the page below has all of it."""
    return sentence.partition(";")[0].rstrip(".") + "."


def _named(missed: list[str]) -> str:
    if not missed:
        return ""
    return f"; not met: {'; '.join(missed[:3])}" + ("; ..." if len(missed) > 3 else "")


def _last_change(production: Production) -> Change | None:
    history = production.history()
    # The newest line is about the model that is there, unless somebody put another one there by hand.
    return history[-1] if history and history[-1].sha256 == production.digest else None


def _time(at: str) -> str:
    return at[:16].replace("T", " ") + " UTC"
