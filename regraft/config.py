"""params.yaml as frozen objects: every setting that Regraft has, checked before anything runs.

There are no defaults here. A default that DVC cannot see would change results without a rerun.
"""

import re
import unicodedata
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from regraft.errors import InvalidParams


def _inside_project(path: Path) -> Path:
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError("must be a path inside the project folder, relative to it")
    return path


def _text_to_path(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("must be a path inside the project folder, relative to it")
    return Path(PurePosixPath(value))


def _several(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _different(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values or len(set(values)) < len(values):
        raise ValueError("must be a value, or a list of different values")
    return values


def _list_to_tuple(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise ValueError("must be null or a list of names")
    return tuple(value)


def _as_in_folders(names: tuple[str, ...]) -> tuple[str, ...]:
    # As regraft.photos.manifest reads them: an accented letter may be one code point or two.
    return tuple(unicodedata.normalize("NFC", name).strip() for name in names)


def _without_secret(url: str | None) -> str | None:
    if url and urlsplit(url).password is not None:
        raise ValueError("must be a URL without a password, since this file is in git; the environment is for those")
    return url


ProjectPath = Annotated[Path, BeforeValidator(_text_to_path), AfterValidator(_inside_project)]
T = TypeVar("T")
Several = Annotated[tuple[T, ...], BeforeValidator(_several), AfterValidator(_different)]
Share = Annotated[float, Field(ge=0, lt=1)]
ClassNames = Annotated[
    tuple[str, ...], BeforeValidator(_list_to_tuple), AfterValidator(_as_in_folders), AfterValidator(_different)
]
ClassWeight = Literal["none", "balanced", "logit_adjustment"]
Severity = Literal["error", "warn", "off"]
Engine = Literal["auto", "onnxruntime", "onnxruntime-int8", "tensorflow"]


class Section(BaseModel):
    """Base of every section of params.yaml: immutable, strictly typed, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Paths(Section):
    """Where things lie, relative to the project's root."""

    raw: ProjectPath
    manifest: ProjectPath
    dataset: ProjectPath
    features: ProjectPath
    store: ProjectPath
    head: ProjectPath
    model: ProjectPath
    onnx: ProjectPath
    production: ProjectPath
    reports: ProjectPath
    expectations: ProjectPath


class Machine(Section):
    """How hard to work. No result depends on it, so no stage is redone when it changes."""

    workers: int = Field(ge=0)
    batch_size: int = Field(ge=1)
    shared_store: Annotated[str | None, AfterValidator(_without_secret)]


class Severities(Section):
    """What a violated expectation does; one key per expectation of `regraft.validation.checks`."""

    some_images: Severity
    two_classes: Severity
    known_classes: Severity
    present_classes: Severity
    enough_images_per_class: Severity
    readable_images: Severity
    balanced_classes: Severity
    large_enough_images: Severity
    right_suffix: Severity
    usual_shape: Severity
    bright_enough: Severity
    not_too_bright: Severity
    enough_contrast: Severity
    sharp_enough: Severity
    enough_information: Severity
    no_copies: Severity
    no_near_copies: Severity
    one_label_per_group: Severity
    no_copies_across_splits: Severity
    no_new_classes: Severity
    no_vanished_classes: Severity
    class_shares_as_before: Severity
    statistics_as_before: Severity


class ValidateData(Section):
    """Stage 1: what the images must be like."""

    max_pixels: int = Field(ge=1)
    max_seconds: float = Field(gt=0)
    max_hash_distance: Annotated[int, Field(ge=0, le=32)] | None
    on_label_conflict: Literal["drop", "keep", "error"]
    classes: ClassNames | None
    min_images_per_class: int = Field(ge=1)
    max_quarantined_share: float = Field(ge=0, le=1)
    max_imbalance: float = Field(ge=1)
    min_side: int = Field(ge=1)
    max_aspect_ratio: float = Field(ge=1)
    min_brightness: float = Field(ge=0, le=1)
    max_brightness: float = Field(ge=0, le=1)
    min_contrast: float = Field(ge=0, le=0.5)
    min_sharpness: float = Field(ge=0)
    min_entropy: float = Field(ge=0, le=8)
    max_psi: float = Field(gt=0)
    severity: Severities


class Preprocess(Section):
    """Stage 2: the split, the crop, and how augmented views are drawn."""

    val_share: Share
    test_share: Share
    crop_fraction: float = Field(gt=0.1, le=1)
    fast_decoding: bool
    augment_min_area: float = Field(gt=0, le=1)
    augment_max_stretch: float = Field(ge=1, le=4)
    augment_flip: bool
    augment_brightness: Share
    augment_contrast: Share
    augment_saturation: Share


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

    views: int = Field(ge=0, le=64)


class CheckFeatures(Section):
    """Stage 4: what the frozen features must say about the photos. A violated check stops the run if it is `error`."""

    leaks: Severity
    min_similarity: float = Field(gt=0, le=1)
    label_errors: Severity
    max_label_errors: float = Field(ge=0, le=1)
    outliers: Severity
    outlier_distance: float = Field(gt=0)
    max_outliers: float = Field(ge=0, le=1)
    drift: Severity
    drift_significance: float = Field(gt=0, le=0.5)


class TrainHead(Section):
    """Stage 5: the new classifier on frozen features. A list of values is a sweep: every combination is tried."""

    kind: Several[Literal["linear", "mlp", "classic"]]
    hidden_units: int = Field(ge=1)
    activation: Literal["relu", "silu", "tanh"]
    dropout: Several[Share]
    learning_rate: Several[Annotated[float, Field(gt=0)]]
    weight_decay: Several[Annotated[float, Field(ge=0)]]
    label_smoothing: Several[Share]
    class_weight: ClassWeight
    batch_size: int = Field(ge=1)
    epochs: int = Field(ge=1)
    patience: int = Field(ge=1)
    learning_curve: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(strict=False)


class FineTune(Section):
    """Stage 6: the top of the backbone, or all of it, is trained together with the head."""

    mode: Literal["off", "auto", "always"]
    layers: str = Field(min_length=1)
    epochs: int = Field(ge=1, le=65_535)
    patience: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    layer_decay: float = Field(gt=0, le=1)
    weight_decay: float = Field(ge=0)
    label_smoothing: Share
    batch_size: int = Field(ge=1)
    significance: float = Field(gt=0, le=0.5)
    max_minutes: float = Field(gt=0)


class ExportOnnx(Section):
    """Stage 7: the file to ship, and the proof that it computes what was trained."""

    parity_images: int = Field(ge=1)
    tolerance: float = Field(gt=0)


class Evaluate(Section):
    """Stage 8: the figures on the test split."""

    calibration_bins: int = Field(ge=2)


class Promote(Section):
    """After the stages, in the flow: which model services use."""

    margin: float = Field(ge=0, le=1)
    keep: int = Field(ge=1)


class Report(Section):
    """What a person is shown; no result depends on it."""

    photos: int = Field(ge=0)


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
    evaluate: Evaluate
    promote: Promote
    report: Report


def load_params(path: Path) -> Params:
    """Read and check params.yaml.

    It is read by ruamel as DVC reads it: PyYAML takes `1e-5` for text and `no` for False.

    Raises:
        InvalidParams: the file is missing or not YAML, a key is missing, unknown or misspelt, or a value has the wrong
            type or range. The message names every such key, what was expected and what was found.
    """
    try:
        contents = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidParams(f"{path} does not exist. Run this in the project's root, or restore it from git.") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise InvalidParams(f"{path} is not valid YAML: {' '.join(str(error).split())}. Mend that line.") from None
    try:
        params = Params.model_validate(contents)
    except ValidationError as error:
        lines = _in_words(error.errors())
        raise InvalidParams("\n".join([f"{path} has {len(lines)} setting(s) to mend:", *lines])) from None
    if params.preprocess.val_share + params.preprocess.test_share >= 1:
        raise InvalidParams(
            f"{path} has 1 setting(s) to mend:\n  preprocess: expected val_share + test_share below 1, so that images "
            f"are left to train on. Received: {params.preprocess.val_share} + {params.preprocess.test_share}."
        )
    return params


def _in_words(problems: list[Any]) -> list[str]:
    """One line per key: what was expected, what was found, what to do."""
    lines: dict[str, str] = {}
    for problem in problems:
        # Pydantic adds the alternative's type to the location of a union; a key of params.yaml is all a person needs.
        known = [str(part) for part in problem["loc"] if part in _KEYS]
        key = ".".join(known) or "params.yaml"
        if problem["type"] == "extra_forbidden":
            section: Any = Params
            for part in known[: len(problem["loc"]) - 1]:
                section = section.model_fields[part].annotation
            key = ".".join(str(part) for part in problem["loc"])
            expected = ", ".join(section.model_fields)
            lines[key] = f"  {key}: unknown key. Expected one of: {expected}. Remove it or correct its spelling."
        elif problem["type"] == "missing":
            lines[key] = f"  {key}: missing. Add it; the project's own params.yaml says what it does."
        else:
            expected = re.sub(r"^(Value error, )?(Input should be |must be )?", "", problem["msg"])
            before = lines[key].partition(". Received")[0] + " or " if key in lines else f"  {key}: expected "
            # A password that somebody wrote into a URL must not reach a log either.
            received = re.sub(r"//[^/@]*@", "//***@", repr(problem["input"]))
            lines[key] = f"{before}{expected}. Received: {received}."
    return list(lines.values())


def _all_keys(section: type[BaseModel]) -> set[str]:
    inner = [field.annotation for field in section.model_fields.values()]
    sections = [part for part in inner if isinstance(part, type) and issubclass(part, BaseModel)]
    return set(section.model_fields).union(*map(_all_keys, sections))


_KEYS = _all_keys(Params)
