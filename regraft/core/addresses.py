"""Addresses of a shared store and of production: which ones are accepted, and the part of one that messages show.

An address stands in params.yaml, which is in git, and on command lines, which every user of a machine can list. So it
holds no secret: a user, a password, a query, a fragment or an escape is refused. Credentials come from the environment,
or from the files of fsspec's configuration.
"""

import base64
import os
import re
from contextlib import suppress
from pathlib import Path

from regraft.core.errors import RegraftError, printable

LOCAL = ("file", "local")
# Where files can be written, listed and removed by several machines; memory lasts as long as its process: for tests.
_SCHEMES = (
    *LOCAL,
    *("memory", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "sftp", "ssh", "smb", "hdfs", "webhdfs"),
)
_PATH = r"[\w\u0300-\u036f .,+~()/-]*"  # accents may be code points of their own
_ADDRESS = re.compile(rf"(?:({'|'.join(_SCHEMES)})://([\w.-]*(?::[0-9]{{1,5}})?)(?=/|\Z))?{_PATH}")
_MIRRORS = Path(".dvc", "tmp", "regraft", "production")
_CAUSES = 4  # of an error, that are named

EXPECTED = (
    "an address such as s3://bucket/folder, sftp://host/folder or /mnt/folder: letters, digits and /.-_ only, no user, "
    "password, query, fragment, escape or chain of protocols, which may hold secrets; credentials belong in the "
    f"environment. Schemes: {', '.join(_SCHEMES)}, in small letters"
)


def is_address(text: str) -> bool:
    """Whether a text is the address of a folder that can be written to; no part of it can be a secret."""
    return len(text) <= 1000 and not text.isspace() and _ADDRESS.fullmatch(text) is not None


def shown(address: str) -> str:
    """Return the part of an address that messages show: scheme and host, or the path of a local folder."""
    match = _ADDRESS.fullmatch(address)
    if not match:
        return "(an address that is not shown, since it may hold a secret)"
    scheme, host = match.groups()
    return printable(address) if scheme in (None, *LOCAL) else f"{scheme}://{host or ''}"


def mirror_of(address: str) -> Path:
    """Return the folder of the project that mirrors production at an address; its name is the address in base64."""
    return _MIRRORS / base64.urlsafe_b64encode(address.encode()).decode().rstrip("=")


def is_short_enough(address: str) -> bool:
    """Whether an address fits into the name of its mirror: file systems take 255 bytes."""
    return len(mirror_of(address).name) <= 250


def address_of(folder: Path) -> str | None:
    """Return the address that a folder mirrors, or None; RegraftError if it lies among mirrors and has another name."""
    if folder.parent.parts[-len(_MIRRORS.parts) :] != _MIRRORS.parts:
        return None
    try:
        address = base64.urlsafe_b64decode(folder.name + "=" * (-len(folder.name) % 4)).decode()
    except ValueError:
        address = ""
    if "://" not in address or not is_address(address) or mirror_of(address).name != folder.name:
        raise RegraftError(f"{folder} should be named after an address, and is not. Remove it.")
    return address


def shown_path(path: Path) -> str:
    """Return a path for a message; of one in a mirror the shown part of its address and the name of the file there."""
    for folder in (path, *path.parents):
        with suppress(RegraftError):
            if address := address_of(folder):
                name = path.relative_to(folder).as_posix()
                return f"{'' if name == '.' else f'{name} of '}production at {shown(address)}"
    return str(path)


def without_addresses(text: str) -> str:
    """Return a text from outside with every address in it cut after its scheme, to the end of the text."""
    return re.sub(r"://.*", "://***", text, flags=re.DOTALL)


def named(error: BaseException) -> str:
    """Name an error and what caused it, without a word of their texts."""
    names: list[str] = []
    cause: BaseException | None = error
    while cause and len(names) < _CAUSES:
        details = re.findall(r"^[\w.-]{1,60}$", cause.name or "") if isinstance(cause, ImportError) else []
        if isinstance(cause, OSError) and isinstance(cause.errno, int):
            details.append(os.strerror(cause.errno))
        details += re.findall(r"^[A-Za-z0-9.]{1,60}$", error_code(cause))
        names.append(type(cause).__name__ + (f" ({', '.join(details)})" if details else ""))
        cause = cause.__cause__ or cause.__context__
    return ", caused by ".join(dict.fromkeys(names))


def error_code(error: BaseException | None) -> str:
    """Return the code in the answer of a store that speaks S3."""
    response = getattr(error, "response", None)
    return str((response.get("Error") or {}).get("Code", "")) if isinstance(response, dict) else ""
