"""The gate's verdict with its figures: reports/gate.json as a person reads it."""

from typing import Any

from regraft.core.errors import Damaged
from regraft.core.files import read_json, sha256_of
from regraft.production.gate.verdict import FILE
from regraft.reports.page import Block, Heading, Items, Page, Table
from regraft.reports.sources import Sources

_PARTS = 20  # of classes, or of the values of a slice, the largest losses first
NOT_ASKED = "The gate was not asked about this model."
NEEDED = ("about", "name", "is_accepted", "words")
_COMPARED = (
    "against",
    "photos n",
    "only that one right b",
    "only the new one right c",
    "difference d",
    "95 % interval",
    "p worse",
    "log loss",
    "shows a loss from",
)


def read_gate(sources: Sources) -> dict[str, Any] | None:
    """Return the gate's verdict on this very model and these very photos; None if there is none, or a damaged one."""
    try:
        gate = read_json(sources.reports / FILE, *NEEDED)
        asked = {"model": sha256_of(sources.onnx), "dataset": sha256_of(sources.dataset_file)}
    except (FileNotFoundError, Damaged):
        return None
    about = gate["about"] if isinstance(gate["about"], dict) else {}
    return gate if all(about.get(name) == digest for name, digest in asked.items()) else None


def gate_page(sources: Sources) -> Page:
    """Return the page."""
    gate = read_gate(sources)
    return Page("gate", "Gate", [NOT_ASKED] if gate is None else _blocks(gate))


def _blocks(gate: dict[str, Any]) -> list[Block]:
    blocks: list[Block] = [gate["words"]]
    if outlook := gate.get("outlook"):
        blocks.append(outlook)
    models = {"the model in production": gate.get("comparison")}
    models |= {f"the anchor {digest[:12]}": found for digest, found in (gate.get("anchors") or {}).items()}
    if rows := [_compared(which, found) for which, found in models.items() if found and found["n"]]:
        blocks += [Heading("The comparison"), Table(_COMPARED, rows)]
    for name, parts in (gate.get("parts") or {}).items():
        rows = [
            [each["part"], each["n"], each["b"], each["c"], _points(each["d"]), f"{each['p_worse']:.2g}"]
            for each in parts[:_PARTS]
        ]
        header = [name, "photos", "only that one right", "only the new one right", "difference", "p worse, after Holm"]
        blocks += [Heading(f"By {name}"), Table(header, rows)]
    if gate.get("left_out"):
        blocks += [Heading("Photos that were not compared"), Table(["why", "photos"], _left_out(gate))]
    if warnings := gate.get("warnings"):
        blocks += [Heading("Warnings of this run"), Items(warnings)]
    if new := gate.get("new_photos"):
        e_value = "over any number" if new["e_value"] is None else f"{new['e_value']:.3g}"
        header = ["new photos", "only the anchor is right", "only what was in production is", "e-value, 20 alarms"]
        row = [new["photos"], new["b"], new["c"], e_value]
        blocks += [Heading("New photos judge the model in production"), Table(header, [row])]
    return blocks


def _compared(which: str, found: dict[str, Any]) -> list[object]:
    change = found["log_loss_change"]
    return [
        which,
        found["n"],
        found["b"],
        found["c"],
        _points(found["d"]),
        f"{100 * found['d_low']:+.1f} to {100 * found['d_high']:+.1f}",
        f"{found['p_worse']:.2g}",
        "-" if change is None else f"{change:+.3f}",
        f"{100 * found['smallest_loss_shown']:.1f} points",
    ]


def _points(share: float) -> str:
    return f"{100 * share:+.1f} points"


def _left_out(gate: dict[str, Any]) -> list[list[object]]:
    left_out = gate["left_out"]
    others = ", ".join(f"{name} ({count})" for name, count in left_out["other_classes"].items())
    return [
        ["the model in production, or a near-duplicate, saw them in training or val", left_out["seen_by_production"]],
        ["near-duplicates of one that was compared", left_out["near_duplicates"]],
        [f"classes that not both models know: {others or 'none'}", sum(left_out["other_classes"].values())],
        ["compared, and their labels changed since production's record", gate["relabelled"]],
        ["models that these test photos judged before", gate["looks_before"]],
    ]
