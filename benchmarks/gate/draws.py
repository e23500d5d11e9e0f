"""Two models on simulated test photos, and what each rule of a gate says of them.

Every photo has an ease, and every model a noise of its own on it:

    logit = s (z(a) + sqrt(r) ease + sqrt(1 - r) noise)          ease, noise ~ N(0, 1), z the quantiles of N(0, 1)

of the right class against its strongest rival. A model is right where it is positive, so its true accuracy is exactly
a; its log loss is log(1 + exp(-logit)). The share r that two models have in common follows from how often just one of
two equal models is right, the scale s from calibration: the mean confidence of a model is its accuracy.
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, ndtri, owens_t

from regraft.core.config import Promote
from regraft.production.gate.comparison import PairedComparison
from regraft.production.gate.rule import Decision, Name, both_ways, decide, promotes_undecided

# The gate, and two rules that teams use: accuracy may fall by 0.01, or not at all.
RULES = ("now", "before", "not_less")
_MARGIN_BEFORE = 0.01


@dataclass(frozen=True)
class World:
    """What test photos and models are like."""

    classes: int = 10
    accuracy: float = 0.9  # of the older model
    discordance: float = 0.08  # share of the photos that just one of two equal models names rightly

    @cached_property
    def shared(self) -> float:
        """r: P(just one is right) = 4 T(z(a), sqrt((1 - r) / (1 + r))), T of Owen (Ann. Math. Stat. 27, 1956)."""

        def excess(shared: float) -> float:
            return 4 * float(owens_t(ndtri(self.accuracy), np.sqrt((1 - shared) / (1 + shared)))) - self.discordance

        return float(brentq(excess, 0, 1))

    @cached_property
    def scale(self) -> float:
        """s: the mean of 1 / (1 + exp(-|logit|)) is the accuracy."""
        points = np.linspace(-8, 8, 4001)
        weights = np.exp(-(points**2) / 2) / np.exp(-(points**2) / 2).sum()
        distance = np.abs(points + ndtri(self.accuracy))
        return float(brentq(lambda scale: weights @ expit(scale * distance) - self.accuracy, 0.01, 100))

    def logits(self, ease: np.ndarray, accuracy: float | np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return what one more model of this accuracy says, an array like `ease`; the accuracy may differ by photo."""
        noise = random.standard_normal(ease.shape, np.float32)
        offset = np.asarray(self.scale * ndtri(accuracy), np.float32)
        own, shared = (np.float32(self.scale * np.sqrt(share)) for share in (1 - self.shared, self.shared))
        return offset + shared * ease + own * noise


@dataclass(frozen=True, slots=True)
class Scenario:
    """How the newer model, or the test photos, differ from before."""

    change: float = 0.0  # of accuracy, on all photos alike
    class_change: float = 0.0  # of the recall of one class, besides
    new_class: bool = False  # a class that only the newer model knows
    taken: float = 0.0  # share of the older classes' photos that the newer model takes for the new class
    relabelled: float = 0.0  # share of all photos, train and test, that somebody gave another label
    sharpness: float = 1.0  # of the newer model's logits
    group: int = 1  # photos per group of near-duplicates, of which a model says the same
    one_per_group: bool = True  # compared, as the gate does

    def change_on(self, world: World) -> float:
        """The true difference of accuracies on the photos that both models can name, with the labels of today."""
        learnt = (1 - self.relabelled) * self.change + self.relabelled * (world.accuracy + self.change)
        return learnt + self.class_change / world.classes - self.taken


@dataclass(frozen=True, slots=True)
class Draw:
    """Two models on one test split."""

    compared: PairedComparison  # as the gate compares
    before_relabelling: PairedComparison | None  # the same with the labels of production's record
    relabelled: float  # share of the compared photos
    change_on_all: float  # of accuracy on all test photos, those of a new class among them


