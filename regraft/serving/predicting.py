"""From photos to rows: what a shipped file says of each, whatever else lies among them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from regraft.photos.images import Threads
from regraft.serving.photo_files import MAX_PIXELS, Listed, Unreadable, with_pixels
from regraft.serving.shipped_model import Answer, ShippedModel


@dataclass(frozen=True, slots=True)
class Row:
    """What is said of one photo; of a bad file only its path and the error."""

    path: str
    class_name: str | None = None  # None also where the model is unsure
    top: tuple[tuple[str, float], ...] = ()  # the most probable classes, each with its probability, first the largest
    is_unsure: bool | None = None  # whether the largest probability is below the threshold
    novelty: float | None = None  # None also of a file without that output
    is_novel: bool | None = None  # whether that is above `novelty_above` of the file
    error: str | None = None

    @property
    def probability(self) -> float | None:
        """Of the most probable class, also where it is not named."""
        return self.top[0][1] if self.top else None


@dataclass(frozen=True, slots=True)
class Predictor:
    """A model, and how it is asked."""

    model: ShippedModel
    abstain_below: float  # the model names no class below this probability
    top: int = 1  # classes of a row, at most
    max_pixels: int = MAX_PIXELS
    counts: Counter[str] = field(default_factory=Counter)  # of rows by kind: answered, unsure, novel, bad; and skipped

    def rows(
        self, photos: Iterable[Listed], *, workers: int = 0, on_photo: Callable[[], object] = lambda: None
    ) -> Iterator[Row]:
        """Yield a row per photo, in their order; a bad file has one too, but a folder's other files have none.

        Args:
            photos: from `list_photos`.
            workers: threads, each with one photo at a time; 0 means one per core.
            on_photo: called after each, skipped ones included.
        """
        for row in Threads(workers).map(self.row, photos):
            on_photo()
            self.counts.update(_kinds(row))
            if row is not None:
                yield row

    def row(self, photo: Listed) -> Row | None:
        """Return the row of one photo; None of a file in a folder that nobody meant as a photo."""
        if photo.problem:
            return Row(photo.text, error=photo.problem)
        try:
            answer = with_pixels(photo.path, self.model.ask, max_pixels=self.max_pixels)
        except Unreadable as error:
            return Row(photo.text, error=str(error)) if photo.is_named or error.is_photo else None
        return self.row_of(photo.text, answer)

    def row_of(self, path: str, answer: Answer) -> Row:
        """Return the row of an answer."""
        order = np.argsort(-answer.probabilities, kind="stable")[: self.top]
        top = tuple((self.model.class_names[index], float(answer.probabilities[index])) for index in order)
        is_unsure = bool(answer.probabilities.max() < self.abstain_below)
        is_novel = (
            None if answer.novelty is None or self.model.novel_above is None else self.model.is_novel(answer.novelty)
        )
        return Row(path, None if is_unsure else top[0][0], top, is_unsure, answer.novelty, is_novel)


def choose_predictor(
    model: ShippedModel, *, threshold: float | None = None, top: int = 1, max_pixels: int = MAX_PIXELS
) -> Predictor:
    """Return a predictor.

    Args:
        model: the shipped file.
        threshold: below it no class is named; None takes the one of the file, and 0 where it has none.
        top: classes of a row; at most as many as there are.
        max_pixels: of the largest photo that is decoded.
    """
    promised = model.promise.abstain_below if model.promise else 0.0
    return Predictor(model, promised if threshold is None else threshold, min(top, len(model.class_names)), max_pixels)


def _kinds(row: Row | None) -> list[str]:
    if row is None:
        return ["skipped"]
    if row.error is not None:
        return ["bad"]
    return ["answered", *["unsure"] * bool(row.is_unsure), *["novel"] * bool(row.is_novel)]
