"""The address of a shared store or of production: which ones are taken, and what of one may be shown.

An address stands in params.yaml, which is in git, and on command lines, which every user of a machine can list. So it
holds no secret: what could be one (a user, a password, a query, a fragment, an escape) is refused wherever it stands,
instead of being looked for. Credentials come from the environment, or from the files of fsspec's configuration.
"""

import base64
import os
import re
from pathlib import Path

from regraft.core.errors import RegraftError, printable

# Where files can be written, listed and removed by several machines. Not among them: what only reads (http, github,
# data), what is one file (zip, tar), what copies once more (simplecache), and clouds without listings.
_SCHEMES = (
    *("file", "local", "memory"),  # memory lasts as long as its process: for tests
    *("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss"),
    *("sftp", "ssh", "smb", "hdfs", "webhdfs"),
)
_LOCAL = ("file", "local")
_PATH = r"[\w\u0300-\u036f .,+~()/-]*"  # accents may be code points of their own
_CAUSES = 4  # of an error, that are named
_MIRRORS = Path(".dvc", "tmp", "regraft", "production")
_ADDRESS = re.compile(rf"(?:({'|'.join(_SCHEMES)})://([\w.-]*(?::[0-9]{{1,5}})?)(?=/|\Z))?{_PATH}")

EXPECTED = (
    "an address such as s3://bucket/folder, sftp://host/folder or /mnt/folder: letters, digits and /.-_ only, no user, "
    "password, query, fragment, escape or chain of protocols, which may hold secrets; credentials belong in the "
    f"environment. Schemes: {', '.join(_SCHEMES)}, in small letters"
)


def is_address(text: str) -> bool:
    """Whether a text can be the address of a shared store: it has nothing in it that could be a secret."""
    return len(text) <= 1000 and not text.isspace() and _ADDRESS.fullmatch(text) is not None


def shown(address: str) -> str:
    """Return what of an address may be shown: scheme and host, or the path of a local folder."""
    match = _ADDRESS.fullmatch(address)
    if not match:
        return "(an address that is not shown, since it may hold a secret)"
    scheme, host = match.groups()
    return printable(address) if scheme in (None, *_LOCAL) else f"{scheme}://{host or ''}"


def mirror_of(address: str) -> Path:
    """Return the folder below the project's root in which what lies at an address is worked on.

    Its name is the address in another spelling, so that whoever is given the folder knows the address, in any process.
    """
    return _MIRRORS / base64.urlsafe_b64encode(address.encode()).decode().rstrip("=")


def address_of(folder: Path) -> str | None:
    """Return the address that a folder mirrors; None for a folder that mirrors none.

    Raises:
        RegraftError: the folder lies among mirrors, and its name is no address.
    """
    if folder.parent.parts[-len(_MIRRORS.parts) :] != _MIRRORS.parts:
        return None
    name = folder.name
    try:
        address = base64.urlsafe_b64decode(name + "=" * (-len(name) % 4)).decode()
    except ValueError:
        address = ""
    if "://" not in address or not is_address(address) or mirror_of(address).name != name:
        raise RegraftError(f"{folder} should be named after an address, and is not. Remove it.")
    return address


def shown_path(path: Path) -> str:
    """Return a path for a message; of one in a mirror what of its address may be shown, and what lies there."""
    for folder in (path, *path.parents):
        if folder.parent.parts[-len(_MIRRORS.parts) :] == _MIRRORS.parts:
            try:
                address = address_of(folder) or ""
            except RegraftError:  # no mirror of ours
                break
            name = path.relative_to(folder).as_posix()
            return f"production at {shown(address)}" if name == "." else f"{name} of production at {shown(address)}"
    return str(path)


def is_short_enough(address: str) -> bool:
    """Whether an address fits into the name of its mirror: file systems take 255 bytes."""
    return len(mirror_of(address).name) <= 250


def without_addresses(text: str) -> str:
    """Return a text from outside with every address in it cut after its scheme, to the end of the text."""
    return re.sub(r"://.*", "://***", text, flags=re.DOTALL)


def named(error: BaseException) -> str:
    """Name an error and what caused it, without a word of their texts."""
    names: list[str] = []
    cause: BaseException | None = error
    while cause and len(names) < _CAUSES:
        names.append(_name(cause))
        cause = cause.__cause__ or cause.__context__
    return ", caused by ".join(dict.fromkeys(names))


def _name(error: BaseException) -> str:
    details = re.findall(r"^[\w.-]{1,60}$", error.name or "") if isinstance(error, ImportError) else []
    if isinstance(error, OSError) and isinstance(error.errno, int):
        details.append(os.strerror(error.errno))
    response = getattr(error, "response", None)  # of a botocore ClientError
    if isinstance(response, dict) and isinstance(failed := response.get("Error"), dict):
        details += re.findall(r"^[A-Za-z0-9.]{1,60}$", str(failed.get("Code")))
    return type(error).__name__ + (f" ({', '.join(details)})" if details else "")
