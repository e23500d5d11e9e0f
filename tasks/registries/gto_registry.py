"""The commit that the model in production comes from, under git tags of GTO, for `dvc artifacts get`.

    python -m tasks.registries.gto_registry

    classifier@v0.0.3          a version: `gto register classifier <commit>`
    classifier#production#4    the stage that it is in: `gto assign classifier --version v0.0.3 --stage production`

The commit is the last one on HEAD, or on `nights.branch`, whose dvc.lock has the file of the model in production. So it
takes a run with --commit, or a commit by hand. DVC's remote has to have the file too: --commit pushes it.
"""

import sys
from pathlib import Path

from regraft.config import Params
from regraft.errors import RegraftError
from regraft.files import md5_of
from regraft.params_file import load_params
from regraft.production.records import Records
from tasks.runs.git import Git, open_git

_COMMITS = 500  # that are looked at, newest first
_NOBODY = ("Regraft", "regraft@localhost")  # where git does not know who tags


def register(params: Params) -> str:
    """Tag the commit of the model in production, push the tags if that is asked for, and return a sentence on it.

    Raises:
        RegraftError: git is not used here, has no such commit, or cannot push.
        gto.exceptions.GTOException: GTO refuses.
    """
    settings, records = params.promote.gto, Records(params.paths.production)
    digest = records.digest
    if settings is None or digest is None:
        raise RegraftError("there is nothing to tag: promote.gto is null, or production holds no sound model.")
    git = open_git(Path.cwd())
    name = f"{git.prefix.rstrip('/')}:{settings.name}" if git.prefix else settings.name
    version = _version_of(git, name, digest)
    if version is None:
        _register(git, name, find_commit(git, params, md5_of(records.model)), digest)
        version = _version_of(git, name, digest)
    tag = f"{_in_tag(name)}@{version}"
    commit = git.revision(tag)
    stage = _stage_tags(git, name, settings.stage)[-1:]
    if not stage or git.revision(stage[0]) != commit:
        _assign(git, name, str(version), settings.stage, digest)
        stage = _stage_tags(git, name, settings.stage)[-1:]
    pushed = ""
    if settings.push:
        git("push", "--quiet", "origin", *[f"refs/tags/{each}" for each in (tag, *stage)])
        pushed = ", pushed to origin"
    return f"GTO: model {digest[:12]} is {tag}, commit {str(commit)[:12]}, in stage {settings.stage}{pushed}."


def find_commit(git: Git, params: Params, md5: str) -> str:
    """Return the last commit that changed dvc.lock so that it has a file with these bytes.

    Raises:
        RegraftError: there is none.
    """
    for name in ("HEAD", params.nights.branch):
        tip = git.revision(name) if name else None
        commits = (
            git("log", f"--max-count={_COMMITS}", "--format=%H", tip, "--", "dvc.lock").splitlines() if tip else []
        )
        for commit in commits:
            if md5 in (git.ask("show", f"{commit}:./dvc.lock") or ""):
                return commit
    raise RegraftError(
        "no commit has a dvc.lock with the model in production. `regraft retrain --commit` makes one, or commit "
        "dvc.lock yourself and run `regraft promote`."
    )


def _version_of(git: Git, name: str, digest: str) -> str | None:
    """Return the version under which a model was registered; its tag says the SHA-256."""
    tags = git("tag", "--list", f"{_in_tag(name)}@v*", "--format=%(refname:strip=2) %(contents:subject)").splitlines()
    known = [tag.partition(" ")[0] for tag in tags if tag.endswith(_subject(digest))]
    return known[-1].rpartition("@")[2] if known else None


def _stage_tags(git: Git, name: str, stage: str) -> list[str]:
    """Return the tags that put versions into a stage, oldest first; they are numbered."""
    tags = git("tag", "--list", f"{_in_tag(name)}#{stage}#*").splitlines()
    return sorted(tags, key=lambda tag: int(tag.rpartition("#")[2]) if tag.rpartition("#")[2].isdecimal() else 0)


def _register(git: Git, name: str, commit: str, digest: str) -> None:
    from gto.api import register

    author, email = _who(git)
    register(_top(git), name, commit, message=_subject(digest), author=author, author_email=email)


def _assign(git: Git, name: str, version: str, stage: str, digest: str) -> None:
    from gto.api import assign

    author, email = _who(git)
    # force: after a rollback a version comes into a stage that it was in before.
    assign(_top(git), name, stage, version, message=_subject(digest), force=True, author=author, author_email=email)


def _subject(digest: str) -> str:
    return f"Regraft: model {digest}"


def _in_tag(name: str) -> str:
    return name.replace(":", "=")  # as GTO writes it: git allows no colon


def _top(git: Git) -> str:
    return git("rev-parse", "--show-toplevel")


def _who(git: Git) -> tuple[str, str]:
    name, email = git.ask("config", "user.name"), git.ask("config", "user.email")
    return (name, email) if name and email else _NOBODY


def main() -> None:
    """What git or GTO raises becomes one line, which `tell` hands on."""
    try:
        print(register(load_params(Path("params.yaml"))))
    except Exception as error:  # whatever a library behind GTO thinks of
        print(" ".join(f"{type(error).__name__}: {error}".split()), file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
