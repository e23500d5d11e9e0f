"""What the settings of params.yaml are made of: types of values with their ranges, and sections within sections."""

import re
import unicodedata
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from regraft.core.addresses import EXPECTED, is_address, is_short_enough, mirror_of


def _inside_project(path: Path) -> Path:
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError("must be a path inside the project folder, relative to it")
    return path


def _text_to_path(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("must be a path inside the project folder, relative to it")
    return Path(PurePosixPath(value))


def _place_to_path(value: Any) -> Any:
    """An address becomes the folder that mirrors it (`regraft.core.addresses.address_of` tells the address)."""
    if not isinstance(value, str) or "://" not in value:
        return _text_to_path(value)
    if not is_address(value) or not is_short_enough(value):
        raise ValueError(f"must be a path inside the project folder, or {EXPECTED}; of at most 180 letters")
    return mirror_of(value)


def _text_to_any_path(value: Any) -> Any:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a path, relative to the project's folder or from the root on")
    return Path(value)


def _not_int8(value: Any) -> Any:
    if value == "onnxruntime-int8":
        raise ValueError(
            "must be auto, onnxruntime or tensorflow: there is no int8 backbone any more. For a file in int8 set "
            "quantise.mode to auto; it becomes models/model.int8.onnx"
        )
    return value


def _several(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _different(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values or len(set(values)) < len(values):
        raise ValueError("must be a value, or a list of different values")
    return values


def _names_or(expected: str) -> BeforeValidator:
    def to_tuple(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise ValueError(f"must be {expected}")
        return tuple(value)

    return BeforeValidator(to_tuple)


def _as_in_folders(names: tuple[str, ...]) -> tuple[str, ...]:
    # As regraft.photos.manifest reads them: an accented letter may be one code point or two.
    return tuple(unicodedata.normalize("NFC", name).strip() for name in names)


def _number_or_auto(value: Any) -> Any:
    # `auto` is a number by now: see `regraft.core.config.with_budget`.
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("must be a whole number, or auto")
    return value


def cluster_address(address: str | None) -> str | None:
    """Refuse what is no address of a cluster."""
    if address is not None and not _CLUSTER.fullmatch(address):
        raise ValueError("must be null, local:N for N processes of this machine, tcp://host:port or tls://host:port")
    return address


def without_secret(url: str | None) -> str | None:
    """Refuse an address that could hold a secret, or that is none of a shared store."""
    if url and not is_address(url):
        raise ValueError(f"must be {EXPECTED}")
    return url


def _without_password(uri: str | None) -> str | None:
    """Refuse the address of a registry that could hold a secret: a user, a password, a query."""
    if uri is not None and not _REGISTRY.fullmatch(uri):
        raise ValueError(
            "must be null or an address without user, password and query: http://host:5000, https://host/path, "
            "sqlite:///file.db, databricks; secrets belong in the environment"
        )
    return uri


_REGISTRY = re.compile(r"https?://[\w.-]+(:[0-9]{1,5})?(/[\w./-]*)?|sqlite:///[\w./ -]+|databricks(://[\w-]+)?")
_CLUSTER = re.compile(r"local:[1-9][0-9]{0,2}|(tcp|tls)://([\w.-]+|\[[0-9a-f:]+\]):[0-9]{1,5}", re.ASCII)
ProjectPath = Annotated[Path, BeforeValidator(_text_to_path), AfterValidator(_inside_project)]
Place = Annotated[Path, BeforeValidator(_place_to_path), AfterValidator(_inside_project)]
AnyPath = Annotated[Path, BeforeValidator(_text_to_any_path)]
T = TypeVar("T")
Several = Annotated[tuple[T, ...], BeforeValidator(_several), AfterValidator(_different)]
NumberOrAuto = BeforeValidator(_number_or_auto)
Share = Annotated[float, Field(ge=0, lt=1)]
ShareOrAll = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
ClassNames = Annotated[
    tuple[str, ...], _names_or("null or a list of names"), AfterValidator(_as_in_folders), AfterValidator(_different)
]
AnyClassNames = Annotated[tuple[str, ...], _names_or("a list of names"), AfterValidator(_as_in_folders)]
ClassWeight = Literal["none", "balanced", "logit_adjustment"]
PhotoScheme = Literal["https", "http", "s3", "s3a", "gs", "gcs", "az", "abfs", "oss"]
PhotoSchemes = Annotated[tuple[PhotoScheme, ...], _names_or(f"a list of {', '.join(get_args(PhotoScheme))}")]
Severity = Literal["error", "warn", "note", "off"]
Engine = Annotated[Literal["auto", "onnxruntime", "tensorflow"], BeforeValidator(_not_int8)]


class Section(BaseModel):
    """Base of every section of params.yaml: immutable, strictly typed, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class AtMost(Section, Generic[T]):
    """An expectation with an upper limit, and what happens where it is violated."""

    max: T
    severity: Severity


class Floors(Section):
    """What every model must reach, whatever is in production; null is no floor."""

    accuracy: ShareOrAll | None
    recall: ShareOrAll | None
    milliseconds: Positive | None
    megabytes: Positive | None


class Mlflow(Section):
    """The registry of MLflow that is told what is in production."""

    tracking_uri: Annotated[str | None, AfterValidator(_without_password)]
    experiment: str | None
    # Not {1,200}: to compile a count of \w, which is any letter of any script, takes every command a tenth of a second.
    name: Annotated[str, Field(pattern=r"^[\w .-]+$", max_length=200)]
    alias: Annotated[str, Field(pattern=r"^[A-Za-z_-][\w-]*$", max_length=201)]
