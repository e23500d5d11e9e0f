"""Addresses of photos in a table: which ones are taken, and what of one that is refused may be shown.

Whoever writes a table may write anything, so an address is refused unless all of it is understood. It can hold no
secret: a user, a password, a query or a fragment is refused, and an address that is taken may stand in any report.
Credentials come from the environment. The host of a bucket follows from the environment as well and never from a table.
"""

import re
from typing import get_args
from urllib.parse import unquote, urlsplit

from regraft.core.errors import printable
from regraft.core.setting_types import PhotoScheme

SCHEMES: tuple[str, ...] = get_args(PhotoScheme)
WEB = ("https", "http")
NOT_SHOWN = "(not shown, since it may hold a password)"
MOST_LETTERS = 4_096  # of a text that is looked at; no path of a file is longer
_LONGEST = 1000  # letters of an address
# A user or a query, and what is an address or was meant as one.
_MAY_BE_SECRET = re.compile(r"[?@]|://|\A[a-z][a-z0-9+.-]+:[/\\]|\A[/\\]{2}", re.I)
# What is made like an address and lacks its scheme, or names a secret: a query, a password before a host.
_CARRIES = re.compile(
    r"\?[^\s/?=]*="  # photo?size=2
    r"|\.[a-z0-9]{2,5}\?[^\s/]"  # photo.jpg?2
    # user:password@host; from the first colon of a part alone, or a part of many colons would take its square
    r"|(?<![^\s/@]):*+[^\s/:@]++:[^\s/@]++@[^\s/@]"
    r"|\A[a-z][a-z0-9+.-]+:[/\\]|\A[/\\]{2}"  # https:/host, //host
    r"|(?<![a-z0-9])(token|signature|sig|password|passwd|pwd|secret|api_?key|access_?key|credential|j?session_?id)="
    r"[^\s=]",
    re.I,
)
_HAS_A_MARK = re.compile(r"[?=@%:]|\A[/\\]{2}")  # most names have none of these, and need no closer look
_UNQUOTINGS = 3  # of a text whose characters are escaped, and the escapes too
_START = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#\\]*)")
# A name or an address in brackets, a port, and a path of the characters of RFC 3986 without a query.
_WEB = re.compile(
    r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?/([\w.~!$&'()*+,;=:@/-]|%[0-9a-f]{2})+", re.I | re.A
)
_STEP = re.compile(r"/\.{0,2}(/|\Z)")  # a part of a path that is empty, or leads elsewhere
# A bucket and a key, which may hold letters of any script.
_BUCKET = re.compile(r"[a-z0-9]+://[a-z0-9][a-z0-9._-]{1,253}/[^?#\\]+")


def is_url(path: str) -> bool:
    """Whether the path of a photo is an address; in a path within the data folder no two slashes follow each other."""
    return "://" in path


def scheme_of(url: str) -> str:
    """Return what stands before `://`."""
    return url.partition("://")[0]


def problem_of_url(text: str, schemes: tuple[str, ...]) -> str | None:
    """Return why an address in a table is refused, without a word of it that could be a secret; or None.

    Args:
        text: the address.
        schemes: that are allowed, from `machine.photo_schemes`.
    """
    scheme = scheme_of(text)
    if scheme not in schemes:
        allowed = ", ".join(f"{each}://" for each in schemes) or "none"
        return f"{shown_url(text)} has a scheme that machine.photo_schemes does not allow; allowed: {allowed}"
    form = _WEB if scheme in WEB else _BUCKET
    is_plain = text.isprintable() and len(text) <= _LONGEST and form.fullmatch(text)
    if not is_plain or _STEP.search(text, len(scheme) + 3) or (scheme in WEB and not _has_port(text)):
        return (
            f"{shown_url(text)} must be an address such as https://host/folder/photo.jpg or s3://bucket/folder/"
            f"photo.jpg, of at most {_LONGEST:,} letters, without user, password, query, fragment and `..`: these may "
            f"hold secrets, which belong in the environment, or lead elsewhere"
        )
    return None


def _has_port(url: str) -> bool:
    """Whether the port of an address, if it has one, is a number that a port can have, and its IPv6 address is one."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def may_hold_secret(text: str) -> bool:
    """Whether a text from outside, if only by a slip, may hold a password or a token."""
    return len(text) > MOST_LETTERS or _MAY_BE_SECRET.search(text) is not None or carries_secret(text)


def carries_secret(text: str) -> bool:
    """Whether a text is an address with or without its scheme, so that it must not be a name or a path.

    A name may have a question mark in it, or an @. So less is refused here than is kept out of messages. A text that is
    too long to be looked at may be one.
    """
    if len(text) > MOST_LETTERS:
        return True
    if not _HAS_A_MARK.search(text):
        return False
    if "://" in text or _CARRIES.search(text):
        return True
    for _ in range(_UNQUOTINGS if "%" in text else 0):
        text = unquote(text)
        if "://" in text or _CARRIES.search(text):
            return True
    return False


def shown_name(text: str, mark: str = "") -> str:
    """Return a text from outside as a message may have it, between two marks; nothing of it if it may hold a secret."""
    return NOT_SHOWN if may_hold_secret(text) else f"{mark}{printable(text)}{mark}"


def shown_url(text: str) -> str:
    """Return what of any text that may be an address may be shown: scheme and host without a user."""
    match = _START.match(text)
    if not match:
        return "an address that is not shown, since it may hold a secret,"
    scheme, host = match.groups()
    return printable(f"{scheme}://{host.rpartition('@')[2][:100] if '@' not in host else '***'}/...")
