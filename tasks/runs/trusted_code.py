"""Whose code `regraft reproduce` runs: that of a commit that is checked out or was named, else what a person looked at.

Receipts, snapshots and the branch of nights come from whoever may write to the git remote. So a snapshot may differ
from the last commit that it shares with a trusted one only in regular files that are data: records, receipts,
expectations, and sections of params.yaml that hold numbers and names.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from regraft.core.config import Params
from regraft.core.errors import RegraftError, safe_text, some
from tasks.runs.git import Git, NoGit
from tasks.runs.snapshots import files_of_run

# Sections of params.yaml in which no value is a path, a file of weights or a host that a stage would go to.
_HARMLESS = {"seed", "validate_data", "preprocess", "cache_features", "check_features", "train_head", "fine_tune"}
_HARMLESS |= {"export_onnx", "quantise", "evaluate", "promote", "measure", "nights", "report"}
_FILES = ("100644", "100755", "000000")  # modes of git: files, and what is not there any more; no links, no modules
_LONGEST = 500  # files, and lines, of a difference that a person is asked about


def check_code(
    git: Git, params: Params, snapshot: str, trusted: str | None, confirm: Callable[[str], bool] | None
) -> None:
    """Return if the code of a snapshot may run here.

    Args:
        git: of the project.
        params: all settings, as they are now.
        snapshot: a commit.
        trusted: a branch or a commit that the person named; None is what is checked out.
        confirm: shows the person a text and asks whether to go on; None where nobody can be asked.

    Raises:
        RegraftError: the code is another, and nobody said yes to it; or there is no such branch.
    """
    tip = _trusted_commit(git, trusted)
    base = git.ask("merge-base", tip, snapshot) or tip
    foreign = foreign_paths(git, params, base, snapshot)
    if not foreign:
        return
    whose = f"of the commits that {trusted} has" if trusted else "of the commits that are checked out"
    found = f"the run had code that is none {whose}: {some(foreign, 20)}."
    difference = _difference(git, base, snapshot, foreign)
    if confirm and len(difference) <= _LONGEST:
        question = safe_text("\n".join([*difference, f"\nWhat is shown above is not in what you trust: {found}"]))
        if confirm(f"{question}\nIt would run on this machine, as you. Run it?"):
            return
        raise RegraftError("nothing was run.")
    raise RegraftError(
        f"{found} Look at it, `git diff {base[:12]} {snapshot[:12]}`. If it may run on this machine, as you, name a "
        f"branch that has it, `--trust BRANCH`, or the commit itself, `--trust {snapshot[:12]}`."
    )


def _trusted_commit(git: Git, name: str | None) -> str:
    # A tag comes with a fetch and may have the name of a branch, which git would take it for.
    places = (f"refs/heads/{name}", f"refs/remotes/{name}", name) if name else ("HEAD",)
    if commit := next(filter(None, map(git.revision, places)), None):
        return commit
    raise RegraftError(f"git knows no branch or commit {name or 'that is checked out'}. Fetch it, or name another one.")


def foreign_paths(git: Git, params: Params, base: str, snapshot: str) -> list[str]:
    """Return the paths, from the top of the repository, in which a snapshot has other code than a commit."""
    parts = git("diff-tree", "-r", "-z", "--no-renames", base, snapshot).split("\0")
    changes = zip(parts[1::2], [facts.split()[1] for facts in parts[:-1:2]], strict=True)
    records = {path.as_posix() for path in files_of_run(params)}

    def is_data(path: str, mode: str) -> bool:
        if mode not in _FILES or not path.startswith(git.prefix):
            return False
        if path == f"{git.prefix}params.yaml":
            before = _reaching_settings(git, base, path)
            return before is not None and before == _reaching_settings(git, snapshot, path)
        name = Path(path.removeprefix(git.prefix))
        is_listed = name.parent in (params.paths.receipts, params.paths.expectations) and name.suffix == ".json"
        return is_listed or name.as_posix() in records

    return [path for path, mode in changes if not is_data(path, mode)]


def _reaching_settings(git: Git, commit: str, path: str) -> dict[Any, Any] | None:
    """Return the sections of params.yaml in a commit that are not harmless; None if it cannot be read."""
    try:
        settings = YAML(typ="safe").load(git("cat-file", "blob", f"{commit}:{path}"))
        return {name: section for name, section in settings.items() if name not in _HARMLESS}
    except (NoGit, YAMLError, ValueError, RecursionError, AttributeError, TypeError):
        return None


def _difference(git: Git, base: str, snapshot: str, paths: list[str]) -> list[str]:
    """Return the lines of a difference, whatever a person's settings of git would make of them."""
    if len(paths) > _LONGEST:
        return paths
    options = ("--patch", "--no-color", "--no-ext-diff", "--no-textconv", "--text", "--no-renames", "--no-prefix")
    names = [f":(top,literal){path}" for path in paths]
    return git("diff-tree", "-r", *options, base, snapshot, "--", *names).split("\n")
