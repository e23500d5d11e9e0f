"""params.yaml as frozen objects: every setting that Regraft has, checked before anything runs.

There are no defaults here. A default that DVC cannot see would change results without a rerun.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from regraft.core.addresses import address_of
from regraft.core.config_shipping import CardWords, Evaluate, ExportOnnx, Promote, Quantise, Score
from regraft.core.setting_types import (
    ClassNames,
    ClassWeight,
    Count,
    Engine,
    NumberOrAuto,
    PhotoSchemes,
    Place,
    ProjectPath,
    Section,
    Several,
    Severity,
    Share,
    cluster_address,
    without_secret,
)

# `python -m benchmarks.accuracy` measures what each costs and brings.
BUDGETS: dict[str, dict[str, Any]] = {
    "quick": {"views": 0, "layers": "top", "epochs": 6},
    "balanced": {"views": 4, "layers": "top", "epochs": 10},
    "thorough": {"views": 0, "layers": "all", "epochs": 15},
}
_PLACES = {"cache_features": ["views"], "fine_tune": ["layers", "epochs"]}
AUTO = "auto"


def with_budget(contents: Any) -> Any:
    """Return what params.yaml holds with the values that its budget has in place of `auto`; what is wrong stays so."""
    if not isinstance(contents, dict) or not isinstance(contents.get("fine_tune"), dict):
        return contents
    tuning = contents["fine_tune"]
    buys = BUDGETS.get(str(tuning.get("budget")), BUDGETS["balanced"])
    if tuning.get("mode") == "off":
        buys = buys | {"views": 0}  # they are for fine-tuning, and cost passes
    return contents | {
        section: contents[section] | {key: buys[key] for key in keys if contents[section].get(key) == AUTO}
        for section, keys in _PLACES.items()
        if isinstance(contents.get(section), dict)
    }


class Paths(Section):
    """Where things lie, relative to the project's root: three are settings, the others stand in dvc.yaml too."""

    raw: ProjectPath
    store: ProjectPath
    production: Place  # of an address the folder that mirrors it

    manifest: ClassVar = Path("build/manifest.parquet")
    dataset: ClassVar = Path("build/dataset.parquet")
    splits: ClassVar = Path("data/splits.csv")
    renewals: ClassVar = Path("data/base_renewals.csv")
    features: ClassVar = Path("build/features.arrow")
    base_photos: ClassVar = Path("build/base_photos.parquet")
    left_out: ClassVar = Path("build/left_out.parquet")
    base: ClassVar = Path("models/base.npz")
    head: ClassVar = Path("models/head.npz")
    model: ClassVar = Path("models/model.npz")
    onnx: ClassVar = Path("models/model.onnx")
    onnx_int8: ClassVar = Path("models/model.int8.onnx")
    reports: ClassVar = Path("reports")
    receipts: ClassVar = Path("receipts")
    expectations: ClassVar = Path("expectations")

    @property
    def candidates(self) -> Path:
        """The models that the gate did not promote; with production at an address they lie there."""
        return self.production / "candidates" if address_of(self.production) else Path("models/candidates")

    @classmethod
    def constants(cls) -> dict[str, Path]:
        """Return the paths that are no settings, by name."""
        return {name: value for name, value in vars(cls).items() if isinstance(value, Path)}


class Machine(Section):
    """How hard to work. No result depends on it, so no stage is redone when it changes."""

    workers: int = Field(ge=0)
    batch_size: int = Field(ge=1)
    shared_store: Annotated[str | None, AfterValidator(without_secret)]
    allow_recompute: bool
    cluster: Annotated[str | None, AfterValidator(cluster_address)]
    photo_schemes: PhotoSchemes
    photo_private_addresses: bool
    photo_cache: float = Field(ge=0)


class ValidateData(Section):
    """Stage 1: which files are used. The expectations about them stand in expectations/photos.json."""

    max_pixels: int = Field(ge=1)
    max_seconds: float = Field(gt=0)
    max_hash_distance: Annotated[int, Field(ge=0, le=32)] | None
    on_label_conflict: Literal["drop", "keep", "error"]
    classes: ClassNames | None


class Preprocess(Section):
    """Stage 2: the split, the crop, and how augmented views are drawn."""

    val_share: Share
    test_share: Share
    crop_fraction: float = Field(gt=0.1, le=1)
    fast_decoding: bool
    augment_min_area: float = Field(gt=0, le=1)
    augment_flip: bool
    augment_colour: Share


class BackboneChoice(Section):
    """The pretrained network."""

    name: str
    weights: str | None
    preprocessing: Literal["auto", "none", "tf", "torch", "caffe"]
    image_size: Literal["auto"] | Annotated[int, Field(ge=32, le=2048)]
    cut: str
    engine: Engine


class CacheFeatures(Section):
    """Stage 3: what the frozen backbone sees."""

    views: Annotated[int, Field(ge=0, le=64), NumberOrAuto]


class CheckFeatures(Section):
    """Stage 4: what the frozen features must say about the photos. A violated check stops the run if it is `error`."""

    leaks: Severity
    label_errors: Severity
    outliers: Severity
    drift: Severity


class TrainHead(Section):
    """Stage 5: the new classifier on frozen features. A list of values is a sweep: every combination is tried."""

    kind: Several[Literal["linear", "classic"]]
    penalty: Several[Annotated[float, Field(gt=0)]]
    label_smoothing: Several[Share]
    class_weight: ClassWeight
    learning_curve: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(strict=False)


class FineTune(Section):
    """Stages 6 to 8: the top of the backbone, or all of it, is trained together with the head."""

    mode: Literal["off", "auto", "always"]
    budget: Literal["quick", "balanced", "thorough"]
    layers: str = Field(min_length=1)
    epochs: Annotated[int, Field(ge=1, le=65_535), NumberOrAuto]
    learning_rate: float = Field(gt=0)
    max_minutes: float = Field(gt=0)
    max_photos: Count
    renew_after: Share


class Nights(Section):
    """Runs that nobody watches; no result depends on it."""

    wait_minutes: float = Field(ge=0)
    stage_hours: float = Field(gt=0)
    watch: Annotated[str | None, AfterValidator(without_secret)]
    watch_seconds: float = Field(gt=0)
    settle_seconds: float = Field(ge=0)
    branch: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w./-]*$")] | None
    push: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")] | None


class Report(Section):
    """What a person is shown; no result depends on it."""

    card: CardWords


class Params(Section):
    """All of params.yaml."""

    seed: int = Field(ge=0, lt=2**32)
    paths: Paths
    machine: Machine
    validate_data: ValidateData
    preprocess: Preprocess
    backbone: BackboneChoice
    cache_features: CacheFeatures
    check_features: CheckFeatures
    train_head: TrainHead
    fine_tune: FineTune
    export_onnx: ExportOnnx
    quantise: Quantise
    evaluate: Evaluate
    promote: Promote
    score: Score
    nights: Nights
    report: Report
