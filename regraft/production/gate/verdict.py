"""What the gate says: the sentence that a person reads first, and the figures under it, as they stand in gate.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from regraft.core.config import Promote
from regraft.core.statistics import Interval, wilson
from regraft.production.gate.comparison import Contest, Selection
from regraft.production.gate.rule import Decision, photos_needed, promotes_undecided
from regraft.production.new_photos import Evidence

FILE = "gate.json"  # in the folder of the reports
Name = Literal[
    "Promoted", "Promoted with warnings", "Undecided", "Waiting for approval", "Refused", "Already in production"
]
ACCEPT = "`regraft promote --candidate SHA` accepts it."
WAITS = "Waiting for approval (promote.mode: approve). "  # before what the gate says
_WARNINGS = 3  # that the sentence names; the figures have all


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate decided, and the figures that it decided on."""

    name: Name  # of the run's state as well
    is_accepted: bool  # whether the new model takes the place of the one in production
    words: str
    figures: dict[str, Any] = field(default_factory=dict)  # the rest of gate.json


@dataclass(frozen=True, slots=True)
class Around:
    """What else is known in a night, beside the contest."""

    warnings: Sequence[str]  # of this run, as sentences
    below_floors: Sequence[str]  # what of `promote.floors` was not reached, as sentences
    looks: int  # models that were judged on these test photos before
    test_share: float  # of today's photos
    parts: dict[str, Any] = field(default_factory=dict)  # the contest class by class, and by the values of each slice


def refuse(reason: str) -> Verdict:
    """Refuse a model for a reason that is no matter of comparison; production stays."""
    return Verdict("Refused", False, f"Refused: {reason}")


def refuse_damaged(problem: str) -> Verdict:
    """Refuse a challenger because nobody can tell whether it is worse than the champion."""
    return refuse(
        f"the new model cannot be compared with the one in production. {problem} `regraft promote --rollback` puts the "
        f"last sound model back, and `regraft promote` compares again then. `regraft promote --force REASON` puts the "
        f"new model into production without a comparison."
    )


def refuse_rolled_back(rolled_back: str) -> Verdict:
    """Refuse a challenger that was in production already, until somebody decided against it."""
    return refuse(
        f"a person decided against this very model. {rolled_back} The model in production stays. Other photos or "
        f"settings give another model; `regraft promote --force REASON` puts this one back into production."
    )


def wait_after_rollback(verdict: Verdict, since: str, challenger: str) -> Verdict:
    """Leave to a person what the gate would do by itself, after a rollback.

    Args:
        verdict: of the gate; a refusal stays one.
        since: what happened, as a sentence.
        challenger: SHA-256 of the new model.
    """
    if verdict.name == "Refused":
        return verdict
    waits = (
        f"{since} No person has promoted a model since, so the next one waits for a person: `regraft promote "
        f"--candidate {challenger[:12]}` lets this one in, and from then on the gate decides again."
    )
    figures = {**verdict.figures, "reasons": [waits, *verdict.figures.get("reasons", ())], "after_rollback": True}
    said = verdict.words.removeprefix(WAITS)
    name, before = ("Waiting for approval", WAITS) if said != verdict.words else ("Undecided", "Undecided: ")
    gate = "" if said.startswith("The gate says ") else "The gate says "
    return Verdict(name, False, f"{before}{waits} {gate}{said}", figures)


def refuse_vanished(classes: Sequence[str]) -> Verdict:
    """Refuse a challenger that was trained without classes that services are used to."""
    names = ", ".join(f"'{name}'" for name in classes[:10])
    return refuse(
        f"today's photos lack {len(classes)} class(es) that the model in production knows: {names}. A folder that is "
        f"not mounted looks like this. The model in production stays. Bring the photos back, or name the classes in "
        f"promote.given_up of params.yaml if they are given up for good."
    )


