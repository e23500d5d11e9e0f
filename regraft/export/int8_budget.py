"""Int8 under a budget: the first rung of the ladder whose loss of accuracy is shown to be small enough, or float32.

The ladder is that of `regraft.export.int8_ladder`; what is judged is said in `regraft.export.int8_agreement`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

from regraft.core.config_shipping import Quantise
from regraft.export.int8_agreement import Agreement, agreement_of, fewest_photos, level_of, photos_that_would_do
from regraft.export.int8_ladder import DEFECTS, Rung, rungs
from regraft.export.int8_photos import Material
from regraft.onnx_graphs.quantisable import Network, network_of

FLOAT32 = "float32"
_CHUNK = 256  # photos, after which a rung that cannot pass any more is given up
Refuse = Callable[[onnx.ModelProto, np.ndarray], str | None]  # what is wrong with a file and what it said, if anything


@dataclass(frozen=True, slots=True)
class Step:
    """One rung that was tried."""

    rung: str
    passed: bool
    words: str  # why, or why not
    agreement: Agreement | None  # None of a rung that no graph could be made for


@dataclass(frozen=True, slots=True)
class Choice:
    """What ships as int8."""

    rung: str
    words: str  # why
    steps: tuple[Step, ...] = ()
    graph: onnx.ModelProto | None = None  # the whole file; None: that in float32
    exact: np.ndarray | None = None  # what float32 says of the judged photos, as `Material.rows_of` returns it
    rows: np.ndarray | None = None  # what the chosen rung says of them


def choose(whole: onnx.ModelProto, material: Material, settings: Quantise, refuse: Refuse) -> Choice:
    """Try the rungs in their order, and return the first one that is good enough.

    Args:
        whole: the float32 file.
        material: photos, prepared.
        settings: section `quantise` of params.yaml.
        refuse: says what is wrong with a rung that is within the budget, if anything is.
    """
    try:
        if missing := _missing(material, settings):
            return Choice(FLOAT32, missing)
        network = network_of(whole, material.judged.side)
        exact = material.rows_of(network.completed(network.graph, with_preparation=False), material.judged)
    except DEFECTS as error:
        return Choice(FLOAT32, _in_a_line(error))
    steps: list[Step] = []
    for number, rung in enumerate(rungs(network, material)):
        step, graph, rows = _try(rung, network, material, exact, settings, level_of(number))
        if step.passed and graph is not None:
            quantised = network.completed(graph, with_preparation=True)
            if wrong := refuse(quantised, rows):
                step = Step(rung.name, False, wrong, step.agreement)
            else:
                return Choice(rung.name, step.words, (*steps, step), quantised, exact, rows)
        steps.append(step)
    return Choice(FLOAT32, f"no rung is within quantise.budget, {settings.budget:.2%} of accuracy", tuple(steps))


def verdict_of(agreement: Agreement, settings: Quantise) -> tuple[bool, str]:
    """Return whether a rung is good enough, and why."""
    loss = agreement.loss
    said = (
        f"{agreement.differing} of {agreement.images} photos get another class than by float32; by its probabilities "
        f"that costs {loss.value:.2%} of accuracy ({loss.low:.2%} to {loss.high:.2%})"
    )
    if not loss.high <= settings.budget:
        needed = photos_that_would_do(agreement, settings.budget)
        more = f", which {needed} such val photos could change" if needed else ""
        return False, f"{said}: the upper bound is above {settings.budget:.2%}{more}"
    if agreement.largest_gap > settings.max_gap:
        gap = f"{agreement.largest_gap:.2f} apart, more than {settings.max_gap:g}"
        return False, f"{said}, but of one of them the first two probabilities of float32 are {gap} (quantise.max_gap)"
    return True, f"{said}: the upper bound is within {settings.budget:.2%}"


def _missing(material: Material, settings: Quantise) -> str | None:
    """Return why nothing could be shown, whatever the rung."""
    needed, count = fewest_photos(settings.budget, level=level_of(0)), len(material.judged)
    if count < needed:
        return (
            f"{count} val photos cannot show that int8 costs at most {settings.budget:.2%} of accuracy "
            f"(quantise.budget): that takes {needed} that training has not seen, one per group of near-duplicates"
        )
    return None if len(material.calibrating) else "there is no training photo that says how large activations get"


def _try(
    rung: Rung, network: Network, material: Material, exact: np.ndarray, settings: Quantise, level: float
) -> tuple[Step, onnx.ModelProto | None, np.ndarray]:
    """Run a rung over the photos, no further than it can still pass."""
    count, found, agreement = len(material.judged), exact[:0], None
    try:
        graph = rung.build()
        inner = network.completed(graph, with_preparation=False)
        while len(found) < count:
            some = material.judged.part(range(len(found), min(len(found) + _CHUNK, count)))
            found = np.concatenate([found, material.rows_of(inner, some)])
            if not np.isfinite(found).all():
                return Step(rung.name, False, "it makes numbers that are none", None), None, found
            before, ours = (material.probabilities(rows[: len(found)]) for rows in (exact, found))
            agreement = agreement_of(before, ours, level=level, of=count)
            if agreement.loss.high > settings.budget and len(found) < count:
                return Step(rung.name, False, _given_up(agreement, len(found), settings.budget), agreement), None, found
    except DEFECTS as error:
        return Step(rung.name, False, _in_a_line(error), None), None, found
    assert agreement
    passed, words = verdict_of(agreement, settings)
    return Step(rung.name, passed, words, agreement), graph, found


def _given_up(agreement: Agreement, seen: int, budget: float) -> str:
    rest, high = agreement.images - seen, agreement.loss.high
    return (
        f"{agreement.differing} of the first {seen} photos get another class than by float32: even if none of the "
        f"other {rest} did, the loss could be {high:.2%} of accuracy, above {budget:.2%}"
    )


def _in_a_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
