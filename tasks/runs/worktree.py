"""A folder of its own for one snapshot: a worktree of git below .dvc/tmp, with DVC's cache and remotes of this project.

It is removed at the end, after an error and after Ctrl-C; what a kill left is removed by the next one. No branch, no
file and nothing that is staged is touched.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from regraft.errors import Busy, RegraftError
from tasks.dvc_cache import cache_of
from tasks.runs.git import Git

FOLDER = Path(".dvc", "tmp", "regraft", "reproduce")


@contextmanager
def worktree_of(git: Git, revision: str) -> Iterator[Path]:
    """Yield the project's folder as it was in a commit.

    Raises:
        Busy: another process has such a folder now.
        NoGit: git cannot make it.
    """
    from filelock import FileLock, Timeout

    folder = (git.root / FOLDER).resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.with_suffix(".lock"), timeout=0):
            _remove(git, folder)  # what a kill left
            try:
                git("worktree", "add", "--quiet", "--detach", "--force", str(folder), revision)
                yield folder / git.prefix
            finally:
                _remove(git, folder)
    except Timeout:
        raise Busy(
            "another run is being reproduced in this project. Wait for it to end, then start this again."
        ) from None


def share_dvc(root: Path, project: Path) -> None:
    """Let a project's copy use the cache and the remotes of the project itself.

    Raises:
        RegraftError: DVC cannot read its settings.
    """
    from dvc.config import Config, ConfigError

    (project / ".dvc").mkdir(exist_ok=True)
    try:
        own = Config(str(root / ".dvc"))
        with Config(str(project / ".dvc")).edit("local") as config:
            config["cache"] = {**own["cache"], "dir": str(cache_of(root))}
            config["remote"] = dict(own["remote"])
            config["core"] = {name: own["core"][name] for name in ("remote",) if own["core"].get(name)}
    except ConfigError as error:
        raise RegraftError(f"DVC cannot read its settings: {error}. Put that right, and run again.") from None
    (project / ".dvc" / "config.local").chmod(0o600)  # it may hold the keys of a remote


def _remove(git: Git, folder: Path) -> None:
    git.ask("worktree", "remove", "--force", "--force", str(folder))  # also one that somebody locked, or half-made
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        git.ask("worktree", "remove", "--force", "--force", str(folder))
