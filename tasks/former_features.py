"""The features of the run before: DVC removes the file before its stage runs, and keeps it in its cache."""

import re
import sys
from configparser import ConfigParser, Error
from pathlib import Path

from regraft.core.config import Params
from regraft.core.errors import RegraftError
from regraft.features.recomputing import Recomputing
from tasks.locked import read_locked


def former_features(params: Params) -> list[Path]:
    """Return where the features are that dvc.lock names: in the workspace, or in DVC's cache."""
    path = params.paths.features
    written = read_locked().get("cache_features", {}).get("writes", {}).get(path.as_posix(), {})
    md5 = written.get("md5") or ""
    found = [path, _cache() / "files" / "md5" / md5[:2] / md5[2:]] if re.fullmatch("[0-9a-f]{32}", md5) else [path]
    return [each for each in found if each.is_file()]


def _cache() -> Path:
    """Return where DVC keeps versions of files; a stage does not know DVC, and only saves work by this."""
    settings = ConfigParser(interpolation=None)
    try:
        settings.read([".dvc/config", ".dvc/config.local"], encoding="utf-8")
    except (Error, OSError, UnicodeDecodeError):
        return Path(".dvc", "cache")
    return Path(".dvc", settings.get("cache", "dir", fallback="cache")).absolute()


def tell_or_stop(again: Recomputing, *, may_go_on: bool) -> None:
    """Say that something is computed again, or raise RegraftError where that is not allowed."""
    if not may_go_on:
        raise RegraftError(
            f"{again.words} Nothing is computed now, because machine.allow_recompute in params.yaml is false: set it "
            "to true, or go back to what computed them."
        )
    print(again.words, file=sys.stderr)
