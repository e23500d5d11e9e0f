"""Where a model comes from, for the logs of production: photos, code and verdict, bound to it by its SHA-256."""

from pathlib import Path

from regraft.core.config import Params
from regraft.production.exclusive import refreshed
from regraft.production.logs import Look, Origin, verdict_log
from tasks.dvc_files import read_locked
from tasks.runs.git import NoGit, open_git


def origin_of_export(params: Params, verdict: str | None = None) -> Origin:
    """Return where models/model.onnx comes from: the photos that the stages read last, and the code as it is now."""
    read = read_locked().get("validate_data", {}).get("reads", {}).get(params.paths.raw.as_posix(), {})
    try:
        revision = open_git(Path.cwd()).revision()
    except NoGit:
        revision = None
    return Origin((read.get("md5") or "").removesuffix(".dir") or None, revision, verdict)


def look_of_candidate(params: Params, digest: str) -> Look | None:
    """Return the line of verdicts.jsonl about a candidate, the newest one."""
    looks, _ = verdict_log(refreshed(params.paths.production)).read()
    return next((look for look in reversed(looks) if look.challenger == digest), None)
