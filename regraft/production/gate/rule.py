"""The rule: three answers to what the test photos say of a new model.

    Refused     harm is shown: by an exact test of accuracy, against the model in production or an anchor; of a class;
                of log loss
    Promoted    no harm is shown, and a loss of `promote.margin` is excluded
    Undecided   neither; unless a person is asked, `promote.when_undecided` says what becomes of the model

A rule of two answers, "not worse by more than a margin", refuses half of all nights by chance and keeps the luckiest
model. How often this one errs: `python -m benchmarks.gate`, docs/gate.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from regraft.core.config import Promote
from regraft.core.statistics import exact_mcnemar
from regraft.production.gate.comparison import Contest

# The least harm to log loss that counts, in nats, and as a share of the older model's: below it a test set that is
# large enough would show differences that nobody feels.
_LEAST_NATS, _LEAST_SHARE = 0.01, 0.03
_FEW = 2  # photos: so many may be lost by chance in a small test set, whatever share of it they are
_RECENT = 7  # new models, today's among them, whose mean is held against an anchor

Name = Literal["Promoted", "Undecided", "Refused"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What the rule says of a contest, and why."""

    name: Name
    reasons: tuple[str, ...]  # sentences, the weightiest first
    asks_for_a_person: bool = False  # an undecided model is not promoted, whatever `promote.when_undecided` says
    may_follow: bool = True  # an undecided model is promoted where `promote.when_undecided` is auto


@dataclass(frozen=True, slots=True)
class _Side:
    """A model that the new one is judged against, and the levels of the two tests."""

    contest: Contest
    which: str
    alpha_harm: float
    alpha_margin: float


def decide(champion: Contest, anchors: Sequence[Contest], settings: Promote) -> Decision:
    """Judge a new model.

    A model that was let in because of how it did on these very photos is luckier on them than it is good, and its
    equals look worse than it is (`Contest.was_chosen`). So against it harm takes stronger evidence
    (`promote.alpha_harm_chosen`; what is shown at `promote.alpha` only keeps production and asks for a person), and,
    where there is an anchor besides, a loss of the margin less evidence to be excluded (`promote.alpha_margin_chosen`).
    In return both tests are also made against the anchors, since small losses night after night add up.

    An undecided model may be followed unless the newest models, this one among them, are on average worse than an
    anchor by the margin: whichever of them goes in, the mean of all was not chosen.

    Args:
        champion: the model in production against the new one.
        anchors: the anchor and the first model of all against the new one, as far as they are other models than that
            in production and can be compared.
        settings: margin, levels and limits.
    """
    if champion.n < settings.min_photos:
        return Decision(
            "Undecided",
            (f"{champion.n} photos can be compared, and promote.min_photos asks for {settings.min_photos}",),
            asks_for_a_person=True,
        )
    sides = _sides(champion, anchors, settings)
    in_production = sides[0]
    harms = [harm for side in sides for harm in _loss_shown(side, side.alpha_harm)]
    harms += _classes_lost(champion, settings, in_production.alpha_harm)
    is_better = float(exact_mcnemar(champion.b, champion.c)) <= settings.alpha
    harms += [] if is_better else _log_loss_worse(champion, in_production.alpha_harm)
    if harms:
        return Decision("Refused", tuple(harms))
    doubts = _loss_shown(in_production, settings.alpha) + _classes_lost(champion, settings, settings.alpha)
    doubts += _log_loss_worse(champion, settings.alpha)
    doubts += [loss for side in sides for loss in _loss_seen(side, settings)]
    if doubts:
        return Decision("Undecided", tuple(doubts), asks_for_a_person=True)
    tests = [(side, side.contest.p_not_worse(settings.margin)) for side in sides]
    figures = ", ".join(f"p = {p:.2g} against {side.which}" for side, p in tests)
    if all(p <= side.alpha_margin for side, p in tests):
        return Decision("Promoted", (f"a loss of {_points(settings.margin)} or more is excluded (Tango: {figures})",))
    said = f"a loss of {_points(settings.margin)} is neither shown nor excluded (Tango: {figures})"
    behind = [loss for side in sides for loss in _recent_loss(side, settings)]
    return Decision("Undecided", (*behind, said), may_follow=not behind)


def photos_needed(settings: Promote) -> int:
    """Return from how many compared photos on a model that answers all of them as production does is Promoted.

    Of b = c = 0 Tango's z is sqrt(n margin / (1 - margin)).
    """
    from scipy.special import ndtri

    return max(settings.min_photos, math.ceil(ndtri(settings.alpha) ** 2 * (1 - settings.margin) / settings.margin))


def _sides(champion: Contest, anchors: Sequence[Contest], settings: Promote) -> list[_Side]:
    heard = [anchor for anchor in anchors if anchor.n >= settings.min_photos]
    alpha_margin = settings.alpha_margin_chosen if champion.was_chosen and heard else settings.alpha
    which = "the anchor (the model that a person named last, or the first one)"
    return [
        _Side(champion, "the model in production", _alpha_harm(champion, settings), alpha_margin),
        *(_Side(anchor, which, _alpha_harm(anchor, settings), settings.alpha) for anchor in heard),
    ]


def _alpha_harm(contest: Contest, settings: Promote) -> float:
    return settings.alpha_harm_chosen if contest.was_chosen else settings.alpha


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


def promotes_undecided(decision: Decision, settings: Promote) -> bool:
    """Whether an undecided model is promoted all the same."""
    is_followed = settings.when_undecided == "auto" and decision.may_follow
    return not decision.asks_for_a_person and (settings.when_undecided == "promote" or is_followed)


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
    if round(side.contest.d + settings.max_loss, 9) > 0 or side.contest.b - side.contest.c <= _FEW:
        return []
    return [
        f"it lost {_points(-side.contest.d)} against {side.which}, which may be chance (exact McNemar: p = "
        f"{side.contest.p_worse():.2g}), and from promote.max_loss, {_points(settings.max_loss)}, on a person decides"
    ]


def _recent_loss(side: _Side, settings: Promote) -> list[str]:
    """What the newest models lost on average against an anchor: the one that goes in is lucky, their mean is not."""
    if side.contest.recent is None:
        return []
    changes = (*side.contest.recent, side.contest.d)[-_RECENT:]
    mean = sum(changes) / len(changes)
    if round(mean + settings.margin, 9) > 0:
        return []
    which = f"it lost {_points(-mean)}"
    if len(changes) > 1:
        which = f"the {len(changes)} newest models lost {_points(-mean)} on average"
    return [f"{which} against {side.which}, the margin is {_points(settings.margin)}"]


def _classes_lost(contest: Contest, settings: Promote, level: float) -> list[str]:
    classes = contest.by_class
    is_lost = (classes.p_worse <= level) & (np.round(classes.change + settings.max_class_loss, 9) <= 0)
    lost = np.flatnonzero(is_lost)
    return [
        f"recall of '{classes.names[each]}' fell by {_points(-float(classes.change[each]))} on its "
        f"{classes.images[each]} photos (exact McNemar after Holm: p = {classes.p_worse[each]:.2g})"
        for each in lost[np.argsort(classes.change[lost], kind="stable")].tolist()
    ]


def _log_loss_worse(contest: Contest, level: float) -> list[str]:
    change = contest.log_loss(1 - level)
    if change.low <= 0 or change.value < max(_LEAST_NATS, _LEAST_SHARE * contest.older_loss):
        return []
    interval = f"{1 - level:.4g} interval {change.low:.3f} to {change.high:.3f}"
    return [f"its log loss is higher by {change.value:.3f} ({interval})"]


def _points(share: float) -> str:
    return f"{100 * share:.3g} points"
