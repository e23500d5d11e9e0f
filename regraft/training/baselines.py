"""Conclusions from the features alone: is transfer worth it here, and would more photos help?

All classifiers are compared on the same val photos. A difference is shown where its paired interval excludes zero, and
excluded where the interval excludes every gain that is worth something; else the photos cannot tell.
"""

import warnings
from dataclasses import dataclass, fields

import numpy as np

from regraft.core.statistics import Interval, tango_interval, wilson
from regraft.photos.sample import stable_sample
from regraft.training.heads import Rows
from regraft.training.metrics import Objective, in_words

_NEIGHBOURS = 5
_NORMAL_95 = 1.96
_WORTH = 0.02  # a smaller gain is worth no other backbone and no more photos
_EXCLUDED = f"a gain of {100 * _WORTH:g} points or more is excluded"
_IMAGES = {"train": 8192, "val": 2048}  # at most; of more, a stable sample in which each class keeps its share


@dataclass(frozen=True, slots=True)
class Probes:
    """Whether classifiers that need no training are right for val images, bool, shape (n,)."""

    majority: np.ndarray  # the largest class of train, always
    nearest_centroid: np.ndarray  # the class whose mean feature is nearest
    nearest_neighbours: np.ndarray  # a vote of the five nearest images of train, the nearer the more
    asked: np.ndarray  # positions of these n among the val images that judge heads

    def accuracies(self) -> dict[str, Interval]:
        """Return each classifier's accuracy on val with its interval, by its name."""
        return {field.name: accuracy_of(getattr(self, field.name)) for field in fields(self) if field.name != "asked"}


def accuracy_of(right: np.ndarray) -> Interval:
    """Return the share of right answers with its 95 % interval."""
    return wilson(int(right.sum()), len(right))


def recall_of(values: np.ndarray, class_indices: np.ndarray) -> Interval:
    """Return the mean over classes of the mean value of their images, with a normal 95 % interval.

    The variance is that of stratified sampling (Cochran, "Sampling Techniques", 1977, theorem 5.3); of a class with one
    image it counts as the largest of a share, 1/4. `values` are right or wrong, or differences of two such, shape (n,).
    """
    of_classes = [values[class_indices == index].astype(float) for index in np.unique(class_indices)]
    mean = float(np.mean([part.mean() for part in of_classes]))
    variances = [part.var(ddof=1) / len(part) if len(part) > 1 else 0.25 for part in of_classes]
    reach = _NORMAL_95 * float(np.sqrt(np.sum(variances))) / len(of_classes)
    return Interval(mean, mean - reach, mean + reach)


def probe(rows: Rows) -> Probes:
    """Classify val by nearness in feature space; near means a large cosine.

    Of train and val only the unchanged view of each image counts, and of large splits a sample.
    """
    from sklearn.dummy import DummyClassifier
    from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
    from sklearn.preprocessing import normalize

    features, images, classes, asked = rows.features, {}, {}, np.zeros(0, int)
    for split, positions in (("train", rows.train), ("val", rows.val)):
        asked = np.flatnonzero(features.views[positions] == 0)
        positions = positions[asked]
        chosen = stable_sample(rows.digests(positions), features.class_indices[positions], _IMAGES[split])
        asked, positions = asked[chosen], positions[chosen]
        # Of vectors of length one, the nearest have the largest cosine.
        images[split] = normalize(features.read(positions))
        classes[split] = features.class_indices[positions]

    def is_right(classifier: DummyClassifier | NearestCentroid | KNeighborsClassifier) -> np.ndarray:
        with warnings.catch_warnings():
            # scikit-learn warns of features that are equal within a class: those that are always 0 after a ReLU.
            warnings.simplefilter("ignore")
            return classifier.fit(images["train"], classes["train"]).predict(images["val"]) == classes["val"]

    return Probes(
        majority=is_right(DummyClassifier(strategy="most_frequent")),
        nearest_centroid=is_right(NearestCentroid()),
        nearest_neighbours=is_right(
            KNeighborsClassifier(min(_NEIGHBOURS, len(images["train"])), algorithm="brute", weights="distance")
        ),
        asked=asked,  # the last split is val
    )


@dataclass(frozen=True, slots=True)
class Yardstick:
    """The figure that classifiers are compared by on val: accuracy, or macro recall where rare classes are helped."""

    objective: Objective
    class_indices: np.ndarray  # of the val images

    def share(self, right: np.ndarray, asked: np.ndarray | None = None) -> Interval:
        """Return the share of right answers for the val images `asked` (positions; None for all), bool, shape (n,)."""
        if self.objective.share == "accuracy":
            return accuracy_of(right)
        return recall_of(right, self.class_indices if asked is None else self.class_indices[asked])

    def gain(self, before: np.ndarray, after: np.ndarray, asked: np.ndarray | None = None) -> Interval:
        """Return the paired gain of a second classifier on these images, with its 95 % interval."""
        if self.objective.share == "accuracy":
            return tango_interval(int((before & ~after).sum()), int((after & ~before).sum()), len(before))
        return recall_of(
            after.astype(float) - before, self.class_indices if asked is None else self.class_indices[asked]
        )


def conclusions(
    probes: Probes, head: np.ndarray, curve: dict[int, np.ndarray], photos: int, yardstick: Yardstick
) -> list[str]:
    """Return in words whether transfer works here, and whether more photos would help.

    Args:
        probes: from `probe`.
        head: whether the chosen head is right for each val image, bool, shape (n,).
        curve: the same of heads that were trained on fewer photos, by their number.
        photos: of train.
        yardstick: of the comparison.
    """
    asked, figure = probes.asked, in_words(yardstick.objective.share)
    over_majority, over_neighbours = (
        yardstick.gain(probe, head[asked], asked) for probe in (probes.majority, probes.nearest_neighbours)
    )
    figures = f"on {len(head)} val photos the head has {figure} {yardstick.share(head)}, always naming the largest"
    largest = f"class {yardstick.share(probes.majority, asked).value:.1%}"
    if over_majority.low <= 0:
        start, end = f"Whether transfer works here cannot be told from {len(asked):,} val photos", "More photos tell"
        if over_majority.high < _WORTH:
            start = "Transfer does not work here"
            end = f"{_EXCLUDED.capitalize()}. Look at the labels, or try another backbone"
        words = [f"{start}: {figures} {largest} (for the head {_signed(over_majority)}). {end}."]
    else:
        neighbours = yardstick.share(probes.nearest_neighbours, asked).value
        words = [
            f"Transfer works: {figures} {largest} (for the head {_signed(over_majority)}), the nearest neighbours in "
            f"feature space {neighbours:.1%} (for the head {_signed(over_neighbours)})."
        ]
        if over_neighbours.high < 0:
            words.append("The neighbours beat the head: it is trained too little, or its settings do not fit.")
    if curve:
        fewer, before = max(curve.items(), key=lambda point: point[0])
        gain = yardstick.gain(before, head)
        verdict = f"{len(head):,} val photos cannot tell whether more photos would help"
        if gain.low > 0:
            verdict = "more photos of the same kind are likely to help"
        elif gain.high < _WORTH:
            verdict = f"{_EXCLUDED}, so more photos of the same kind may change little"
        words.append(
            f"With {fewer:,} of the {photos:,} training photos it has {yardstick.share(before).value:.1%}; all bring "
            f"{_signed(gain)}: {verdict}."
        )
    return words


def _signed(gain: Interval) -> str:
    """A difference of two shares in points, with its interval."""
    return f"{100 * gain.value:+.1f} points, {100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