def draw(world: World, scenario: Scenario, photos: int, random: np.random.Generator) -> Draw:
    """Draw test photos and two models."""
    shape = photos // scenario.group
    labels = random.integers(world.classes + scenario.new_class, size=shape)
    ease = random.standard_normal(shape, np.float32)
    accuracy = world.accuracy + scenario.change
    if scenario.class_change:
        accuracy = np.where(labels == 0, accuracy + scenario.class_change, accuracy)
    logits = [world.logits(ease, world.accuracy, random), world.logits(ease, accuracy, random) * scenario.sharpness]
    if scenario.group > 1 and not scenario.one_per_group:
        labels, *logits = (np.repeat(values, scenario.group) for values in (labels, *logits))
    rights, losses = [each > 0 for each in logits], [np.logaddexp(0, -each) for each in logits]
    rights[1] &= random.random(len(labels)) >= scenario.taken / world.accuracy
    is_old = labels < world.classes  # the older model cannot name the others
    change_on_all = float(np.mean(rights[1].astype(int) - (rights[0] & is_old)))
    if scenario.relabelled:
        return _relabelled(world, scenario, labels, logits, random)
    older_loss = float(losses[0][is_old].mean())
    compared = PairedComparison(
        labels[is_old], rights[0][is_old], rights[1][is_old], (losses[1] - losses[0])[is_old], older_loss
    )
    return Draw(compared, None, 0.0, change_on_all)


def _relabelled(
    world: World, scenario: Scenario, labels: np.ndarray, logits: list[np.ndarray], random: np.random.Generator
) -> Draw:
    """Give some photos another label, which the newer model has learnt as well as any."""
    moved = random.random(len(labels)) < scenario.relabelled
    names = np.where(moved, (labels + random.integers(1, world.classes, len(labels))) % world.classes, labels)
    rights = [each > 0 for each in logits]
    own = [np.logaddexp(0, -each) for each in logits]
    # Of the label that it does not believe in a model has an equal part of what the believed one leaves.
    doubted = np.logaddexp(0, logits[0]) + np.log(world.classes - 1)
    of_labels = np.where(moved, doubted, own[0])
    today = PairedComparison(names, rights[0] & ~moved, rights[1], own[1] - of_labels, float(of_labels.mean()))
    before = PairedComparison(labels, rights[0], rights[1] & ~moved, (own[1] - own[0])[~moved], float(own[0].mean()))
    return Draw(today, before, float(moved.mean()), today.d)


def judge(drawn: Draw, settings: Promote) -> Decision:
    """Return what the gate decides on the first night: the model in production is the first one, and so the anchor."""
    first = replace(drawn.compared, recent=())
    decision = decide(first, (), settings)
    if drawn.before_relabelling is None:
        return decision
    by_old_labels = decide(replace(drawn.before_relabelling, recent=()), (), settings)
    return both_ways(decision, by_old_labels, round(drawn.relabelled * first.n), first.n)


def goes_in(decision: Decision, settings: Promote) -> bool:
    """Whether a night ends with the new model in production."""
    is_followed = decision.name == "Undecided" and promotes_undecided(decision, settings)
    return decision.name == "Promoted" or is_followed


def older_answer(rule: str, change: float) -> Name:
    """Return what the rule before this gate, or `>=`, says of a change of accuracy on all test photos."""
    return "Promoted" if round(change + (_MARGIN_BEFORE if rule == "before" else 0), 9) >= 0 else "Refused"


def rates(
    world: World, scenario: Scenario, photos: int, settings: Promote, *, draws: int
) -> dict[str, dict[str, float]]:
    """Return by rule the shares of draws that are promoted, refused and undecided.

    Of the gate also: those that go in, the undecided ones in which a person is asked, and the refused ones for which
    log loss is the only reason.
    """
    counts = {rule: Counter[str](promoted=0, refused=0, undecided=0) for rule in RULES}
    random = np.random.default_rng([0, photos])
    for _ in range(draws):
        drawn = draw(world, scenario, photos, random)
        decision, of_gate = judge(drawn, settings), counts["now"]
        of_gate[decision.name.lower()] += 1
        of_gate["goes_in"] += goes_in(decision, settings)
        of_gate["asks"] += decision.asks_for_a_person
        of_gate["log_loss_alone"] += decision.name == "Refused" and all("log loss" in each for each in decision.reasons)
        for rule in ("before", "not_less"):
            counts[rule][older_answer(rule, drawn.change_on_all).lower()] += 1
    return {rule: {name: round(count / draws, 4) for name, count in of.items()} for rule, of in counts.items()}
