"""What the features alone say about a data set: is transfer worth it here, and would more photos help?"""

import warnings
from dataclasses import dataclass

import numpy as np

from regraft.features.table import Features
from regraft.training.heads import TrainedHead

_NEIGHBOURS = 5
_IMAGES = {"train": 8192, "val": 2048}  # at most; of more, an evenly spaced part


@dataclass(frozen=True, slots=True)
class Probes:
    """Accuracies on val, between 0 and 1, of classifiers that need no training."""

    majority: float  # the largest class of train, always
    nearest_centroid: float  # the class whose mean feature is nearest
    nearest_neighbours: float  # a vote of the five nearest images of train, the nearer the more


def probe(features: Features) -> Probes:
    """Classify val by nearness in feature space; near means a large cosine.

    Of train and val only the unchanged view of each image counts, and of large splits an evenly spaced part.
    """
    from sklearn.dummy import DummyClassifier
    from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
    from sklearn.preprocessing import normalize

    images, classes = {}, {}
    for split, most in _IMAGES.items():
        positions = features.positions(split)
        positions = positions[features.views[positions] == 0]
        if len(positions) > most:
            positions = positions[np.linspace(0, len(positions) - 1, most).astype(int)]
        # Of vectors of length one, the nearest have the largest cosine.
        images[split], classes[split] = normalize(features.read(positions)), features.class_indices[positions]

    def accuracy(classifier: DummyClassifier | NearestCentroid | KNeighborsClassifier) -> float:
        with warnings.catch_warnings():
            # scikit-learn warns of features that are equal within a class: those that are always 0 after a ReLU.
            warnings.simplefilter("ignore")
            return float(classifier.fit(images["train"], classes["train"]).score(images["val"], classes["val"]))

    return Probes(
        majority=accuracy(DummyClassifier(strategy="most_frequent")),
        nearest_centroid=accuracy(NearestCentroid()),
        nearest_neighbours=accuracy(
            KNeighborsClassifier(min(_NEIGHBOURS, len(images["train"])), algorithm="brute", weights="distance")
        ),
    )


def conclusions(probes: Probes, winner: TrainedHead, curve: dict[float, float], val_images: int) -> list[str]:
    """Say whether transfer works here, and whether more photos would help.

    A difference counts if it is larger than two standard errors of the accuracy, sqrt(p (1 - p) / n).

    Args:
        probes: from `probe`.
        winner: the head that was chosen.
        curve: val accuracy by share of the training images, without the whole.
        val_images: n.
    """
    accuracy = winner.best.val.accuracy
    noise = 2 * float(np.sqrt(max(accuracy * (1 - accuracy), 1 / val_images) / val_images))
    margin = f"(differences below {noise:.3f} are noise with {val_images} val photos)"
    if accuracy - probes.majority <= noise:
        words = [
            f"Transfer does not work here: the head has {accuracy:.3f} on val, and always naming the largest class "
            f"{probes.majority:.3f} {margin}. Look at the labels, or try another backbone."
        ]
    else:
        words = [
            f"Transfer works: the head has {accuracy:.3f} on val, always naming the largest class "
            f"{probes.majority:.3f}, the nearest neighbours in feature space {probes.nearest_neighbours:.3f} {margin}."
        ]
        if probes.nearest_neighbours - accuracy > noise:
            words.append("The neighbours beat the head: it is trained too little, or its settings do not fit.")
    if curve:
        share, before = max(curve.items())
        gain = accuracy - before
        verdict = "more photos of the same kind are likely to help" if gain > noise else "more photos may change little"
        words.append(f"With {share:.0%} of the training photos it has {before:.3f}; all bring {gain:+.3f}: {verdict}.")
    return words
