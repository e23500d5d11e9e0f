"""The verdict: the sentence that a person reads first, and the figures under it, as they stand in gate.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from regraft.core.config import Promote
from regraft.core.statistics import Interval, wilson
from regraft.production.gate.comparison import PairedComparison, Selection
from regraft.production.gate.rule import MIN_PHOTOS, Decision, photos_needed, promotes_undecided
from regraft.production.new_photos import Evidence

FILE = "gate.json"  # in the folder of the reports
Name = Literal[
    "Promoted", "Promoted with warnings", "Undecided", "Waiting for approval", "Refused", "Already in production"
]
ACCEPT = "`regraft promote --candidate SHA` accepts it."
WAITS = "Waiting for approval (promote.mode: approve). "  # before the gate's own words
_WARNINGS = 3  # that the sentence names; the figures have all


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's decision, and its figures."""

    name: Name  # of the run's state as well
    is_accepted: bool  # whether the new model replaces the one in production
    words: str
    figures: dict[str, Any] = field(default_factory=dict)  # the rest of gate.json


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What else is known of a run, beside the comparison."""

    warnings: Sequence[str]  # of this run, as sentences
    below_floors: Sequence[str]  # floors of `promote.floors` that were not reached, as sentences
    looks: int  # models that were judged on these test photos before
    test_share: float  # of today's photos
    parts: dict[str, Any] = field(default_factory=dict)  # the comparison by class, and by the values of each slice

    def figures(self) -> dict[str, Any]:
        """Return the figures for gate.json."""
        return {
            "warnings": list(self.warnings),
            "below_floors": list(self.below_floors),
            "looks_before": self.looks,
            "parts": self.parts,
        }


def refuse(reason: str) -> Verdict:
    """Refuse a model without a comparison; production stays."""
    return Verdict("Refused", False, f"Refused: {reason}")


def refuse_damaged(problem: str) -> Verdict:
    """Refuse a challenger because it cannot be compared with the champion."""
    return refuse(
        f"the new model cannot be compared with the one in production. {problem} `regraft promote --rollback` puts the "
        f"last sound model back, and `regraft promote` compares again then. `regraft promote --force REASON` puts the "
        f"new model into production without a comparison."
    )


def refuse_rolled_back(rolled_back: str) -> Verdict:
    """Refuse a challenger that a person rolled back from."""
    return refuse(
        f"a person decided against this very model. {rolled_back} The model in production stays. Other photos or "
        f"settings give another model; `regraft promote --force REASON` puts this one back into production."
    )


def refuse_vanished(classes: Sequence[str]) -> Verdict:
    """Refuse a challenger that was trained without classes that services are used to."""
    return refuse(
        f"today's photos lack {len(classes)} class(es) that the model in production knows: "
        f"{', '.join(map(repr, classes[:10]))}. A folder that is not mounted looks like this. The model in production "
        f"stays. Bring the photos back, or name the classes in promote.retired_classes of params.yaml."
    )


def wait_after_rollback(verdict: Verdict, since: str, challenger: str) -> Verdict:
    """Leave to a person whatever but a refusal, after the rollback that `since` describes."""
    if verdict.name == "Refused":
        return verdict
    waits = (
        f"{since} No person has promoted a model since, so the next one waits for a person: `regraft promote "
        f"--candidate {challenger[:12]}` promotes this one, and from then on the gate decides again."
    )
    figures = {**verdict.figures, "reasons": [waits, *verdict.figures.get("reasons", ())], "after_rollback": True}
    words = verdict.words.removeprefix(WAITS)
    name, before = ("Waiting for approval", WAITS) if words != verdict.words else ("Undecided", "Undecided: ")
    return Verdict(name, False, f"{before}{waits} The gate says {words.removeprefix('The gate says ')}", figures)


def first_model(accuracy: Interval, images: int, settings: Promote, around: Circumstances) -> Verdict:
    """Judge a model where none is in production: only the floors can refuse it."""
    outlook = outlook_of(images, settings, around.test_share)
    figures = {"challenger": _accuracy(accuracy, images), "champion": None, "outlook": outlook, **around.figures()}
    reason = f"first model in production: accuracy {accuracy} on {images} test photos"
    return _verdict(Decision("Promoted", (reason,)), outlook, settings, around, figures)


def outlook_of(n: int, settings: Promote, test_share: float) -> str:
    """Return as sentences from how many photos on models can be shown to be harmless, and what happens below.

    Args:
        n: photos that are compared.
        settings: section `promote` of params.yaml.
        test_share: share of today's photos that are in test.
    """
    needed = photos_needed(settings)
    if n >= needed:
        return f"{n:,} test photos are enough to show that an equal model is harmless; that takes {needed:,}."
    total = f" (some {round(needed / test_share, -1):,.0f} photos in all)" if test_share else ""
    words = f"From {needed:,} compared test photos on{total} the gate can show that an equal model is harmless."
    if n < MIN_PHOTOS:
        return f"{words} Below {MIN_PHOTOS} a person decides. {ACCEPT}"
    if settings.mode == "approve":
        return f"{words} In any case a person approves (promote.mode: approve)."
    below = {
        "auto": "a new model goes in unless it looks worse (docs/gate.md says how often that errs)",
        "promote": "a new model goes in unless harm is shown or a large loss is seen",
        "keep": "production stays unless a new model is clearly better",
    }
    return f"{words} Below that {below[settings.when_undecided]}: promote.when_undecided is {settings.when_undecided}."


def conclude(
    decision: Decision,
    champion: PairedComparison,
    anchors: Mapping[str, PairedComparison],
    selection: Selection,
    settings: Promote,
    around: Circumstances,
) -> Verdict:
    """Put a decision into words, and say what becomes of the new model.

    Args:
        decision: of the rule.
        champion: the comparison with the model in production.
        anchors: those with the anchor and the first model of all, by their SHA-256.
        selection: the photos that were compared.
        settings: section `promote` of params.yaml.
        around: the other circumstances.
    """
    figures = {
        "reasons": list(decision.reasons),
        "challenger": _accuracy(wilson(int(champion.newer.sum()), champion.n), champion.n),
        "champion": _accuracy(wilson(int(champion.older.sum()), champion.n), champion.n),
        "anchors": {digest: anchor.figures() for digest, anchor in anchors.items()},
        "outlook": outlook_of(champion.n, settings, around.test_share),
        "comparison": champion.figures() | {"p_not_worse": champion.p_not_worse(settings.margin)},
        "left_out": {
            "seen_by_production": selection.seen,
            "near_duplicates": selection.near_duplicates,
            "other_classes": selection.other_classes,
        },
        "relabelled": len(selection.old_labels),
        **around.figures(),
    }
    return _verdict(decision, _compared(champion, around.looks), settings, around, figures)


def with_evidence(verdict: Verdict, evidence: Evidence) -> Verdict:
    """Add what new photos show about production; after an alarm nothing is promoted without a person."""
    verdict = replace(verdict, figures={**verdict.figures, "new_photos": evidence.figures()})
    if not evidence.is_alarm:
        return verdict
    if verdict.is_accepted and verdict.name != "Already in production":
        reasons = "; ".join(verdict.figures.get("reasons", ()))
        words = f"Undecided: {evidence.words} So a person decides. {ACCEPT} Else it would be in production: {reasons}."
        return replace(verdict, name="Undecided", is_accepted=False, words=words)
    return replace(verdict, words=f"{verdict.words} {evidence.words}")


def of_sample(verdict: Verdict, photos: int, of_images: int) -> Verdict:
    """Say of how many test photos those are a sample that models were compared on; nothing where they are all."""
    if photos == of_images or "challenger" not in verdict.figures:
        return verdict
    words = f"{verdict.words} The test photos are a sample of {of_images:,}."
    return replace(verdict, words=words, figures={**verdict.figures, "of_images": of_images})


def _verdict(
    decision: Decision, compared: str, settings: Promote, around: Circumstances, figures: dict[str, Any]
) -> Verdict:
    if around.below_floors:
        decision = Decision("Refused", (*around.below_floors, *decision.reasons))
    reasons, listed = "; ".join(decision.reasons), ""
    if around.warnings:
        more = f" And {len(around.warnings) - _WARNINGS} more." if len(around.warnings) > _WARNINGS else ""
        listed = f" Warnings of this run: {' '.join(around.warnings[:_WARNINGS])}{more}"
    words = f"{decision.name}: {reasons}. {compared}".rstrip()
    if decision.name == "Refused":
        return Verdict("Refused", False, f"{words} Production stays.{listed}", figures)
    if settings.mode == "approve":
        return Verdict("Waiting for approval", False, f"{WAITS}The gate says {words}{listed}", figures)
    if decision.name == "Promoted":
        name: Name = "Promoted with warnings" if around.warnings else "Promoted"
        return Verdict(name, True, f"{name}{words.removeprefix(decision.name)}{listed}", figures)
    if promotes_undecided(decision, settings):
        return Verdict("Undecided", True, f"{words} Promoted all the same (promote.when_undecided).{listed}", figures)
    why = "" if decision.asks_for_a_person else f" (promote.when_undecided: {settings.when_undecided})"
    return Verdict("Undecided", False, f"{words} Production stays{why}.{listed}", figures)


def _compared(comparison: PairedComparison, looks: int) -> str:
    if not comparison.n:
        return "No photo is left to compare on."
    d = comparison.interval
    before = f"judged {looks} other model(s) before" if looks else "judged no other model before"
    return (
        f"On {comparison.n} test photos {comparison.c} are right only with the new model and {comparison.b} only with "
        f"the one in production: {100 * d.value:+.1f} points (95 % interval {100 * d.low:+.1f} to "
        f"{100 * d.high:+.1f}). They show a loss from about {100 * comparison.smallest_loss_shown:.1f} points on, "
        f"and {before}."
    )


def _accuracy(found: Interval, images: int) -> dict[str, float]:
    return {"images": images, "accuracy": found.value, "accuracy_low": found.low, "accuracy_high": found.high}
