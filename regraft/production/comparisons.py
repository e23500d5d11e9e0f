"""What today's features are compared with: those of the model in production, or of the last one a person approved."""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from regraft.features.drift import Comparison, Sample
from regraft.features.table import Features
from regraft.production.training_data import Reference

_MOST_NEW = 2000  # photos; of more, evenly spaced ones say enough


def compared_features(
    found: tuple[Reference | None, str],
    against: Literal["production", "anchor"],
    features: Features,
    groups: Mapping[str, str],
) -> Comparison:
    """Return the features of what a model was trained on, and of what is new since, one photo per group.

    Args:
        found: what the model was trained on, None if that is not known, and a sentence about it, from
            `Records.find_reference` or `Records.anchor_reference`.
        against: which of the two.
        features: of the data set.
        groups: of today's photos by their digest. Of a photo that is no longer there nothing but its digest tells where
            it belongs.
    """
    reference, words = found
    if reference is None:
        return Comparison(against, words, None)
    if reference.namespace != features.namespace:
        return Comparison(against, "That model has another backbone: its features cannot be compared with these.", None)
    known = np.array([groups.get(digest, digest) for digest in reference.rows.digest.tolist()], object)
    sampled = reference.rows.sampled.to_numpy()
    first = _first_of_each(known[sampled])
    photos = np.flatnonzero(features.views == 0)
    of_photos = np.array([groups[features.digests[row]] for row in photos.tolist()], object)
    new = _first_of_each(of_photos)
    known_groups = set(known.tolist())
    new = photos[[row for row in new.tolist() if of_photos[row] not in known_groups]]
    new = new[np.linspace(0, len(new) - 1, min(len(new), _MOST_NEW)).round().astype(int)]
    samples = (
        Sample(reference.features[first], reference.rows.label.to_numpy(str)[sampled][first]),
        Sample(features.read(new), np.array(features.class_names)[features.class_indices[new]]),
    )
    return Comparison(against, words, samples)


def _first_of_each(groups: np.ndarray) -> np.ndarray:
    """Positions of the first photo of each group, in order."""
    return np.sort(np.unique(groups, return_index=True)[1])
