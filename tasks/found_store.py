"""The settings of a project, with its store found: one machine has one store, whichever checkout works on it.

`paths.store` names a folder of the checkout. An experiment of `dvc exp run --temp`, a worker of DVC's queue and a git
worktree are checkouts of their own, and would compute everything again. So the store is, in this order

    1. the environment variable REGRAFT_STORE
    2. `git config regraft.store`, of one repository, or with --global of all clones of a user
    3. of a temporary checkout of DVC, or a git worktree: the store of the checkout that it was made from
    4. `paths.store`
"""

import os
import shutil
import subprocess
from pathlib import Path

from regraft.core.config import Params
from regraft.core.errors import RegraftError
from regraft.core.params_file import load_params

VARIABLE, KEY = "REGRAFT_STORE", "regraft.store"
_TEMPORARY = (".dvc", "tmp", "exps")  # folders of a project, in which DVC makes checkouts
_PROOF = (".dvc", "tmp", "regraft")  # the same for `regraft reproduce`, which computes everything itself


def load_project(root: Path) -> Params:
    """Read params.yaml as `load_params` does; `paths.store` is the store that was found.

    Raises:
        InvalidParams: params.yaml is not right.
        RegraftError: the store is named by something else than an absolute path.
    """
    params = load_params(root / "params.yaml")
    store = find_store(root, params.paths.store)
    return params.model_copy(update={"paths": params.paths.model_copy(update={"store": store})})


def find_store(root: Path, store: Path) -> Path:
    """Return the store of a project: `store` itself, relative to the root, unless something names another.

    Args:
        root: the project's root.
        store: `paths.store`.
    """
    root = root.resolve()
    if _below(root, _PROOF):
        return store
    main = _made_from(root)
    for place, found in ((VARIABLE, os.environ.get(VARIABLE)), (f"git config {KEY}", _configured(main or root))):
        if found:
            path = Path(found).expanduser()
            if not path.is_absolute():
                raise RegraftError(f"{place} must be the absolute path of a folder for the store. Received: {found}.")
            return path
    return main / store if main else store


def _made_from(root: Path) -> Path | None:
    """Return the root of the checkout that this one was made from, or None if it stands for itself."""
    if exps := _below(root, _TEMPORARY):
        return exps.parents[2]
    top = next((folder for folder in (root, *root.parents) if (folder / ".git").exists()), None)
    main = _main_worktree(top / ".git") if top else None
    return main / root.relative_to(top) if main and top and main != top else None


def _below(root: Path, folders: tuple[str, str, str]) -> Path | None:
    """Return the folder above this one whose path ends so, or None."""
    return next((folder for folder in root.parents if folder.parts[-3:] == folders), None)


def _main_worktree(link: Path) -> Path | None:
    """Return where the main worktree is, given the `.git` of another, which is a file; None if it is a folder."""
    try:
        folder = link.parent / link.read_text(encoding="utf-8").strip().removeprefix("gitdir: ")
        common = folder / (folder / "commondir").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None  # of a repository, or of a submodule
    common = common.resolve()
    return common.parent if common.name == ".git" else None  # a bare repository has no folder beside it


def _configured(root: Path) -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    command = [git, "-C", str(root), "config", "--get", KEY]
    return subprocess.run(command, check=False, capture_output=True, text=True, errors="replace").stdout.strip()
