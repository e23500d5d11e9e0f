"""Before the gate: labelled photos that arrived since the last promotion judge the models of before."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from regraft.config import Params
from regraft.export.classifier import OnnxClassifier
from regraft.photos.dataset import Dataset
from regraft.production.exclusive import exclusive, repeated
from regraft.production.gate.contestants import load_champion
from regraft.production.new_photos import (
    Evidence,
    answered,
    evidence_of,
    of_pair,
    read_answers,
    select_new,
    write_answers,
)
from regraft.production.registry import Production


def ask_new_photos(
    params: Params,
    dataset: Dataset,
    groups: pd.DataFrame,
    ask: Callable[[OnnxClassifier, Dataset], np.ndarray],
) -> Evidence | None:
    """Show new photos to the model in production and to the one before it; return what all of them say so far.

    Returns:
        None where there are no two such models, or where it is not known what they were trained on.
    """
    production = Production(params.paths.production)
    champion, predecessor = production.digest, production.predecessor()
    if champion is None or predecessor is None:
        return None
    pair = (champion, predecessor)
    seen = [reference for digest in pair if (reference := production.reference_of(digest))]
    if len(seen) < len(pair):
        return None
    scored = of_pair(read_answers(production.folder), *pair)
    if not len(select_new(dataset, groups, seen, scored)):  # before models are loaded: most nights bring none
        return evidence_of(scored)
    models = [load_champion(path)[0] for path in (production.model, production.version_of(predecessor))]
    classifiers = [model for model in models if model]
    if len(classifiers) < len(models):
        return None
    both = set.intersection(*(set(classifier.class_names) for classifier in classifiers))
    known = dataset.with_rows(dataset.rows[dataset.rows.class_name.isin(both)].reset_index(drop=True))
    new = select_new(known, groups, seen, scored)
    if not len(new):
        return evidence_of(scored)
    labels = new.rows.class_name.to_numpy(str)
    right = [
        np.array(classifier.class_names, str)[ask(classifier, new).argmax(axis=1)] == labels
        for classifier in classifiers
    ]
    return _note(production, pair, answered(new, groups, pair, (right[0], right[1])))


@repeated
def _note(production: Production, pair: tuple[str, str], rows: pd.DataFrame) -> Evidence:
    """Add rows to those of the pair, and return what all of them say."""
    with exclusive(production.folder, "noting new photos", patience=production.patience):
        before = read_answers(production.folder)  # read again: another process may have added the same photos
        fresh = rows[~rows.digest.isin(of_pair(before, *pair).digest)]
        line = production.line()
        kept = before[before.champion.isin(line) & before.predecessor.isin(line)]
        write_answers(production.folder, pd.concat([kept, fresh], ignore_index=True))
        return evidence_of(of_pair(read_answers(production.folder), *pair))
