"""The model is asked about photos that others may move away at any moment; what it said is stored, and asked once."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from regraft.cluster.connection import Cluster
from regraft.export.classifier import OnnxClassifier
from regraft.export.scoring import Answers, answers_of
from regraft.export.scoring_on_cluster import OF_PHOTO, answer_on_cluster
from regraft.photos.dataset import COLUMNS, Dataset
from regraft.photos.images import Threads
from regraft.photos.incoming import Incoming
from regraft.photos.scan_facts import FileFacts
from regraft.production.scores.table import CLASS, build_rows
from regraft.store.namespace import Namespace
from regraft.store.shards import key_of

_TOGETHER = 1024  # photos that become one shard of the store
_LONGEST = 200  # letters of an error
_STATISTICS = ("width", "height", "brightness", "contrast", "sharpness", "entropy", "phash")


@dataclass(frozen=True, slots=True)
class Scored:
    """What became of the photos."""

    rows: pd.DataFrame  # one per photo, and per file that should be one and cannot be read; from `build_rows`
    computed: int  # photos that the model was run on
    skipped: int  # files in the folder that nobody meant as photos


def score(
    incoming: Incoming,
    facts: Mapping[str, FileFacts],
    classifier: OnnxClassifier,
    threads: Threads,
    stored: Namespace,
    cluster: Cluster | None = None,
) -> Scored:
    """Return a row per photo; only what the store does not hold is computed.

    Args:
        incoming: the photos.
        facts: what `scan` found in each file.
        classifier: the model in production.
        threads: that decode and run; told how many photos are done, and to do.
        stored: from `regraft.export.scoring.open_said`.
        cluster: whose workers run the model where many photos are new; None: this process.
    """
    skipped = [path for path in incoming.paths if not facts[path].meant_as_image and not incoming.is_named]
    problems = {path: _problem_of(facts[path]) for path in incoming.paths if path not in set(skipped)}
    sound = [path for path, problem in problems.items() if problem is None]
    asking = _Asking(classifier, _dataset(incoming, sound, facts), threads, stored, cluster)
    there, answers = asking.ask()
    errors = {path: problem for path, problem in problems.items() if problem} | incoming.refused
    errors |= {path: asking.lost[facts[path].digest] for path in sound if facts[path].digest in asking.lost}
    rows = [_error_row(path, facts.get(path), words) for path, words in errors.items()]
    if answers:
        rows += _rows(there.rows.path.tolist(), facts, classifier, answers)
    return Scored(build_rows(rows, classifier.class_names), asking.computed, len(skipped))


@dataclass(slots=True)
class _Asking:
    """One pass over the photos."""

    classifier: OnnxClassifier
    photos: Dataset
    threads: Threads
    stored: Namespace
    cluster: Cluster | None
    computed: int = 0
    lost: dict[str, str] = field(default_factory=dict)  # by digest: why the model could not be asked
    _total: int = 0

    def ask(self) -> tuple[Dataset, Answers | None]:
        """Return the photos that could be asked about, and what the model says of them; None of none."""
        new = self._missing()
        self._total = len(new)
        if self.cluster:
            answer_on_cluster(self.cluster, self.classifier, new, self.stored, self.threads.on_progress)
            new = self._missing()  # of which workers could not ask
            self.computed = self._total - len(new)
        for start in range(0, len(new), _TOGETHER):
            self._fill(new.with_rows(new.rows.iloc[start : start + _TOGETHER]))
        there = self.photos.with_rows(self.photos.rows[~self.photos.rows.digest.isin(list(self.lost))])
        if not len(there):
            return there, None
        quiet = replace(self.threads, on_progress=lambda done, total: None)
        return there, answers_of(self.classifier, there, quiet, stored=self.stored)

    def _missing(self) -> Dataset:
        """Return the photos of which the store does not hold what the model says, each content once."""
        missing = set(self.stored.missing([key_of(source) for source in self.photos.sources()]))
        is_new = [key_of(source) in missing for source in self.photos.sources()]
        return self.photos.with_rows(self.photos.rows[is_new].drop_duplicates("digest"))

    def _fill(self, part: Dataset) -> None:
        """Store what the model says of photos; one of which it cannot be asked keeps none of the others."""
        before = self.computed + len(self.lost)

        def on_progress(done: int, total: int) -> None:
            self.threads.on_progress(before + done, self._total)

        try:
            answers_of(self.classifier, part, replace(self.threads, on_progress=on_progress), stored=self.stored)
            self.computed += len(part)
        except OF_PHOTO as error:
            self.stored.flush()  # what was said before is not asked again
            if len(part) == 1:
                self.lost[part.rows.digest.iloc[0]] = " ".join(str(error).split())[:_LONGEST]
                return
            half = len(part) // 2
            for rows in (part.rows.iloc[:half], part.rows.iloc[half:]):
                self._fill(part.with_rows(rows))


def _problem_of(facts: FileFacts) -> str | None:
    return facts.problem or (None if facts.meant_as_image else "not an image")


def _dataset(incoming: Incoming, paths: list[str], facts: Mapping[str, FileFacts]) -> Dataset:
    """The photos as a data set, of which nobody knows the classes."""
    rows = [(facts[path].digest, path, "", 0, "test", facts[path].format) for path in paths]
    return Dataset(pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS), [], incoming.folder)


def _error_row(path: str, facts: FileFacts | None, words: str) -> dict[str, object]:
    return {"path": path, "sha256": (facts.digest or None) if facts else None, "error": words}


def _rows(
    paths: list[str], facts: Mapping[str, FileFacts], classifier: OnnxClassifier, answers: Answers
) -> list[dict[str, object]]:
    names, largest = classifier.class_names, answers.probabilities.max(axis=1)
    novelty = [None] * len(paths) if answers.novelty is None else answers.novelty.tolist()
    can_be_novel = answers.novelty is not None and classifier.novel_above is not None
    rows = []
    for path, probabilities, top, new in zip(paths, answers.probabilities, largest, novelty, strict=True):
        class_name = classifier.class_of(probabilities)
        row = {"path": path, "sha256": facts[path].digest, "class": class_name, "probability": top}
        row |= {"unsure": class_name is None, "novelty": new, "model": classifier.digest}
        row |= {"novel": classifier.is_novel(new) if can_be_novel else None}
        row |= {name: getattr(facts[path], name) for name in _STATISTICS}
        rows.append(row | {CLASS + name: value for name, value in zip(names, np.asarray(probabilities), strict=True)})
    return rows
