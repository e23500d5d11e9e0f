"""production.json: the one small file that says what lies at the address of production.

    <address>/
        production.json            the pointer: every file of the folder, by name, with the object that holds its bytes
        objects/<sha256>-<hex>     contents, each written once and never changed
        model.onnx                 a copy of the model in production for services that read one fixed name, with its
        model.onnx.sha256          digest, as `sha256sum --check` reads it; both are written after the pointer

Whoever changes production writes objects first and the pointer last, and only over the pointer that was started from.
So a reader has all of the old state or all of the new one. What the pointer says comes from outside: no name in it
leads out of the folder, and no content counts whose SHA-256 is another one.
"""

import re
import secrets
from dataclasses import field
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from regraft.core.errors import is_invisible
from regraft.production.logs import Sha256

POINTER = "production.json"
MODEL = "model.onnx"
_LONGEST, _DEEPEST = 200, 4  # letters of a name, and folders in it


def is_name(name: str) -> bool:
    """Whether a name can be that of a file below the folder; hidden ones are this machine's own."""
    parts = name.split("/")
    is_plain = not any(part == "" or part.startswith(".") for part in parts)
    return is_plain and len(name) <= _LONGEST and len(parts) <= _DEEPEST and not any(map(_is_odd, name))


def _is_odd(letter: str) -> bool:
    return letter == "\\" or is_invisible(letter)


def _checked(name: str) -> str:
    if not is_name(name):
        raise ValueError("no name of a file of production")
    return name


_OBJECT = r"^[0-9a-f]{64}-[0-9a-f]{8}$"
ObjectName = Annotated[str, StringConstraints(pattern=_OBJECT)]


def is_object_name(name: str) -> bool:
    """Whether an object can have that name."""
    return re.match(_OBJECT, name) is not None


@dataclass(frozen=True, slots=True)
class Stored:
    """One file."""

    sha256: Sha256
    size: Annotated[int, Field(ge=0)]  # bytes
    object: ObjectName  # its name below objects/

    @classmethod
    def new(cls, sha256: str, size: int) -> "Stored":
        """Return a file whose object is still to be written, under a name that nobody used or will use."""
        return cls(sha256, size, f"{sha256}-{secrets.token_hex(4)}")


@dataclass(frozen=True, slots=True)
class Pointer:
    """All of production.json."""

    format: Literal[1] = 1
    serial: Annotated[int, Field(ge=0)] = 0  # changes since production was founded
    writer: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")] = "0" * 16  # tells two of one serial apart
    at: str = ""  # ISO 8601, UTC: for people
    model: Sha256 | None = None  # of the model in production
    files: dict[Annotated[str, AfterValidator(_checked)], Stored] = field(default_factory=dict)

    def next(self, files: dict[str, Stored]) -> "Pointer":
        """Return the pointer that is to follow this one."""
        model = files[MODEL].sha256 if MODEL in files else None
        return Pointer(1, self.serial + 1, *_signed(), model, files)

    def as_bytes(self) -> bytes:
        """Return the pointer as it is written."""
        return _ADAPTER.dump_json(self, indent=1) + b"\n"

    def objects(self) -> set[str]:
        """Return the names of all objects that it needs."""
        return {stored.object for stored in self.files.values()}


def first_pointer() -> Pointer:
    """Return the pointer of a production without any model."""
    return Pointer(1, 0, *_signed())


def read_pointer(contents: bytes) -> Pointer | None:
    """Return what a file says; None if that is no pointer."""
    try:
        return _ADAPTER.validate_json(contents)
    except ValidationError:
        return None


def _signed() -> tuple[str, str]:
    return secrets.token_hex(8), datetime.now(UTC).isoformat(timespec="seconds")


_ADAPTER = TypeAdapter(Pointer)
