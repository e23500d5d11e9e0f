"""Before the gate: labelled photos that arrived since the last promotion judge the models of before."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from regraft.config import Params
from regraft.export.classifier import OnnxClassifier
from regraft.photos.dataset import Dataset
from regraft.production.exclusive import exclusive
from regraft.production.gate.contestants import load_champion
from regraft.production.gate.trial import Former
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
    formers = _formers(production)
    if not formers:
        return None
    champion, predecessor = formers
    pair = (champion.classifier.digest, predecessor.classifier.digest)
    scored = of_pair(read_answers(production.folder), *pair)
    both = set(champion.classifier.class_names) & set(predecessor.classifier.class_names)
    known = dataset.with_rows(dataset.rows[dataset.rows.class_name.isin(both)].reset_index(drop=True))
    seen = [former.reference for former in formers if former.reference]
    new = select_new(known, groups, seen, scored)
    if not len(new):
        return evidence_of(scored)
    labels = new.rows.class_name.to_numpy(str)
    right = [
        np.array(former.classifier.class_names, str)[ask(former.classifier, new).argmax(axis=1)] == labels
        for former in formers
    ]
    rows = answered(new, groups, pair, (right[0], right[1]))
    with exclusive(production.folder, "noting new photos", patience=production.patience):
        before = read_answers(production.folder)  # read again: another process may have added the same photos
        fresh = rows[~rows.digest.isin(of_pair(before, *pair).digest)]
        line = production.line()
        kept = before[before.champion.isin(line) & before.predecessor.isin(line)]
        write_answers(production.folder, pd.concat([kept, fresh], ignore_index=True))
        return evidence_of(of_pair(read_answers(production.folder), *pair))


def _formers(production: Production) -> list[Former]:
    """The model in production and the one before it; none where one is of no use, or its training is not known."""
    digest, before = production.digest, production.predecessor()
    if digest is None or before is None:
        return []
    formers = []
    for each, path in ((digest, production.model), (before, production.version_of(before))):
        classifier, reference = load_champion(path)[0], production.reference_of(each)
        if classifier is None or reference is None:
            return []
        formers.append(Former(classifier, reference))
    return formers
