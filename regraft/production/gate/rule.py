"""The rule: three answers to what the test photos show about a new model.

    Refused     harm is shown: of accuracy (exact test, against production or an anchor), of a class, or of log loss
    Promoted    no harm is shown, and a loss of `promote.margin` is excluded
    Undecided   neither; unless a person has to decide, `promote.when_undecided` does

A rule of two answers, "not worse by more than a margin", refuses half of all nights by chance and keeps the luckiest
model. Error rates: `python -m benchmarks.gate`, docs/gate.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from regraft.core.config import Promote
from regraft.core.statistics import exact_mcnemar
from regraft.production.gate.comparison import PairedComparison

MIN_PHOTOS = 30  # compared photos; with fewer a person decides
# Against a model that the gate itself let in, which was chosen on these photos and is lucky on them: the chance of
# calling an equal one worse, and that of calling one that is worse by the margin no worse.
ALPHA_HARM_CHOSEN, ALPHA_MARGIN_CHOSEN = 0.005, 0.5
MAX_RELABELLED = 0.02  # share of the compared photos whose label changed since production's record
# The least harm to log loss that counts, in nats, and as a share of the older model's: below it a test set that is
# large enough would show differences that nobody notices.
_LEAST_NATS, _LEAST_SHARE = 0.01, 0.03
_FEW = 2  # photos: so many may be lost by chance in a small test set, whatever share of it they are
_RECENT = 7  # new models, today's among them, whose mean is held against an anchor
_ANCHOR = "the anchor (the model that a person named last, or the first one)"

Name = Literal["Promoted", "Undecided", "Refused"]


@dataclass(frozen=True, slots=True)
class Decision:
    """The rule's answer, and why."""

    name: Name
    reasons: tuple[str, ...]  # sentences, the weightiest first
    asks_for_a_person: bool = False  # an undecided model is not promoted, whatever `promote.when_undecided` says
    may_follow: bool = True  # an undecided model is promoted where `promote.when_undecided` is auto


@dataclass(frozen=True, slots=True)
class _Side:
    """A model that the new one is judged against, and the levels of the two tests."""

    compared: PairedComparison
    which: str
    alpha_harm: float
    alpha_margin: float


def decide(champion: PairedComparison, anchors: Sequence[PairedComparison], settings: Promote) -> Decision:
    """Judge a new model.

    A model that was promoted because of its answers to these very photos is luckier on them than it is good, and its
    equals look worse than it is (`PairedComparison.was_chosen`). So against it harm takes stronger evidence
    (`ALPHA_HARM_CHOSEN`; what is shown at `promote.alpha` only keeps production and asks for a person), and, where
    there is an anchor besides, a loss of the margin less evidence to be excluded (`ALPHA_MARGIN_CHOSEN`). In return
    both tests are also made against the anchors, since small losses night after night add up.

    An undecided model may be followed unless the newest models, this one among them, are on average worse than an
    anchor by the margin: whichever of them is promoted, the mean of all was not chosen.

    Args:
        champion: the new model against the one in production.
        anchors: the new model against the anchor and the first model of all, as far as they are other models.
        settings: margin, level and limits.
    """
    if champion.n < MIN_PHOTOS:
        return _ask(f"{champion.n} photos can be compared, and at least {MIN_PHOTOS} are needed")
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
        return _ask(*doubts)
    tests = [(side, side.compared.p_not_worse(settings.margin)) for side in sides]
    figures = ", ".join(f"p = {p:.2g} against {side.which}" for side, p in tests)
    if all(p <= side.alpha_margin for side, p in tests):
        return Decision("Promoted", (f"a loss of {_points(settings.margin)} or more is excluded (Tango: {figures})",))
    unknown = f"a loss of {_points(settings.margin)} is neither shown nor excluded (Tango: {figures})"
    behind = [loss for side in sides for loss in _recent_loss(side, settings)]
    return Decision("Undecided", (*behind, unknown), may_follow=not behind)


def photos_needed(settings: Promote) -> int:
    """Return from how many compared photos on a model with the same answers as production is Promoted.

    For b = c = 0 Tango's z is sqrt(n margin / (1 - margin)).
    """
    from scipy.special import ndtri

    return max(MIN_PHOTOS, math.ceil(ndtri(settings.alpha) ** 2 * (1 - settings.margin) / settings.margin))


