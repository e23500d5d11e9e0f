"""The sections of params.yaml about the file to ship: how it is made, judged and promoted."""

from typing import Annotated, Literal

from pydantic import Field

from regraft.core.setting_types import (
    AnyClassNames,
    AnyPath,
    AtMost,
    Floors,
    Mlflow,
    Positive,
    ProjectPath,
    Section,
    ShareOrAll,
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

    max_photos: int = Field(ge=1)
    calibration_bins: int = Field(ge=2)
    target_precision: Annotated[float, Field(gt=0, lt=1)] | None


class Promote(Section):
    """After the stages, in the flow: which model services use."""

    mode: Literal["auto", "approve"]
    approve_hours: float = Field(gt=0, le=24 * 30)
    margin: float = Field(gt=0, lt=1)
    alpha: float = Field(gt=0, le=0.5)
    alpha_harm_chosen: float = Field(gt=0, le=0.5)
    alpha_margin_chosen: float = Field(gt=0, lt=1)
    max_loss: float = Field(gt=0, le=1)
    max_class_loss: float = Field(gt=0, le=1)
    min_photos: int = Field(ge=1)
    max_relabelled: ShareOrAll
    when_undecided: Literal["promote", "keep", "auto"]
    given_up: AnyClassNames
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
    """Beside the stages: photos without labels that the model in production is asked about every day."""

    photos: AnyPath | None
    output: ProjectPath
    keep_days: float = Field(ge=0)
    drift_photos: int = Field(ge=20)
    drift_days: Positive
    class_shares: AtMost[Positive]
    statistics: AtMost[Positive]
    novel: AtMost[ShareOrAll]
    unsure: AtMost[ShareOrAll]
    significance: float = Field(gt=0, le=0.5)
