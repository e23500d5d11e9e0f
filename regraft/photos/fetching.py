"""What may go wrong where a photo is fetched, by what follows from it, and an address that was opened."""

from collections.abc import Iterator
from dataclasses import dataclass


class FetchError(Exception):
    """A photo cannot be fetched; the text is for a person and has no part of an address."""


class Refused(FetchError):
    """It must not be fetched, or is not what was expected: to ask again changes nothing."""


class Missing(Refused):
    """It is not there."""


class Denied(FetchError):
    """Whoever asks has no permission: credentials are missing or have expired, or the photo is not there."""


class Unreachable(FetchError):
    """The server or the network failed, and may work a moment later."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An address that was opened for reading."""

    size: int | None  # bytes, as far as the server says it
    etag: str | None
    parts: Iterator[bytes]


def plain_etag(text: str | None) -> str | None:
    """Return an ETag without quotes; None where there is none, or a weak one, which promises no equal bytes."""
    text = (text or "").strip()
    return None if text.startswith("W/") else text.strip('"') or None
