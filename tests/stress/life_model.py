"""What must hold in the life of a project, whatever is done to it: the state machine without its rules.

A run that nobody disturbs ends well, whatever was before it; model.onnx is a function of photos and params; production
is a sound model that the log names last; what was rolled back from comes back by hand only; what one runner has done,
the other does not repeat.
"""

from collections import Counter
from typing import Any, ClassVar

from hypothesis.stateful import RuleBasedStateMachine, invariant

from regraft.core.files import sha256_of
from regraft.export.classifier import OnnxClassifier
from regraft.production.registry import Production
from tests.support.eight_stages import CLASSES, CRASHED, EightStages, Ended

FLOW, REPRO = "flow", "repro"
NAMES = [f"photo {number}" for number in range(14)]
PARAMS: dict[str, list[Any]] = {
    "train_head.penalty": [0.1, 0.2, 0.3],
    "fine_tune.epochs": [1, 2, 3],
    "preprocess.test_share": [0.25, 0.34],
    "cache_features.views": [0, 1],
    "evaluate.target_precision": [0.9, 0.98],
    "promote.margin": [0.01, 0.02, 0.5],
}
_NOT_OF_THE_MODEL = {"evaluate.target_precision", "promote.margin"}
_PHOTOS = {name: (list(CLASSES)[n % 3],) * 2 for n, name in enumerate(NAMES[:-2])}
_FIRST_PARAMS = {name: values[0] for name, values in PARAMS.items()}


def prepare(project: EightStages) -> None:
    """Write the first photos and params."""
    for name, (class_name, colour) in _PHOTOS.items():
        project.photo(name, class_name, colour)
    for name, value in _FIRST_PARAMS.items():
        project.set_param(name, value)


class Model(RuleBasedStateMachine):
    """What is known of one project."""

    project: EightStages
    models: ClassVar[dict[object, str]] = {}  # SHA-256 of model.onnx by photos and params, over all lives
    counts: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.production = Production(self.project.root / "models" / "production")
        self.exported = self.project.root / "models" / "model.onnx"
        self.photos, self.params = dict(_PHOTOS), dict(_FIRST_PARAMS)
        self.there: str | None = None  # in production
        self.line: list[str] = []  # the models that led to it, oldest first
        self.left: set[str] = set()  # what was rolled back from, and not promoted by hand since
        self.waits = False  # for a person, since a rollback
        self.is_done = False  # nothing was edited or killed since a complete run

    @invariant()
    def production_is_sound(self) -> None:
        """A model that the log names last, and none that was rolled back from."""
        standing, history = self.production.standing(), self.production.history()
        assert (standing.problem, standing.digest) == (None, self.there)
        assert self.there == (history[-1].sha256 if history else None)
        assert self.production.log.read()[1] == 0
        if self.there:
            assert OnnxClassifier(self.production.model).digest == self.there
            assert self.production.is_kept(self.there)
        assert self.there not in self.left
        assert {digest for digest in self.models.values() if self.production.rolled_back(digest)} == self.left

    def count(self, what: str) -> None:
        self.counts[what] += 1

    def start(self, runner: str, *, kill_at: int = 0) -> Ended:
        self.project.forget_runs()
        return self.project.do(runner, kill_at=kill_at, **({"promote": True} if runner == FLOW else {}))

    def run_well(self, runner: str) -> None:
        ended = self.start(runner)
        assert ended.status in ((0, 2) if runner == FLOW else (0,)), ended.output
        key = (
            frozenset(self.photos.items()),
            *(self.params[name] for name in PARAMS if name not in _NOT_OF_THE_MODEL),
        )
        assert self.models.setdefault(key, sha256_of(self.exported)) == sha256_of(self.exported), "other bytes"
        self.is_done = True
        if runner == FLOW:
            self.expect_verdict(ended)

    def expect_nothing_to_do(self, runner: str) -> None:
        ended = self.start(runner)
        assert (ended.status in (0, 2), self.project.runs) == (True, []), ended.output
        if runner == FLOW:
            self.expect_verdict(ended)
            ended = self.project.do("ask")
            assert "every stage is up to date" in ended.output, ended.output

    def after_kill(self, ended: Ended) -> None:
        """A run that was to be killed; if it had fewer steps than that, it is one as any other."""
        self.expect_no_crash(ended)
        self.count("kill of a run" if ended.is_killed else "run to its end")
        self.is_done = False
        if self.production.digest != self.there:
            self.promoted(by_hand=False)

    def expect_no_crash(self, ended: Ended) -> None:
        assert ended.status in (0, 1, 2, -9), ended.output
        assert ended.status != CRASHED
        assert "Traceback" not in ended.output, ended.output

    def expect_verdict(self, ended: Ended) -> None:
        """What the gate did with the exported model."""
        self.expect_no_crash(ended)
        new = sha256_of(self.exported) if self.exported.exists() else None
        if new and new == self.there:
            assert ended.status == 0, ended.output
        elif not new or not (self.project.root / "build" / "dataset.parquet").exists():
            assert ended.status == 1, ended.output
        elif new in self.left:
            assert (ended.status, "a person decided against" in ended.output) == (2, True), ended.output
        elif self.there is None or self.production.digest == new:
            assert ended.status == 0, ended.output
            self.promoted(by_hand=False)
        else:
            assert "Undecided: " in ended.output or "Refused: " in ended.output, ended.output

    def earlier(self) -> str | None:
        kept = [digest for digest in self.line[:-1] if self.production.is_kept(digest)]
        return kept[-1] if kept else None

    def rolled_back(self, before: str | None, to: str | None) -> None:
        assert before
        assert to
        assert to == self.production.digest
        self.line = self.line[: self.line.index(to) + 1]
        self.left.add(before)
        self.there, self.waits = to, True

    def promoted(self, *, by_hand: bool) -> None:
        new = sha256_of(self.exported)
        assert self.production.digest == new
        assert by_hand or not (new in self.left or self.waits)
        self.waits = False
        self.models.setdefault(("by hand", new), new)
        self.left.discard(new)
        self.line = [*(digest for digest in self.line if digest != new), new]
        self.there = new
