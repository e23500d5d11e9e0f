"""The rule: three answers to what the test photos say of a new model.

    Refused     harm is shown: by an exact test of accuracy, against the model in production or the anchor; of a class;
                of log loss
    Promoted    no harm is shown, and a loss of `promote.margin` is excluded
    Undecided   neither

A rule of two answers, "not worse by more than a margin", refuses half of all nights by chance and keeps the luckiest
model. How often this one errs: `python -m benchmarks.gate`, docs/gate.md.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from regraft.config import Promote
from regraft.production.gate.comparison import Contest

Name = Literal["Promoted", "Undecided", "Refused"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What the rule says of a contest, and why."""

    name: Name
    reasons: tuple[str, ...]  # sentences, the weightiest first
    asks_for_a_person: bool = False  # an undecided model is not promoted, whatever `promote.when_undecided` says


@dataclass(frozen=True, slots=True)
class _Side:
    """A model that the new one is judged against, and the levels of the two tests."""

    contest: Contest
    which: str
    alpha_harm: float
    alpha_margin: float


def decide(champion: Contest, anchor: Contest | None, settings: Promote, *, was_chosen: bool = False) -> Decision:
    """Judge a new model.

    A model that the gate itself let in was chosen on these very photos: it is luckier on them than it is good, and its
    equals look worse than it is. So against it harm takes stronger evidence (`promote.alpha_harm_chosen`; what is shown
    at `promote.alpha` only keeps production and asks for a person), and a loss of the margin less evidence to be
    excluded (`promote.alpha_margin_chosen`). In return both tests are also made against the anchor, which was not
    chosen on these photos, at `promote.alpha`.

    Args:
        champion: the model in production against the new one.
        anchor: the last model that a person approved against the new one, since small losses night after night add up;
            None where that is the one in production, or where the two cannot be compared.
        settings: margin, levels and limits.
        was_chosen: whether no person approved the model in production, but the gate let it in.
    """
    if champion.n < settings.min_photos:
        return Decision(
            "Undecided",
            (f"{champion.n} photos can be compared, and promote.min_photos asks for {settings.min_photos}",),
            asks_for_a_person=True,
        )
    sides = _sides(champion, anchor, settings, was_chosen=was_chosen)
    in_production = sides[0]
    harms = [harm for side in sides for harm in _loss_shown(side, side.alpha_harm)]
    harms += _other_harms(in_production, settings, in_production.alpha_harm)
    if harms:
        return Decision("Refused", tuple(harms))
    doubts = _loss_shown(in_production, settings.alpha) + _other_harms(in_production, settings, settings.alpha)
    doubts += [loss for side in sides for loss in _loss_seen(side, settings)]
    if doubts:
        return Decision("Undecided", tuple(doubts), asks_for_a_person=True)
    tests = [(side, side.contest.p_not_worse(settings.margin)) for side in sides]
    figures = ", ".join(f"p = {p:.2g} against {side.which}" for side, p in tests)
    if all(p <= side.alpha_margin for side, p in tests):
        return Decision("Promoted", (f"a loss of {_points(settings.margin)} or more is excluded (Tango: {figures})",))
    return Decision(
        "Undecided", (f"a loss of {_points(settings.margin)} is neither shown nor excluded (Tango: {figures})",)
    )


def _sides(champion: Contest, anchor: Contest | None, settings: Promote, *, was_chosen: bool) -> list[_Side]:
    if anchor is None or anchor.n < settings.min_photos:
        alpha_harm = settings.alpha_harm_chosen if was_chosen else settings.alpha
        return [_Side(champion, "the model in production", alpha_harm, settings.alpha)]
    alphas = (settings.alpha_harm_chosen, settings.alpha_margin_chosen) if was_chosen else (settings.alpha,) * 2
    return [
        _Side(champion, "the model in production", *alphas),
        _Side(
            anchor,
            "the anchor (the last model that a person approved, or the first one)",
            settings.alpha,
            settings.alpha,
        ),
    ]


