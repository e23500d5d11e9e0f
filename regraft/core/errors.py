"""Errors whose message is written for the person who has to act on it.

Command lines print the message of a RegraftError without a traceback. There is a class per way of reacting, not per
cause.
"""

import re
import unicodedata
from pathlib import Path

_LONGEST = 300  # letters of a name in a message
_MIRROR = re.compile(r"(\.dvc/tmp/regraft/production/)[\w-]+")
_JOINERS = "\u200c\u200d"  # without a shape of their own; Persian words and emoji are written with them
_FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20"  # also in full width, which spreadsheets take for the same
# `<` ends a script; `;` begins a new cell in half of Europe, and a backslash begins a number here.
_AS_NUMBERS = "<>;\\"
_NUMBER = re.compile(r"\\x([0-9a-f]{2})|\\u([0-9a-f]{4})|\\U([0-9a-f]{8})")


class RegraftError(Exception):
    """Something outside the code has to change: the message says what was expected, what was found and what to do."""

    def __str__(self) -> str:
        """The message, whoever prints it, without what a terminal would obey: it may quote names from outside.

        The name of a mirror of production spells its address (`regraft.core.addresses.mirror_of`), so it is left out.
        """
        return safe_text(_MIRROR.sub(r"\1***", super().__str__()))


class InvalidParams(RegraftError):
    """params.yaml does not say what Regraft expects."""


class InvalidData(RegraftError):
    """The images, or what is said about them, cannot be trained on."""


class MissingPhotos(InvalidData):
    """Photos are not where they should be; who keeps them elsewhere has to bring them here."""


class InvalidWeights(RegraftError):
    """A file of pretrained weights is missing, damaged, or not what it claims to be."""


class Damaged(RegraftError):
    """A file that Regraft wrote does not hold what Regraft writes; where it can be made again it counts as absent."""

    @classmethod
    def of(cls, path: Path, expected: str, found: str) -> "Damaged":
        """Return the error for a file."""
        return cls(
            f"{path} is damaged: expected {expected}, found {found}. Delete it and run the same command again: the "
            f"stage that wrote it writes it again."
        )


class ExportMismatch(RegraftError):
    """The exported ONNX file does not compute what the Keras model computes; it must not be used."""


class InvalidModel(RegraftError):
    """A model file gives answers that are none; no photo is to blame, and no other photo will do better."""


class InputsChanged(RegraftError):
    """An input of a stage changed while the stage ran, so no record could say what its outputs were made from."""


class Overtaken(InputsChanged):
    """Another machine changed the same thing first; made again from what is there now, the change may succeed."""


class Busy(RegraftError):
    """Another process holds what this one needs, and will let go of it."""


class WrongFolder(RegraftError):
    """The command was started outside the project's root folder."""


def is_invisible(letter: str) -> bool:
    """Whether a letter has no shape, is obeyed by terminals, or changes the order in which others are shown."""
    return (unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") and letter not in _JOINERS) or (
        ord(letter) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(letter) <= 0xFDEF  # never to be letters, by the standard
    )


def printable(name: str) -> str:
    """A name from outside as it may stand in a message: invisible letters as numbers, the middle of a long one cut."""
    if len(name) > _LONGEST:
        name = f"{name[: _LONGEST // 2]} ... {name[-_LONGEST // 2 :]}"
    return name if name.isprintable() else "".join(map(_shown, name))


def safe_text(text: str) -> str:
    """A text of several lines with its invisible letters as numbers."""
    return text if text.isprintable() else "".join(letter if letter == "\n" else _shown(letter) for letter in text)


def _shown(letter: str) -> str:
    return ascii(letter)[1:-1] if is_invisible(letter) else letter


def some(items: list[str], count: int = 5) -> str:
    """The first few of many, as text that is printable."""
    more = f" and {len(items) - count} more" if len(items) > count else ""
    return "; ".join(map(printable, items[:count])) + more


def shown(name: str) -> str:
    """Return a name as it is written into a cell."""
    text = "".join(_number(letter) if letter in _AS_NUMBERS or is_invisible(letter) else letter for letter in name)
    start = text.lstrip().removeprefix("'").lstrip()
    return f"'{text}" if text.startswith("'") or start.startswith(tuple(_FORMULA)) else text


def name_of(cell: str) -> str:
    """Return the name that `shown` made a cell of."""
    return _NUMBER.sub(lambda found: chr(int(found[1] or found[2] or found[3], 16)), cell.removeprefix("'"))


def _number(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
