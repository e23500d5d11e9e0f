"""git for runs that nobody watches: no hooks, no prompts, no signatures, no editor, and a sentence where it fails.

What a person has staged stays as it is: trees are built with an index of their own.
"""

import configparser
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from regraft.core.errors import RegraftError

_SECONDS = 120.0  # a command that takes longer hangs, on a file system or on a filter
_SETTINGS = ("core.hooksPath=/dev/null", "commit.gpgSign=false", "gc.auto=0", "advice.detachedHead=false")
_QUIET = [option for setting in _SETTINGS for option in ("-c", setting)]
_NOBODY = {"NAME": "Regraft", "EMAIL": "regraft@localhost"}  # where git does not know who commits


class NoGit(RegraftError):
    """git cannot do here what it was asked for; the message says why."""


@dataclass(frozen=True, slots=True)
class Git:
    """git in a project's folder, which may be a part of a bigger repository."""

    root: Path  # of the project
    prefix: str  # the project's folder in the repository: empty, or with a slash at its end
    variables: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        """Run a command of git and return what it prints, without the last line break; NoGit if it fails."""
        return _run(self.root, *arguments, stdin=stdin, variables=self.variables)

    def ask(self, *arguments: str) -> str | None:
        """Return the same, or None where git has no answer."""
        try:
            return self(*arguments)
        except NoGit:
            return None

    @contextmanager
    def own_index(self) -> Iterator["Git"]:
        """Yield git with an empty index of its own, in place of the one that a person stages in."""
        with tempfile.TemporaryDirectory(prefix="regraft-index-") as folder:
            yield replace(self, variables=self.variables | {"GIT_INDEX_FILE": str(Path(folder, "index"))})

    def commit(self, tree: str, message: str, parents: list[str], at: datetime) -> str:
        """Make a commit object, which no branch names yet, and return its name."""
        by = [f"GIT_{who}_{what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")]
        is_known = all(self.ask("config", key) for key in ("user.name", "user.email")) or all(map(os.environ.get, by))
        who = {} if is_known else {name: _NOBODY[name.rpartition("_")[2]] for name in by}
        dates = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), at.isoformat(timespec="seconds"))
        options = [option for parent in parents for option in ("-p", parent)]
        git = replace(self, variables=self.variables | who | dates)
        return git("commit-tree", "--no-gpg-sign", tree, *options, stdin=message)

    def revision(self, name: str = "HEAD") -> str | None:
        """Return the commit that a name stands for; None where there is none, as on a branch without any."""
        return self.ask("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")

    def contains(self, commit: str | None, other: str | None) -> bool:
        """Whether a commit is another one, or comes from it."""
        return bool(commit and other) and self.ask("merge-base", "--is-ancestor", str(other), str(commit)) is not None

    def trackable(self, paths: list[Path]) -> list[str]:
        """Return those of some paths of the project that are there, and not behind a link, where git cannot follow."""
        top = self.root.resolve()
        return [path.as_posix() for path in paths if (top / path).is_file() and (top / path).resolve() == top / path]


def open_git(root: Path) -> Git:
    """Return git for a project; NoGit if it is not installed, not used here, or does not accept the repository."""
    if shutil.which("git") is None:
        raise NoGit("git is not installed.")
    config = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        config.read([root / ".dvc" / "config", root / ".dvc" / "config.local"], encoding="utf-8")
        is_unused = config.getboolean("core", "no_scm", fallback=False)
    except (configparser.Error, ValueError):
        is_unused = False  # DVC itself says what is wrong with it
    if is_unused:
        raise NoGit("DVC is set up to go without git here (core.no_scm).")
    return Git(root, _run(root, "rev-parse", "--show-prefix", variables={}, stdin=""))


def _run(root: Path, *arguments: str, stdin: str, variables: dict[str, str]) -> str:
    # A hook or an editor that started this process may have set the first one for itself.
    kept = {name: value for name, value in os.environ.items() if name != "GIT_INDEX_FILE"}
    fixed = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_EDITOR": "true"}
    try:
        ended = subprocess.run(
            ["git", *_QUIET, *arguments],  # noqa: S607
            cwd=root,
            env=kept | fixed | variables,
            input=stdin.encode("utf-8", "surrogateescape"),
            capture_output=True,
            timeout=_SECONDS,
            check=True,
        )
    except (subprocess.SubprocessError, OSError) as error:
        said = " ".join((getattr(error, "stderr", None) or b"").decode("utf-8", "replace").split()) or str(error)
        command = next(argument for argument in arguments if not argument.startswith("-"))
        raise NoGit(f"`git {command}` failed: {said}") from None
    # Decoded here, since text mode would turn a carriage return in a name into a line break.
    return ended.stdout.decode("utf-8", "surrogateescape").rstrip("\n")
