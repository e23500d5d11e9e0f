"""The features of the run before: DVC removes the file before its stage runs, and keeps it in its cache."""

import sys
from pathlib import Path

from regraft.config import Params
from regraft.errors import RegraftError
from regraft.features.recomputing import Recomputing
from tasks.dvc_cache import find_object
from tasks.locked import read_locked


def former_features(params: Params) -> list[Path]:
    """Return where the features are that dvc.lock names: in the workspace, or in DVC's cache."""
    path = params.paths.features
    written = read_locked().get("cache_features", {}).get("writes", {}).get(path.as_posix(), {})
    cached = find_object(Path(), written.get("md5") or "")
    return [each for each in (path, cached) if each and each.is_file()]


def tell_or_stop(again: Recomputing, *, may_go_on: bool) -> None:
    """Say that something is computed again, or raise RegraftError where that is not allowed."""
    if not may_go_on:
        raise RegraftError(
            f"{again.words} Nothing is computed now, because machine.allow_recompute in params.yaml is false: set it "
            "to true, or go back to what computed them."
        )
    print(again.words, file=sys.stderr)
