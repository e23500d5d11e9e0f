"""The sections of params.yaml about the file to ship: how it is made, judged and promoted."""

from typing import Annotated, Literal

from pydantic import Field

from regraft.core.setting_types import (
    AnyClassNames,
    AnyPath,
    Floors,
    Mlflow,
    Section,
    Severity,
)


class ExportOnnx(Section):
    """Stage 9: the file to ship, and the proof that it computes what was trained."""

    class_shares: dict[str, Annotated[float, Field(gt=0)]] | None


class Quantise(Section):
    """Stage 10: the same file in int8, where that is shown to cost next to nothing of the accuracy."""

    mode: Literal["off", "auto"]
    budget: float = Field(gt=0, lt=1)


class Evaluate(Section):
    """Stage 11: the figures on the test split."""

    target_precision: Annotated[float, Field(gt=0, lt=1)] | None


class Promote(Section):
    """After the stages, in the flow: which model services use."""

    mode: Literal["auto", "approve"]
    approve_hours: float = Field(gt=0, le=24 * 30)
    margin: float = Field(gt=0, lt=1)
    alpha: float = Field(gt=0, le=0.5)
    max_loss: float = Field(gt=0, le=1)
    max_class_loss: float = Field(gt=0, le=1)
    when_undecided: Literal["promote", "keep", "auto"]
    retired_classes: AnyClassNames
    floors: Floors
    keep: int = Field(ge=1)
    mlflow: Mlflow | None


class CardWords(Section):
    """What people say of the model, for its card."""

    intended_use: str | None
    not_for: str | None
    licence: str | None
    contact: str | None


class Score(Section):
    """Beside the stages: photos without labels that the model in production scores every day."""

    photos: AnyPath | None
    keep_days: float = Field(ge=0)
    drift: Severity
