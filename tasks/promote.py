"""After the eight stages, outside of DVC: which model services use. Production is state and not a result."""

from datetime import UTC, datetime
from typing import Any

from regraft.config import Params
from regraft.export.classifier import OnnxClassifier
from regraft.export.scoring import open_probabilities, probabilities_of
from regraft.features.table import read_features
from regraft.files import sha256_of, write_json
from regraft.photos.dataset import read_dataset
from regraft.photos.images import Threads
from regraft.photos.manifest import read_manifest
from regraft.production.gate import Verdict, accuracy_of, judge
from regraft.production.registry import Change, Production
from regraft.production.training_data import build_reference
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
    if paths.onnx.exists() and production.digest == sha256_of(paths.onnx):
        return None
    test = read_dataset(paths.dataset, paths.raw).of("test")

    def accuracy(classifier: OnnxClassifier, name: str) -> float:
        threads = Threads(params.machine.workers, progress(f"photos ({name})"))
        stored = open_probabilities(paths.store, classifier)
        probabilities = probabilities_of(classifier, test, threads, stored=stored)
        return accuracy_of(classifier, test, probabilities)

    champion_accuracy = None
    with store_in_use(paths.store, None):
        if production.digest:
            champion_accuracy = accuracy(OnnxClassifier(production.model), "production")
        challenger_accuracy = accuracy(OnnxClassifier(paths.onnx), "new model")
    verdict = judge(challenger_accuracy, champion_accuracy, images=len(test), margin=params.promote.margin)
    _record(params, verdict, images=len(test))
    if verdict.is_accepted:
        reference = None
        # What lies in build/ may have been removed since; then later photos are compared with nothing.
        if paths.manifest.exists() and paths.features.exists():
            _, manifest = read_manifest(paths.manifest)
            reference = build_reference(manifest, read_features(paths.features))
        production.promote(paths.onnx, verdict.words, keep=params.promote.keep, reference=reference)
    return verdict


def _record(params: Params, verdict: Verdict, *, images: int) -> None:
    """Write what the gate said for the report; like production, it is state and no output of DVC."""
    paths = params.paths

    def figures(accuracy: float | None) -> dict[str, Any] | None:
        if accuracy is None:
            return None
        return {"images": images, **accuracy_with_interval(round(accuracy * images), images)}

    contents = {
        # The verdict on another model, or on other test photos, says nothing about this one.
        "about": {"model": sha256_of(paths.onnx), "dataset": sha256_of(paths.dataset)},
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "is_accepted": verdict.is_accepted,
        "words": verdict.words,
        "challenger": figures(verdict.challenger_accuracy),
        "champion": figures(verdict.champion_accuracy),
    }
    write_json(paths.reports / VERDICT, contents)


def rollback(params: Params) -> Change:
    """Put the previous model back into production."""
    return Production(params.paths.production).rollback()


def history(params: Params) -> list[Change]:
    """Return what was in production, oldest first."""
    return Production(params.paths.production).history()
