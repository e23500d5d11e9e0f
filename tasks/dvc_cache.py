"""DVC's cache on this machine, to be read: which photos a version of the data has, and which of them are there."""

import json
import re
from pathlib import Path

from regraft.core.errors import RegraftError

MD5 = re.compile(r"\w{1,64}(\.dir)?")  # nothing that leads to another folder


def cache_of(root: Path) -> Path:
    """Return where DVC keeps versions of files.

    Raises:
        RegraftError: DVC cannot read its settings.
    """
    from dvc.config import Config, ConfigError

    try:
        return Path(root, ".dvc", Config(str(root / ".dvc"))["cache"].get("dir") or "cache").resolve()
    except ConfigError as error:
        raise RegraftError(f"DVC cannot read its settings: {error}. Put that right, and run again.") from None


def photos_of(root: Path, md5: str) -> dict[str, str] | None:
    """Return the MD5 of every file of a data version by its name in the folder; None where the list is not there."""
    try:
        if not MD5.fullmatch(md5):  # what receipts and lists from elsewhere say becomes a path
            return None
        entries = json.loads(_object(cache_of(root), md5).read_text(encoding="utf-8"))
        photos = {str(entry["relpath"]): str(entry["md5"]) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return photos if all(map(MD5.fullmatch, photos.values())) else None


def missing_photos(root: Path, md5: str, total: int) -> list[str]:
    """Return the names of the files of a data version that are not there; empty names where these are not there either.

    Args:
        root: the project's root.
        md5: of the version.
        total: how many files it has.
    """
    photos, cache = photos_of(root, md5), cache_of(root)
    if MD5.fullmatch(md5) and not md5.endswith(".dir"):  # a table of photos is a file
        return [] if _object(cache, md5).is_file() else [""]
    if photos is None:
        return [""] * total
    return sorted(name for name, each in photos.items() if not _object(cache, each).is_file())


def _object(cache: Path, md5: str) -> Path:
    return cache / "files" / "md5" / md5[:2] / md5[2:]