def both_ways(by_new: Decision, by_old: Decision, changed: int, n: int, settings: Promote) -> Decision:
    """Judge by the labels of today and by those of production's record, where the two differ.

    Whoever is right, a test set that moved along with the new model must not promote it; and labels that a person
    corrected must not make it red.

    Args:
        by_new: the decision by the labels of today.
        by_old: that by the labels of production's record.
        changed: compared photos whose label changed.
        n: compared photos.
        settings: for `promote.max_relabelled`.
    """
    if by_new.name == "Refused":
        return by_new
    if changed > settings.max_relabelled * n:
        said = (
            f"the labels of {changed} of {n} compared photos changed since the model in production was trained, more "
            f"than promote.max_relabelled, {settings.max_relabelled:.1%}: a person decides which are right"
        )
        return Decision("Undecided", (said, *by_new.reasons), asks_for_a_person=True)
    if by_old.name == "Refused" or by_old.asks_for_a_person:
        said = f"by the old labels of {changed} photos that have another one now, {by_old.reasons[0]}"
        return Decision("Undecided", (said, *by_new.reasons), asks_for_a_person=True)
    return by_old if by_old.name == "Undecided" else by_new


def ask_if_replaced(decision: Decision, replaced: str) -> Decision:
    """Leave it to a person where so many photos were replaced that nobody knows which labels changed.

    Args:
        decision: of the rule.
        replaced: what happened, as a sentence; empty where nothing did.
    """
    if not replaced or decision.name == "Refused":
        return decision
    return Decision("Undecided", (replaced, *decision.reasons), asks_for_a_person=True)


def promotes_undecided(decision: Decision, n: int, settings: Promote) -> bool:
    """Whether an undecided model is promoted all the same, after n photos were compared."""
    is_trusted = settings.when_undecided == "auto" and n >= settings.trusted_photos
    return not decision.asks_for_a_person and (settings.when_undecided == "promote" or is_trusted)


def _loss_shown(side: _Side, level: float) -> list[str]:
    p = side.contest.p_worse()
    if p > level:
        return []
    return [
        f"it is worse than {side.which}: {side.contest.b} photos are right only with that one, {side.contest.c} only "
        f"with the new one (exact McNemar: p = {p:.2g})"
    ]


def _loss_seen(side: _Side, settings: Promote) -> list[str]:
    """A large loss of accuracy that may be chance: nobody should find it in production in the morning."""
    # Rounded: a loss of exactly the limit, as counted, counts.
    if round(side.contest.d + settings.max_loss, 9) > 0:
        return []
    return [
        f"it lost {_points(-side.contest.d)} against {side.which}, which may be chance (exact McNemar: p = "
        f"{side.contest.p_worse():.2g}), and from promote.max_loss, {_points(settings.max_loss)}, on a person decides"
    ]


def _other_harms(side: _Side, settings: Promote, level: float) -> list[str]:
    """What is shown at this level of a class, or of log loss."""
    return _classes_lost(side.contest, settings, level) + _log_loss_worse(side.contest, level)


def _classes_lost(contest: Contest, settings: Promote, level: float) -> list[str]:
    classes = contest.by_class()
    is_lost = (classes.p_worse <= level) & (np.round(classes.change + settings.max_class_loss, 9) <= 0)
    lost = np.flatnonzero(is_lost)
    return [
        f"recall of '{classes.names[each]}' fell by {_points(-float(classes.change[each]))} on its "
        f"{classes.images[each]} photos (exact McNemar after Holm: p = {classes.p_worse[each]:.2g})"
        for each in lost[np.argsort(classes.change[lost], kind="stable")].tolist()
    ]


def _log_loss_worse(contest: Contest, level: float) -> list[str]:
    change = contest.log_loss(1 - level)
    if change.low <= 0:
        return []
    interval = f"{1 - level:.4g} interval {change.low:.3f} to {change.high:.3f}"
    return [f"its log loss is higher by {change.value:.3f} ({interval})"]


def _points(share: float) -> str:
    return f"{100 * share:.3g} points"
