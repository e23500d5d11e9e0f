"""Night after night: the same test photos, another model every night, and the one that a rule leaves in production.

What a single night's rates do not show: a rule that keeps whatever looks best on the same photos ends with a model that
is lucky on them, and one that lets small losses pass ends far below where it began.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache

import numpy as np

from benchmarks.gate_draws import RULES, World, is_refused_literally, older_answer
from regraft.config import Promote
from regraft.production.gate.comparison import Contest
from regraft.production.gate.rule import Decision, decide, promotes_undecided

NIGHTS = 60
NIGHTS_OF_A_MONTH = 30
# The rules of `gate_draws`, and the new one without its anchor, which is the first model.
RULES_OF_NIGHTS = (*RULES, "no_anchor")


@dataclass(frozen=True, slots=True)
class Model:
    """A model on the test photos."""

    accuracy: float  # the true one
    rights: np.ndarray  # bool, (photos,)
    losses: np.ndarray  # log losses, (photos,)


def new_model(world: World, ease: np.ndarray, accuracy: float, random: np.random.Generator) -> Model:
    """Draw one more model."""
    logits = world.logits(ease, accuracy, random)
    return Model(accuracy, logits > 0, np.logaddexp(0, -logits))


def contest(labels: np.ndarray, older: Model, newer: Model) -> Contest:
    """Compare two models on the test photos."""
    return Contest(labels, older.rights, newer.rights, newer.losses - older.losses)


def _goes_in(decision: Decision, photos: int, settings: Promote) -> bool:
    """Whether a night ends with the new model in production."""
    is_undecided = decision.name == "Undecided"
    return decision.name == "Promoted" or (is_undecided and promotes_undecided(decision, photos, settings))


def after_a_gain(
    world: World, change: tuple[float, float], photos: int, settings: Promote, *, draws: int
) -> dict[str, float]:
    """Return how often a model goes in where the gate chose a champion that is truly better than the anchor.

    Args:
        world: what photos and models are like; the anchor has its accuracy.
        change: what the champion is better than the anchor, and the new model worse than the champion.
        photos: of the test split.
        settings: of the gate.
        draws: of photos and the three models.
    """
    random, (gain, loss), counts = np.random.default_rng([2, photos]), change, Counter[str]()
    for _ in range(draws):
        labels = random.integers(world.classes, size=photos)
        ease = random.standard_normal(photos, np.float32)
        accuracies = (world.accuracy, world.accuracy + gain, world.accuracy + gain - loss)
        anchor, champion, challenger = (new_model(world, ease, accuracy, random) for accuracy in accuracies)
        contests = contest(labels, champion, challenger), contest(labels, anchor, challenger)
        decision = decide(*contests, settings, was_chosen=True)
        counts[decision.name.lower()] += 1
        counts["new_in_production"] += _goes_in(decision, photos, settings)
    return {name: round(counts[name] / draws, 4) for name in ("promoted", "refused", "undecided", "new_in_production")}


def sequence(
    world: World, change: float, photos: int, settings: Promote, random: np.random.Generator
) -> dict[str, tuple[Counter[str], Model]]:
    """Return by rule how often each answer was given in `NIGHTS` nights, and the model that is in production then.

    Args:
        world: what photos and models are like; the first model, which is the anchor, has its accuracy.
        change: of the true accuracy of what is trained, from night to night.
        photos: of the test split, which stays.
        settings: of the gate.
        random: draws photos and models; every rule is shown the same ones.
    """
    labels = random.integers(world.classes, size=photos)
    ease = random.standard_normal(photos, np.float32)
    models = [new_model(world, ease, world.accuracy + night * change, random) for night in range(NIGHTS + 1)]

    @cache  # two rules with the same model in production ask the same
    def ask(champion: int, challenger: int, has_anchor: bool, was_chosen: bool) -> tuple[Decision, float]:
        """What the gate decides, and the worse of the changes of accuracy that it saw."""
        against = contest(labels, models[champion], models[challenger])
        anchor = contest(labels, models[0], models[challenger]) if has_anchor and champion else None
        worst = min(against.d, anchor.d) if anchor else against.d
        return decide(against, anchor, settings, was_chosen=was_chosen), worst

    champions = dict.fromkeys(RULES_OF_NIGHTS, 0)
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for night in range(1, NIGHTS + 1):
        for rule, champion in champions.items():
            if rule in ("before", "not_less"):
                change_seen = float(models[night].rights.mean() - models[champion].rights.mean())
                decision = Decision(older_answer(rule, change_seen), ())
            else:
                was_chosen = champion > 0 and rule != "literal"
                decision, worst = ask(champion, night, rule != "no_anchor", was_chosen)
                if rule == "literal" and is_refused_literally(decision, worst, settings):
                    decision = Decision("Refused", ())
            answers[rule][decision.name] += 1
            if _goes_in(decision, photos, settings):
                answers[rule]["goes in"] += 1
                champions[rule] = night
    return {rule: (answers[rule], models[champions[rule]]) for rule in RULES_OF_NIGHTS}


def nights(
    world: World, change: float, photos: int, settings: Promote, *, sequences: int
) -> dict[str, dict[str, float]]:
    """Return by rule what `sequences` sequences have in common.

    Shares are of nights. `optimism` is the accuracy on the test photos, less the true one, of what is in production
    after the last night; `accuracy` is its true accuracy, `lag` what the last night's model is better.
    """
    random = np.random.default_rng([1, photos])
    ends = [sequence(world, change, photos, settings, random) for _ in range(sequences)]
    found = {}
    for rule in RULES_OF_NIGHTS:
        answers, champions = zip(*(end[rule] for end in ends), strict=True)
        share = {name: sum(each[name] for each in answers) / (NIGHTS * sequences) for name in (*_NAMES, "goes in")}
        optimism = np.array([champion.rights.mean() - champion.accuracy for champion in champions])
        accuracy = float(np.mean([champion.accuracy for champion in champions]))
        found[rule] = {
            **{f"{name.lower()}_share": round(share[name], 4) for name in _NAMES},
            "new_in_production_share": round(share["goes in"], 4),
            "refused_a_month": round(NIGHTS_OF_A_MONTH * share["Refused"], 2),
            "optimism": round(float(optimism.mean()), 4),
            "optimism_error": round(float(optimism.std() / np.sqrt(sequences)), 4),
            "accuracy": round(accuracy, 4),
            "lag": round(world.accuracy + NIGHTS * change - accuracy, 4),
        }
    return found


_NAMES = ("Promoted", "Refused", "Undecided")
