"""Night after night: the same test photos, another model every night, and the one that is left in production.

What a single night's rates do not show: a rule that keeps whatever looks best on the same photos ends with a model that
is lucky on them, and one that lets small losses pass ends far below where it began. The first model is the anchor.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from benchmarks.gate.draws import World, goes_in, older_answer
from regraft.core.config import Promote
from regraft.core.statistics import evidence_of_harm
from regraft.production.gate.comparison import PairedComparison
from regraft.production.gate.rule import Decision, decide
from regraft.production.new_photos import ALARM

NIGHTS, MONTH = 60, 30
# What lets a model in: the gate; the gate with ten new photos a night, held back by their alarm; a person who approves
# what is Promoted, or all that is not red; and two rules that teams use.
RULES = ("auto", "new_photos", "approves_promoted", "approves_all", "before", "not_less")
_NEW_PHOTOS = 10

# By the number of the night: the true accuracy of the model that is trained in it, less that of the first one.
WORLDS: dict[str, Callable[[int], float]] = {
    "equal": lambda night: 0.0,
    "equal, other temperature": lambda night: 0.0,
    "0.25 points worse every night": lambda night: -0.0025 * night,
    "0.1 points better every night": lambda night: 0.001 * night,
    "2 points better from the first night on": lambda night: 0.02,
    "2 points worse from the first night on": lambda night: -0.02,
    "4 points worse from the first night on": lambda night: -0.04,
}
TEMPERATURE = 0.2  # standard deviation of the logarithm of a model's temperature in a world of other ones


@dataclass(frozen=True, slots=True)
class Model:
    """A model on the test photos."""

    accuracy: float  # the true one
    rights: np.ndarray  # bool, (photos,)
    losses: np.ndarray  # log losses, (photos,)


def new_model(
    world: World, ease: np.ndarray, accuracy: float, random: np.random.Generator, temperature: float = 0.0
) -> Model:
    """Draw one more model; `temperature` is as `TEMPERATURE`."""
    logits = world.logits(ease, accuracy, random)
    if temperature:
        logits = logits * np.exp(temperature * random.standard_normal())
    return Model(accuracy, logits > 0, np.logaddexp(0, -logits))


@dataclass(slots=True)
class Course:
    """What a rule made of the nights of one sequence."""

    champion: int = 0
    red: np.ndarray = field(default_factory=lambda: np.zeros(NIGHTS, bool))
    moves: int = 0
    first: int = NIGHTS + 1  # the night in which the first new model went in
    b: int = 0  # new photos that only the anchor names rightly
    c: int = 0  # and only what was in production
    is_alarmed: bool = False


def sequence(
    world: World, name: str, photos: int, settings: Promote, random: np.random.Generator, rules: tuple[str, ...]
) -> dict[str, tuple[Course, Model]]:
    """Return by rule what became of `NIGHTS` nights, and the model that is in production then.

    Args:
        world: what photos and models are like; the first model, which is the anchor, has its accuracy.
        name: of `WORLDS`.
        photos: of the test split, which stays.
        settings: of the gate.
        random: draws photos and models; every rule is shown the same ones.
        rules: of `RULES`.
    """
    labels = random.integers(world.classes, size=photos)
    ease = random.standard_normal(photos, np.float32)
    temperature = TEMPERATURE if name.endswith("temperature") else 0.0
    accuracies = [world.accuracy + (WORLDS[name](night) if night else 0.0) for night in range(NIGHTS + 1)]
    models = [new_model(world, ease, accuracy, random, temperature) for accuracy in accuracies]
    changes = [float(model.rights.mean() - models[0].rights.mean()) for model in models]

    @cache  # two rules with the same model in production ask the same
    def ask(older: int, night: int) -> Decision:
        def compared(of: int) -> PairedComparison:
            one, new, is_first = models[of], models[night], of == 0
            recent = tuple(changes[1:night]) if is_first else None
            loss = float(one.losses.mean())
            return PairedComparison(labels, one.rights, new.rights, new.losses - one.losses, loss, not is_first, recent)

        return decide(compared(older), (compared(0),) if older else (), settings)

    courses = {rule: Course() for rule in rules}
    for night in range(1, NIGHTS + 1):
        for rule, course in courses.items():
            if rule in ("before", "not_less"):
                decision = Decision(older_answer(rule, changes[night] - changes[course.champion]), ())
            else:
                decision = ask(course.champion, night)
            is_in = _goes_in(rule, decision, settings)
            if rule == "new_photos" and course.champion:
                _ask_new_photos(world, course, models[course.champion].accuracy, random)
                is_in = is_in and not course.is_alarmed
            course.red[night - 1] = decision.name == "Refused"
            if is_in:
                course.champion, course.moves, course.first = night, course.moves + 1, min(course.first, night)
    return {rule: (course, models[course.champion]) for rule, course in courses.items()}


def _goes_in(rule: str, decision: Decision, settings: Promote) -> bool:
    if rule in ("auto", "new_photos"):
        return goes_in(decision, settings)
    return decision.name == "Promoted" or (rule == "approves_all" and decision.name == "Undecided")


def _ask_new_photos(world: World, course: Course, accuracy: float, random: np.random.Generator) -> None:
    """Show new photos to the anchor and to what is in production, and count on."""
    ease = random.standard_normal(_NEW_PHOTOS, np.float32)
    anchor, production = (world.logits(ease, each, random) > 0 for each in (world.accuracy, accuracy))
    course.b += int((anchor & ~production).sum())
    course.c += int((production & ~anchor).sum())
    course.is_alarmed |= evidence_of_harm(course.b, course.c) >= ALARM


def nights(
    world: World, name: str, photos: int, settings: Promote, rules: tuple[str, ...], *, sequences: int
) -> dict[str, dict[str, float]]:
    """Return by rule what `sequences` sequences have in common.

    `red` is of a month of thirty nights, `new` the share of nights with a new model. `optimism` is the accuracy on the
    test photos, less the true one, of what is in production after the last night; `accuracy` is its true accuracy,
    `low` the 5 % quantile of it. `first` is the night in which the first new model goes in, `first_95` its 95 %
    quantile.
    """
    random = np.random.default_rng([1, photos])
    ends = [sequence(world, name, photos, settings, random, rules) for _ in range(sequences)]
    found = {}
    for rule in rules:
        courses, champions = zip(*(end[rule] for end in ends), strict=True)
        red = np.array([course.red.reshape(-1, min(MONTH, NIGHTS)).sum(axis=1) for course in courses])
        first = np.array([course.first for course in courses])
        accuracy = np.array([champion.accuracy for champion in champions])
        values = {
            "red": red.mean(),
            "red_median": np.median(red),
            "red_95": np.quantile(red, 0.95),
            "new": np.mean([course.moves for course in courses]) / NIGHTS,
            "optimism": np.mean([champion.rights.mean() - champion.accuracy for champion in champions]),
            "accuracy": accuracy.mean(),
            "low": np.quantile(accuracy, 0.05),
            "first": np.median(first),
            "first_95": np.quantile(first, 0.95),
            "alarmed": np.mean([course.is_alarmed for course in courses]),
        }
        found[rule] = {key: round(float(value), 4) for key, value in values.items()}
    return found


def alarms(world: World, loss: float, new_photos: int, *, sequences: int) -> float:
    """Return how often new photos raise an alarm in `NIGHTS` nights in which production is worse by a loss."""
    random = np.random.default_rng([2, new_photos])
    ease = random.standard_normal((sequences, NIGHTS, new_photos), np.float32)
    anchor, production = (world.logits(ease, world.accuracy - each, random) > 0 for each in (0.0, loss))
    b, c = ((one & ~other).sum(axis=2).cumsum(axis=1) for one, other in ((anchor, production), (production, anchor)))
    return float((evidence_of_harm(b, c) >= ALARM).any(axis=1).mean())