def both_ways(by_new: Decision, by_old: Decision, changed: int, n: int) -> Decision:
    """Judge by today's labels and by those of production's record, where the two differ.

    A test set that changed along with the new model must not promote it; and corrected labels must not refuse it.

    Args:
        by_new: the decision by today's labels.
        by_old: that by the labels of production's record.
        changed: compared photos whose label changed.
        n: compared photos.
    """
    if by_new.name == "Refused":
        return by_new
    if changed > MAX_RELABELLED * n:
        why = (
            f"the labels of {changed} of {n} compared photos changed since the model in production was trained, more "
            f"than {MAX_RELABELLED:.0%}: a person decides which are right"
        )
        return _ask(why, *by_new.reasons)
    if by_old.name == "Refused" or by_old.asks_for_a_person:
        why = f"by the old labels of {changed} photos that have another one now, {by_old.reasons[0]}"
        return _ask(why, *by_new.reasons)
    return by_old if by_old.name == "Undecided" else by_new


def ask_if_replaced(decision: Decision, replaced: str) -> Decision:
    """Leave it to a person where so many test photos were replaced, as the sentence says, that labels are unsure."""
    return decision if not replaced or decision.name == "Refused" else _ask(replaced, *decision.reasons)


def promotes_undecided(decision: Decision, settings: Promote) -> bool:
    """Whether an undecided model is promoted all the same."""
    is_followed = settings.when_undecided == "auto" and decision.may_follow
    return not decision.asks_for_a_person and (settings.when_undecided == "promote" or is_followed)


def _ask(*reasons: str) -> Decision:
    return Decision("Undecided", reasons, asks_for_a_person=True)


def _sides(champion: PairedComparison, anchors: Sequence[PairedComparison], settings: Promote) -> list[_Side]:
    large = [anchor for anchor in anchors if anchor.n >= MIN_PHOTOS]
    alpha_margin = ALPHA_MARGIN_CHOSEN if champion.was_chosen and large else settings.alpha
    named = [("the model in production", champion, alpha_margin), *((_ANCHOR, each, settings.alpha) for each in large)]
    return [
        _Side(compared, which, ALPHA_HARM_CHOSEN if compared.was_chosen else settings.alpha, alpha_margin)
        for which, compared, alpha_margin in named
    ]


def _loss_shown(side: _Side, level: float) -> list[str]:
    p = side.compared.p_worse()
    if p > level:
        return []
    return [
        f"it is worse than {side.which}: {side.compared.b} photos are right only with that one, {side.compared.c} only "
        f"with the new one (exact McNemar: p = {p:.2g})"
    ]


def _loss_seen(side: _Side, settings: Promote) -> list[str]:
    """A large loss of accuracy that may be chance: it must not reach production unseen."""
    # Rounded: a loss of exactly the limit, as counted, counts.
    if round(side.compared.d + settings.max_loss, 9) > 0 or side.compared.b - side.compared.c <= _FEW:
        return []
    return [
        f"it lost {_points(-side.compared.d)} against {side.which}, which may be chance (exact McNemar: p = "
        f"{side.compared.p_worse():.2g}), and from promote.max_loss, {_points(settings.max_loss)}, on a person decides"
    ]


def _recent_loss(side: _Side, settings: Promote) -> list[str]:
    """The mean loss of the newest models against an anchor: a promoted one is lucky, their mean is not."""
    if side.compared.recent is None:
        return []
    changes = (*side.compared.recent, side.compared.d)[-_RECENT:]
    mean = sum(changes) / len(changes)
    if round(mean + settings.margin, 9) > 0:
        return []
    loss = f"it lost {_points(-mean)}"
    if len(changes) > 1:
        loss = f"the {len(changes)} newest models lost {_points(-mean)} on average"
    return [f"{loss} against {side.which}, the margin is {_points(settings.margin)}"]


def _classes_lost(compared: PairedComparison, settings: Promote, level: float) -> list[str]:
    classes = compared.by_class
    is_lost = (classes.p_worse <= level) & (np.round(classes.change + settings.max_class_loss, 9) <= 0)
    lost = np.flatnonzero(is_lost)
    return [
        f"recall of '{classes.names[each]}' fell by {_points(-float(classes.change[each]))} on its "
        f"{classes.images[each]} photos (exact McNemar after Holm: p = {classes.p_worse[each]:.2g})"
        for each in lost[np.argsort(classes.change[lost], kind="stable")].tolist()
    ]


def _log_loss_worse(compared: PairedComparison, level: float) -> list[str]:
    change = compared.log_loss(1 - level)
    if change.low <= 0 or change.value < max(_LEAST_NATS, _LEAST_SHARE * compared.older_loss):
        return []
    interval = f"{1 - level:.4g} interval {change.low:.3f} to {change.high:.3f}"
    return [f"its log loss is higher by {change.value:.3f} ({interval})"]


def _points(share: float) -> str:
    return f"{100 * share:.3g} points"
