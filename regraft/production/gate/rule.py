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
_SEVERITY: tuple[Name, ...] = ("Promoted", "Undecided", "Refused")


@dataclass(frozen=True, slots=True)
class Decision:
    """What the rule says of a contest, and why."""

    name: Name
    reasons: tuple[str, ...]  # sentences, the weightiest first
    asks_for_a_person: bool = False  # an undecided model is not promoted, whatever `promote.when_undecided` says


def decide(champion: Contest, anchor: Contest | None, settings: Promote, *, was_chosen: bool = False) -> Decision:
    """Judge a new model.

    A model that the gate itself let in was chosen on these very photos, so it is luckier on them than it is good, and
    its equals look worse than it is. Then red against it takes `promote.alpha_chosen`; harm that is shown at
    `promote.alpha` only keeps production and asks for a person. The anchor was not chosen on them.

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
    contests = [(champion, "the model in production")]
    if anchor is not None and anchor.n >= settings.min_photos:
        contests.append((anchor, "the anchor, the last model that a person approved"))
    level = settings.alpha_chosen if was_chosen else settings.alpha
    harms = _harms(champion, contests[0][1], settings, level)
    harms += [harm for contest, which in contests[1:] for harm in _loss_shown(contest, which, settings.alpha)]
    if harms:
        return Decision("Refused", tuple(harms))
    doubts = _harms(champion, contests[0][1], settings, settings.alpha)
    doubts += [loss for contest, which in contests for loss in _loss_seen(contest, which, settings)]
    if doubts:
        return Decision("Undecided", tuple(doubts), asks_for_a_person=True)
    p = champion.p_not_worse(settings.margin)
    if p <= settings.alpha:
        return Decision("Promoted", (f"a loss of {_points(settings.margin)} or more is excluded (Tango: p = {p:.2g})",))
    return Decision(
        "Undecided",
        (f"a loss of {_points(settings.margin)} is neither shown nor excluded (Tango: p = {p:.2g})",),
    )


def worse_of(first: Decision, second: Decision) -> Decision:
    """Return the decision that is less in favour of the new model; the first one of equals."""
    return max(first, second, key=lambda decision: (_SEVERITY.index(decision.name), decision.asks_for_a_person))


def promotes_undecided(decision: Decision, n: int, settings: Promote) -> bool:
    """Whether an undecided model is promoted all the same, after n photos were compared."""
    is_trusted = settings.when_undecided == "auto" and n >= settings.trusted_photos
    return not decision.asks_for_a_person and (settings.when_undecided == "promote" or is_trusted)


def _harms(contest: Contest, which: str, settings: Promote, level: float) -> list[str]:
    """What is shown at this level, of accuracy, of a class, or of log loss."""
    harms = _loss_shown(contest, which, level) + _classes_lost(contest, settings, level)
    return harms + _log_loss_worse(contest, level)


def _loss_shown(contest: Contest, which: str, level: float) -> list[str]:
    p = contest.p_worse()
    if p > level:
        return []
    return [
        f"it is worse than {which}: {contest.b} photos are right only with that one, {contest.c} only with the new one "
        f"(exact McNemar: p = {p:.2g})"
    ]


def _loss_seen(contest: Contest, which: str, settings: Promote) -> list[str]:
    """A large loss of accuracy that may be chance: nobody should find it in production in the morning."""
    # Rounded: a loss of exactly the limit, as counted, counts.
    if round(contest.d + settings.max_loss, 9) > 0:
        return []
    return [
        f"it lost {_points(-contest.d)} against {which}, which may be chance (exact McNemar: p = "
        f"{contest.p_worse():.2g}), and from promote.max_loss, {_points(settings.max_loss)}, on a person decides"
    ]


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
