"""Proof that the model in production could be brought back: a copy of it is restored, compared, opened, and answers."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from regraft.core.config import Params
from regraft.core.errors import RegraftError
from regraft.core.files import sha256_of
from regraft.production.records import Records
from tasks.runs.git import NoGit, open_git

_VERSIONS = 500  # of dvc.lock in git, the newest first, on all branches and in the snapshots of runs


def prove_restore(root: Path, params: Params) -> str:
    """Restore the model in production to a temporary folder and let it answer; return a sentence about it.

    Raises:
        RegraftError: what is in production is damaged, or no whole copy of it is left.
    """
    from regraft.serving.shipped_model import ShippedModel

    records = Records(params.paths.production)
    standing = records.standing()
    if standing.problem:
        raise RegraftError(standing.problem)
    digest = standing.digest
    if digest is None:
        return "No model is in production, so none was restored."
    with tempfile.TemporaryDirectory(prefix="regraft-restore-") as folder:
        restored = Path(folder, "model.onnx")
        sources = {"DVC's cache": _cached(root, params.paths.onnx), "versions/": iter([records.version_of(digest)])}
        for name, paths in sources.items():
            if any(_copied(path, restored, digest) for path in paths):
                ShippedModel(restored)  # which is asked about a picture
                return f"The model in production ({digest[:12]}) was restored from {name}, has its bytes, and answers."
    raise RegraftError(
        f"no copy of the model in production ({digest[:12]}) is left, neither in DVC's cache nor in "
        f"{records.versions}. It is whole where it is: copy {records.model} to a safe place, then `regraft retrain` "
        "and `dvc push`."
    )


def _copied(path: Path, target: Path, digest: str) -> bool:
    """Whether the file is the model that is looked for; then it is copied."""
    try:
        target.write_bytes(path.read_bytes())
    except OSError:
        return False
    return sha256_of(target) == digest


def _cached(root: Path, onnx: Path) -> Iterator[Path]:
    """Yield where DVC's cache has, or had, versions of the exported model, the newest first."""
    from dvc.repo import Repo

    seen: set[str] = set()
    with Repo(str(root)) as repo:
        for lock in _locks(root):
            for version in _versions_in(lock, onnx):
                if version not in seen:
                    seen.add(version)
                    yield Path(repo.cache.local.oid_to_path(version))


def _locks(root: Path) -> Iterator[str]:
    """Yield dvc.lock as it is and as it was."""
    if (root / "dvc.lock").is_file():
        yield (root / "dvc.lock").read_text(encoding="utf-8", errors="replace")
    try:
        git = open_git(root)
    except NoGit:
        return
    revisions = git.ask("log", "--all", f"--max-count={_VERSIONS}", "--format=%H", "--", "dvc.lock") or ""
    for revision in revisions.split():
        yield git.ask("show", f"{revision}:./dvc.lock") or ""


def _versions_in(lock: str, onnx: Path) -> list[str]:
    try:
        found: Any = YAML(typ="safe").load(lock)
        outs = [out for stage in found["stages"].values() for out in stage.get("outs", [])]
        return [out["md5"] for out in outs if out["path"] == onnx.as_posix()]
    except (YAMLError, KeyError, TypeError, AttributeError):
        return []
