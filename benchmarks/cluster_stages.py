"""The scan, evaluation and scoring for `benchmarks.cluster`: what each writes, in this process and on workers.

Each run begins with nothing known, so that all photos are read, decoded and run. The model is a frozen backbone with a
head of random weights.
"""

import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from benchmarks.cluster_runs import Bench
from regraft.cluster.connection import Cluster
from regraft.export.classifier import OnnxClassifier
from regraft.export.compose import write_graph
from regraft.export.scoring import answers_of, open_said
from regraft.files import sha256_of
from regraft.photos.dataset import Dataset
from regraft.photos.decoder import DecodeLimits
from regraft.photos.images import Threads
from regraft.photos.incoming import find_incoming
from regraft.photos.known import Learning
from regraft.photos.manifest import build_manifest, write_manifest
from regraft.photos.scan import scan
from regraft.photos.scan_on_cluster import ClusterReaders
from regraft.production.scores.inference import score
from regraft.production.scores.table import build_rows, merge, write_scores
from regraft.store.facts import Facts
from regraft.training.tables import write_predictions
from tests.support.shipped_files import shipped_graph

_LIMITS = DecodeLimits(max_pixels=120_000_000, max_seconds=20.0)
_NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Stages:
    """The same photos as of `Bench`, in a folder of their own, and a model for them."""

    photos: Dataset
    raw: Path
    model: Path
    folder: Path

    @classmethod
    def of(cls, bench: Bench) -> "Stages":
        """Copy the photos and write a model."""
        raw, model = bench.folder / "raw", bench.folder / "model.onnx"
        for photo in bench.dataset.photos():
            (raw / photo.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(bench.dataset.folder / photo.path, raw / photo.path)
        graph, _ = shipped_graph(bench.trunk, bench.views.preparation, bench.dataset.class_names)
        write_graph(model, graph)
        return cls(bench.dataset, raw, model, bench.folder)

    def scan(self, cluster: Cluster | None) -> str:
        """Return the SHA-256 of the manifest."""
        store = self._new_store()
        facts = Facts(store, None, max_pixels=_LIMITS.max_pixels)
        layout, manifest = build_manifest(
            self.raw, limits=_LIMITS, threads=Threads(0), learning=Learning(facts, _readers(cluster, store, know=True))
        )
        write_manifest(store / "manifest.parquet", layout, manifest)
        return sha256_of(store / "manifest.parquet")

    def evaluate(self, cluster: Cluster | None) -> str:
        """Return the SHA-256 of what the model says of each photo."""
        store, classifier = self._new_store(), OnnxClassifier(self.model)
        stored = open_said(store, classifier)
        said = answers_of(classifier, self.photos, Threads(0), stored=stored, cluster=cluster)
        write_predictions(store / "predictions.csv", self.photos, said.probabilities)
        return sha256_of(store / "predictions.csv")

    def score(self, cluster: Cluster | None) -> str:
        """Return the SHA-256 of the scores."""
        store, classifier, incoming = self._new_store(), OnnxClassifier(self.model), find_incoming(self.raw)
        learning = Learning(readers=_readers(cluster, store, know=False))
        found = scan(
            self.raw,
            incoming.paths,
            limits=_LIMITS,
            threads=Threads(0),
            cache=store / "scan.parquet",
            learning=learning,
        )
        facts = dict(found.items(incoming.paths))
        scored = score(incoming, facts, classifier, Threads(0), open_said(store, classifier), cluster)
        write_scores(store / "scores.parquet", merge(build_rows([], []), scored.rows, _NOON, 30))
        return sha256_of(store / "scores.parquet")

    def _new_store(self) -> Path:
        store = self.folder / uuid.uuid4().hex
        store.mkdir()
        return store


def _readers(cluster: Cluster | None, store: Path, *, know: bool) -> ClusterReaders | None:
    known = partial(Facts, shared=None, max_pixels=_LIMITS.max_pixels)
    return ClusterReaders(cluster, store, known if know else None) if cluster else None


STAGES: dict[str, Callable[[Stages, Cluster | None], str]] = {
    "scan": Stages.scan,
    "evaluation": Stages.evaluate,
    "scoring": Stages.score,
}
