"""Weights that are installed with a package: found by the package's list of files, and nothing of it is imported."""

import importlib.metadata
from pathlib import Path

from regraft.errors import InvalidWeights


def installed_file(package: str, suffix: str, install: str) -> Path:
    """Return the file with a suffix that a package installed.

    Args:
        package: its name in the registry.
        suffix: of the file, with the dot.
        install: the command that installs it, for the message.

    Raises:
        InvalidWeights: the package is not installed, or holds no such file.
    """
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise InvalidWeights(f"the weights are not installed. Run `{install}`.") from None
    for file in files:
        if file.suffix == suffix:
            return Path(str(file.locate()))
    raise InvalidWeights(f"the package {package} holds no {suffix} file. Install it again: `{install}`.")
