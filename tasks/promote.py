"""After the eight stages, outside of DVC: which model services use. Production is state and not a result."""

import os
import pwd
import socket
from datetime import UTC, datetime
from typing import Any

from regraft.config import Params
from regraft.errors import RegraftError
from regraft.export.classifier import OnnxClassifier
from regraft.export.scoring import open_probabilities, probabilities_of
from regraft.features.table import read_features
from regraft.files import sha256_of, write_json
from regraft.photos.dataset import Dataset, read_dataset
from regraft.photos.images import Threads
from regraft.photos.manifest import read_manifest
from regraft.production.gate import (
    Verdict,
    accuracy_of,
    judge,
    load_challenger,
    load_champion,
    refuse_damaged,
    refuse_rolled_back,
)
from regraft.production.registry import Change, Grounds, Production
from regraft.production.training_data import Reference, build_reference
from regraft.reports.first_screen import VERDICT
from regraft.store.leases import store_in_use
from regraft.training.metrics import accuracy_with_interval
from tasks.progress import Progress


def challenge(params: Params, progress: Progress) -> Verdict | None:
    """Compare models/model.onnx with the model in production on today's test photos, and let it take its place or not.

    Returns:
        The verdict, or None if this very file is in production already.
    """
    paths = params.paths
    production = Production(paths.production)
    standing = production.standing()
    if paths.onnx.exists() and standing.digest == sha256_of(paths.onnx):
        return None
    challenger, champion, problem = load_challenger(paths.onnx), None, standing.problem
    if standing.digest:
        champion, problem = load_champion(production.model)
    if not paths.dataset.exists():  # DVC removes an output before it is made anew, and a run may have been killed there
        raise RegraftError(f"there is no {paths.dataset} to compare models on. Run `regraft retrain` first.")
    test = read_dataset(paths.dataset, paths.raw).of("test")
    if problem:
        verdict = refuse_damaged(problem)
    elif rolled_back := production.rolled_back(challenger.digest):
        verdict = refuse_rolled_back(rolled_back)
    else:
        verdict = _compare(params, progress, test, challenger, champion)
    _record(params, verdict, challenger.digest, images=len(test))
    if verdict.is_accepted:
        grounds = Grounds(challenger.digest, champion.digest if champion else None)
        _promote(params, verdict.words, grounds)
    return verdict


def force(params: Params) -> Change:
    """Put models/model.onnx into production without asking the gate; it must name classes, no more."""
    digest = load_challenger(params.paths.onnx).digest
    _promote(params, f"Promoted by hand{_operator()}, without the gate.", Grounds(digest, is_by_hand=True))
    return Production(params.paths.production).history()[-1]


def rollback(params: Params) -> Change:
    """Put the previous model back into production, or a sound copy in place of a damaged one."""
    return Production(params.paths.production).rollback(by=_operator())


def history(params: Params) -> tuple[list[Change], str]:
    """Return what was in production, oldest first, and a sentence on what is wrong there now; empty if nothing is."""
    production = Production(params.paths.production)
    problem = production.standing().problem
    damaged = production.log.read()[1]
    wrong = [f"{problem} `regraft promote --rollback` puts the last sound model back."] if problem else []
    wrong += [f"{damaged} lines of {production.log.path} cannot be read, and are not shown."] if damaged else []
    return production.history(), " ".join(wrong)


def told(change: Change) -> str:
    """Return a change as a line for a person."""
    return f"{change.at}  {change.action:11}  {change.sha256[:12]}  {change.words}"


def _operator() -> str:
    """Return who runs this process and where, as the log of production names it."""
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # in a container a user may have no name
        name = f"user {os.geteuid()}"
    return f" by {name} on {socket.gethostname()}"


def _compare(
    params: Params, progress: Progress, test: Dataset, challenger: OnnxClassifier, champion: OnnxClassifier | None
) -> Verdict:
    def accuracy(classifier: OnnxClassifier, name: str) -> float:
        threads = Threads(params.machine.workers, progress(f"photos ({name})"))
        stored = open_probabilities(params.paths.store, classifier)
        probabilities = probabilities_of(classifier, test, threads, stored=stored)
        return accuracy_of(classifier, test, probabilities)

    with store_in_use(params.paths.store, None):
        champion_accuracy = accuracy(champion, "production") if champion else None
        challenger_accuracy = accuracy(challenger, "new model")
    return judge(challenger_accuracy, champion_accuracy, images=len(test), margin=params.promote.margin)


def _promote(params: Params, words: str, grounds: Grounds) -> None:
    paths, reference = params.paths, _reference(params)
    production = Production(paths.production)
    production.promote(paths.onnx, words, keep=params.promote.keep, reference=reference, grounds=grounds)


def _reference(params: Params) -> Reference | None:
    """Return what the new model was trained on.

    What lies in build/ may have been removed since; then later photos are compared with nothing.
    """
    paths = params.paths
    if not (paths.manifest.exists() and paths.features.exists()):
        return None
    _, manifest = read_manifest(paths.manifest)
    return build_reference(manifest, read_features(paths.features))


def _record(params: Params, verdict: Verdict, challenger: str, *, images: int) -> None:
    """Write what the gate said for the report; like production, it is state and no output of DVC."""
    paths = params.paths

    def figures(accuracy: float | None) -> dict[str, Any] | None:
        if accuracy is None:
            return None
        return {"images": images, **accuracy_with_interval(round(accuracy * images), images)}

    contents = {
        # The verdict on another model, or on other test photos, says nothing about this one.
        "about": {"model": challenger, "dataset": sha256_of(paths.dataset)},
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "is_accepted": verdict.is_accepted,
        "words": verdict.words,
        "challenger": figures(verdict.challenger_accuracy),
        "champion": figures(verdict.champion_accuracy),
    }
    write_json(paths.reports / VERDICT, contents)
