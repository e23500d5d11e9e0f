"""A folder of its own for one snapshot: a worktree of git below .dvc/tmp, and what DVC brings into it.

It is removed at the end, after an error and after Ctrl-C; what a kill left is removed by the next one. No branch, no
file and nothing that is staged is touched.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from regraft.core.addresses import without_addresses
from regraft.core.errors import Busy, RegraftError, printable
from regraft.core.files import write_json
from tasks.dvc_cache import MD5, cache_of
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


def bring(root: Path, project: Path, path: str, md5: str, *, fetches: bool) -> str:
    """Let DVC bring a version of a file or a folder into the project's copy, from the cache; `fetches`: from a remote.

    DVC works in a folder of its own, with this project's cache and remotes: what a snapshot says to DVC, which follows
    a path or an address of any kind, does not count.

    Returns:
        What DVC complains of; empty if it succeeded.

    Raises:
        RegraftError: DVC cannot read its settings.
    """
    if not MD5.fullmatch(str(md5)):  # DVC makes a path of it
        return f"{printable(str(md5))} is no MD5."
    (project / ".dvc" / "tmp").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=project / ".dvc" / "tmp") as folder:
        _share_dvc(root, Path(folder))
        write_json(Path(folder, "version.dvc"), {"outs": [{"md5": md5, "hash": "md5", "path": "version"}]})
        for command in ("fetch", "checkout") if fetches else ("checkout",):
            if said := _dvc(Path(folder), command, "version.dvc"):
                return said
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        Path(folder, "version").replace(project / path)
    return ""


def environment() -> dict[str, str]:
    """Return the variables of commands in the copy, where Python takes the code of the current folder."""
    return {name: value for name, value in os.environ.items() if name not in ("DVC_STAGE", "PYTHONSAFEPATH")}


def _share_dvc(root: Path, folder: Path) -> None:
    """Let a folder be a project of DVC's that uses the cache and the remotes of another one."""
    from dvc.config import Config, ConfigError

    (folder / ".dvc").mkdir()
    try:
        own = Config(str(root / ".dvc"))
        with Config(str(folder / ".dvc")).edit("local") as config:
            config["cache"] = {**own["cache"], "dir": str(cache_of(root))}
            config["remote"] = dict(own["remote"])
            config["core"] = {name: own["core"][name] for name in ("remote",) if own["core"].get(name)}
            config["core"] |= {"no_scm": True, "analytics": False}
    except ConfigError as error:
        raise RegraftError(f"DVC cannot read its settings: {error}. Put that right, and run again.") from None
    (folder / ".dvc" / "config.local").chmod(0o600)  # it may hold the keys of a remote


def _dvc(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    ended = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    errors = [line.removeprefix("ERROR: ") for line in ended.stderr.splitlines() if line.startswith("ERROR: ")]
    return without_addresses(" ".join(errors) or f"status {ended.returncode}") if ended.returncode else ""


def _remove(git: Git, folder: Path) -> None:
    git.ask("worktree", "remove", "--force", "--force", str(folder))  # also one that somebody locked, or half-made
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        git.ask("worktree", "remove", "--force", "--force", str(folder))
