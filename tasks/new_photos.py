"""Before the gate: labelled photos that arrived judge the model in production against the anchor."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from regraft.core.config import Params
from regraft.export.classifier import OnnxClassifier
from regraft.photos.dataset import Dataset
from regraft.production.exclusive import exclusive, repeated
from regraft.production.gate.contestants import load_champion
from regraft.production.new_photos import (
    Evidence,
    answered,
    evidence_of,
    of_anchor,
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
    """Show new photos to the model in production and to the anchor; return what all since it is one say.

    Returns:
        None where these are one model, or where it is not known what they were trained on.
    """
    production = Production(params.paths.production)
    champion, (anchor, _) = production.digest, production.anchored()
    if champion is None or anchor is None or anchor == champion or not production.is_kept(anchor):
        return None
    pair = (champion, anchor)
    seen = [reference for digest in pair if (reference := production.reference_of(digest))]
    if len(seen) < len(pair):
        return None
    scored = _scored(production)
    if not len(select_new(dataset, groups, seen, scored)):  # before models are loaded: most nights bring none
        return evidence_of(scored, anchor)
    models = [load_champion(path)[0] for path in (production.model, production.version_of(anchor))]
    classifiers = [model for model in models if model]
    if len(classifiers) < len(models):
        return None
    both = set.intersection(*(set(classifier.class_names) for classifier in classifiers))
    known = dataset.with_rows(dataset.rows[dataset.rows.class_name.isin(both)].reset_index(drop=True))
    new = select_new(known, groups, seen, scored)
    if not len(new):
        return evidence_of(scored, anchor)
    labels = new.rows.class_name.to_numpy(str)
    right = [
        np.array(classifier.class_names, str)[ask(classifier, new).argmax(axis=1)] == labels
        for classifier in classifiers
    ]
    return _note(production, anchor, answered(new, groups, pair, (right[0], right[1])))


def _scored(production: Production) -> pd.DataFrame:
    """Return the rows since the anchor is one; whoever was its anchor before, the count began anew."""
    anchor, since = production.anchored()
    return of_anchor(read_answers(production.folder), str(anchor), [change.sha256 for change in since])


@repeated
def _note(production: Production, anchor: str, rows: pd.DataFrame) -> Evidence:
    """Add rows to those of the anchor, and return what all of them say."""
    with exclusive(production.folder, "noting new photos", patience=production.patience):
        before = _scored(production)  # read again: another process may have added the same photos
        fresh = rows[~rows.digest.isin(before.digest)]
        write_answers(production.folder, pd.concat([before, fresh], ignore_index=True))
        return evidence_of(_scored(production), anchor)
