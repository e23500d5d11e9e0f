"""Requests to renew the base: a small file for git, one line per request.

A request names the base that it is about, so it is granted once: the next base has another name.
"""

import csv
import io
from pathlib import Path

from regraft.core.errors import InvalidData, printable, safe_text
from regraft.core.files import write_text

_HEAD = ["base", "reason"]
_LONGEST = 500  # letters of a reason


def read_requests(path: Path) -> dict[str, str]:
    """Return the reasons by the name of a base; nothing where there is no such file.

    Raises:
        InvalidData: it is something else.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # Excel writes a mark in front
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(path, str(error)) from None
    try:
        rows = list(csv.reader(lines))
    except csv.Error as error:
        raise _unusable(path, str(error)) from None
    if not rows or rows[0] != _HEAD:
        raise _unusable(path, "no such line" if not rows else ",".join(rows[0]))
    # Half a line, or what git left of a conflict, is no request; the rest counts.
    return {row[0]: row[1] for row in rows[1:] if len(row) == len(_HEAD)}


def add_request(path: Path, base: str, reason: str) -> bool:
    """Ask for a base to be renewed, once; return whether that is new."""
    requests = read_requests(path)
    if base in requests:
        return False
    write_requests(path, requests | {base: " ".join(safe_text(reason).split())[:_LONGEST]})
    return True


def write_requests(path: Path, requests: dict[str, str]) -> None:
    """Write requests, in their order."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_HEAD, *map(list, requests.items())])
    write_text(path, text.getvalue())


def _unusable(path: Path, found: str) -> InvalidData:
    return InvalidData(
        f"{path} should begin with the line {','.join(_HEAD)}. Found: {printable(found)}. Bring back the version that "
        f"git has (`git checkout -- {path}`), or write that line alone into it."
    )