def first_model(accuracy: Interval, images: int, settings: Promote, around: Around) -> Verdict:
    """Judge a model where none is in production: only the floors can speak against it.

    Its accuracy has the interval of `share_right`, as in reports/metrics.json: with near-duplicates among the photos
    it is wider than that of as many independent ones.
    """
    outlook = outlook_of(images, settings, around.test_share)
    figures = {"challenger": _accuracy(accuracy, images), "champion": None, "outlook": outlook}
    figures |= _figures_around(around)
    if around.below_floors:
        words = f"Refused: {'; '.join(around.below_floors)}. No model is in production."
        return Verdict("Refused", False, words, figures)
    said = f"first model in production: accuracy {accuracy} on {images} test photos"
    return _accepted(Decision("Promoted", (said,)), outlook, settings, around, figures)


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
    said = f"From {needed:,} compared test photos on{total} the gate can show that an equal model is harmless."
    if n < settings.min_photos:
        return f"{said} Below promote.min_photos ({settings.min_photos}) a person decides. {ACCEPT}"
    if settings.mode == "approve":
        return f"{said} Whatever it says, a person approves (promote.mode: approve)."
    below = {
        "auto": "a new model goes in unless it looks worse (docs/gate.md says how often that errs)",
        "promote": "a new model goes in unless harm is shown or a large loss is seen",
        "keep": "production stays unless a new model is clearly better",
    }
    return f"{said} Below that {below[settings.when_undecided]}: promote.when_undecided is {settings.when_undecided}."


def conclude(
    decision: Decision,
    champion: Contest,
    anchors: Mapping[str, Contest],
    selection: Selection,
    settings: Promote,
    around: Around,
) -> Verdict:
    """Put a decision into words, and say what becomes of the new model.

    Args:
        decision: of the rule.
        champion: the contest with the model in production.
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
        **_figures_around(around),
    }
    compared = _compared(champion, around)
    if around.below_floors:
        decision = Decision("Refused", (*around.below_floors, *decision.reasons))
    reasons = "; ".join(decision.reasons)
    if decision.name == "Refused":
        return Verdict("Refused", False, f"Refused: {reasons}. {compared} Production stays.{_listed(around)}", figures)
    if decision.name == "Promoted" or promotes_undecided(decision, settings):
        return _accepted(decision, compared, settings, around, figures)
    if settings.mode == "approve":
        return _waiting(decision, compared, around, figures)
    why = "" if decision.asks_for_a_person else f" (promote.when_undecided: {settings.when_undecided})"
    words = f"Undecided: {reasons}. {compared} Production stays{why}.{_listed(around)}"
    return Verdict("Undecided", False, words, figures)


def with_evidence(verdict: Verdict, evidence: Evidence) -> Verdict:
    """Add what new photos say of production; after an alarm nothing is promoted by itself."""
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


def _accepted(decision: Decision, compared: str, settings: Promote, around: Around, figures: dict[str, Any]) -> Verdict:
    if settings.mode == "approve":
        return _waiting(decision, compared, around, figures)
    reasons = "; ".join(decision.reasons)
    if decision.name == "Undecided":
        words = f"Undecided: {reasons}. {compared} Promoted all the same (promote.when_undecided)."
        return Verdict("Undecided", True, words + _listed(around), figures)
    name: Name = "Promoted with warnings" if around.warnings else "Promoted"
    return Verdict(name, True, f"{name}: {reasons}. {compared}".strip() + _listed(around), figures)


def _waiting(decision: Decision, compared: str, around: Around, figures: dict[str, Any]) -> Verdict:
    reasons = "; ".join(decision.reasons)
    said = f"{WAITS}The gate says {decision.name}: {reasons}. {compared}"
    return Verdict("Waiting for approval", False, said.strip() + _listed(around), figures)


def _compared(contest: Contest, around: Around) -> str:
    if not contest.n:
        return "No photo is left to compare on."
    d = contest.interval
    before = f"judged {around.looks} other model(s) before" if around.looks else "judged no other model before"
    return (
        f"On {contest.n} test photos {contest.c} are right only with the new model and {contest.b} only with the one "
        f"in production: {100 * d.value:+.1f} points (95 % interval {100 * d.low:+.1f} to {100 * d.high:+.1f}). They "
        f"show a loss from about {100 * contest.smallest_loss_shown:.1f} points on, and {before}."
    )


def _listed(around: Around) -> str:
    if not around.warnings:
        return ""
    more = f" And {len(around.warnings) - _WARNINGS} more." if len(around.warnings) > _WARNINGS else ""
    return f" Warnings of this run: {' '.join(around.warnings[:_WARNINGS])}{more}"


def _figures_around(around: Around) -> dict[str, Any]:
    return {
        "warnings": list(around.warnings),
        "below_floors": list(around.below_floors),
        "looks_before": around.looks,
        "parts": around.parts,
    }


def _accuracy(found: Interval, images: int) -> dict[str, float]:
    return {"images": images, "accuracy": found.value, "accuracy_low": found.low, "accuracy_high": found.high}
