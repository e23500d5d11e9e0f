"""Errors whose message is written for the person who has to act on it.

Command lines print the message of a RegraftError without a traceback. There is a class per way of reacting, not per
cause.
"""


class RegraftError(Exception):
    """Something outside the code has to change: the message says what was expected, what was found and what to do."""


class InvalidParams(RegraftError):
    """params.yaml does not say what Regraft expects."""


class InvalidData(RegraftError):
    """The images, or what is said about them, cannot be trained on."""


class InvalidWeights(RegraftError):
    """A file of pretrained weights is missing, damaged, or not what it claims to be."""


class ExportMismatch(RegraftError):
    """The exported ONNX file does not compute what the Keras model computes; it must not be used."""


class InputsChanged(RegraftError):
    """An input of a stage changed while the stage ran, so no record could say what its outputs were made from."""


class Busy(RegraftError):
    """The same stage is running in another process."""


class WrongFolder(RegraftError):
    """The command was started outside the project's root folder."""


def some(items: list[str], count: int = 5) -> str:
    """The first few of many, as text."""
    more = f" and {len(items) - count} more" if len(items) > count else ""
    return "; ".join(items[:count]) + more
