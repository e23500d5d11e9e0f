"""What of the store is still wanted: what dvc.lock names now or named lately, and what models in use said of photos.

Read from dvc.lock, which is YAML, and from git; neither the DVC nor a git library is needed.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from regraft.core.config import Paths
from regraft.core.errors import RegraftError
from regraft.core.files import md5_of, sha256_of


def features_versions(project: Path, features: Path, *, keep: int) -> dict[str, str]:
    """Return the MD5 of every version of the features that is kept, with a place that names it.

    The file in the working copy is one of them.

    Args:
        project: the project's root, with dvc.lock.
        features: the features file, as dvc.lock names it.
        keep: how many of the latest versions of dvc.lock count, over all branches and tags; the working copy's and
            those of DVC experiments, queued ones too, always count.

    Raises:
        RegraftError: there is no dvc.lock, or one cannot be read.
    """
    found: dict[str, str] = {}
    lock = project / "dvc.lock"
    if lock.exists():
        _add(found, lock.read_text(encoding="utf-8"), features, "the working copy")
    if _has_history(project):
        for revision in _revisions(project, keep):
            contents = _git(project, "show", f"{revision}:./dvc.lock", may_fail=True)  # a version may have deleted it
            if contents:
                _add(found, contents, features, f"git {revision[:7]}")
    if not found:
        raise RegraftError(
            f"No dvc.lock in {project.resolve()} or its history names {features.as_posix()}, so nobody knows what is "
            "still needed. Run this in the project's root, after a first retraining."
        )
    if (project / features).is_file():  # which dvc.lock does not name as long as its stage was run without DVC
        found.setdefault(md5_of(project / features), "the working copy")
    return found


def models_in_use(paths: Paths) -> set[str]:
    """Return the SHA-256 of the models that the gate asks: the exported one, production, the one before, the anchors.

    And of their frozen parts, which answer for those that come in two.
    """
    from regraft.export.classifier import frozen_digest
    from regraft.production.registry import Production

    production = Production(paths.production)
    standing = production.standing()
    exported = sha256_of(paths.onnx) if paths.onnx.is_file() else None
    former = {standing.digest, standing.named, production.predecessor(), *production.anchors()}
    kept = [production.version_of(digest) for digest in former if digest and production.is_kept(digest)]
    files = [paths.onnx, production.model, *kept]
    frozen = {frozen_digest(path) for path in files if path.is_file()}
    return {digest for digest in {exported, *former, *frozen} if digest}


def _revisions(project: Path, keep: int) -> list[str]:
    """Return the commits whose dvc.lock counts."""
    sources = ["HEAD", "--branches", "--tags", "--remotes"]
    latest = _git(project, "log", *sources, f"--max-count={keep}", "--format=%H", "--", "dvc.lock")
    # DVC keeps experiments under refs/exps, and queued ones in reflogs of refs/exps/stash and refs/exps/celery/*.
    experiments = _git(project, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps")
    revisions = latest.split()
    for line in experiments.splitlines():
        revision, name = line.split(" ", 1)
        revisions.append(revision)
        revisions += _git(project, "log", "--walk-reflogs", "--format=%H", name, may_fail=True).split()
    return list(dict.fromkeys(revisions))


def _add(found: dict[str, str], contents: str, features: Path, place: str) -> None:
    try:
        lock: Any = YAML(typ="safe").load(contents)
        outs = lock["stages"].get("cache_features", {}).get("outs", [])
        versions = [out["md5"] for out in outs if out["path"] == features.as_posix()]
    except (YAMLError, KeyError, TypeError, AttributeError):
        raise RegraftError(
            f"dvc.lock of {place} cannot be read, so nobody knows what it needs. Fix it, or restore it from git."
        ) from None
    for version in versions:
        found.setdefault(version, place)


def _has_history(project: Path) -> bool:
    return bool(_git(project, "rev-parse", "--verify", "--quiet", "HEAD", may_fail=True))


def _git(project: Path, *arguments: str, may_fail: bool = False) -> str:
    git = shutil.which("git")
    if git is None:
        return ""  # only the working copy counts
    try:
        command = [git, "-C", str(project), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout
    except subprocess.CalledProcessError as error:
        if may_fail:
            return ""
        raise RegraftError(f"git {' '.join(arguments)} failed: {error.stderr.strip()}. Fix the repository.") from None
