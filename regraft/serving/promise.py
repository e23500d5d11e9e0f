"""What a file promises of its answers, in the metadata of the file itself."""

from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, fields


@dataclass(frozen=True, slots=True)
class Promise:
    """What holds for a model that answers only where its largest probability is `abstain_below` or more."""

    abstain_below: float  # 0: it answers everything
    target_precision: float  # share of right answers among all answers, at least
    confidence: float  # chance, over the draw of val, that it is so

    def as_metadata(self) -> dict[str, str]:
        """Return what an ONNX file says of itself, as numbers in words."""
        return {name: repr(value) for name, value in asdict(self).items()}

    def __str__(self) -> str:
        """The promise in words."""
        where = f"at {self.abstain_below:.6g} and above" if self.abstain_below else "whatever the probability"
        precision, confidence = 100 * self.target_precision, 100 * self.confidence
        return f"{where}, at least {precision:g}% of answers are right ({confidence:g}% confidence)"


def read_promise(metadata: Mapping[str, str]) -> Promise | None:
    """Return what `Promise.as_metadata` said, or None if a file says nothing of it.

    Raises:
        ValueError: it says something else.
    """
    found = [metadata[field.name] for field in fields(Promise) if field.name in metadata]
    if not found:
        return None
    promise = Promise(*map(float, found)) if len(found) == len(fields(Promise)) else None
    if promise is None or not all(0 <= value <= 1 for value in astuple(promise)):
        raise ValueError(f"{', '.join(field.name for field in fields(Promise))} must be numbers from 0 to 1")
    return promise
