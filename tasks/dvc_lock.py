"""A dvc.lock that cannot be read is brought back from a copy, and so is data/raw.dvc from the folder that it describes.

This project's runs leave neither half-written (tasks/safe_dvc.py). A `dvc` of another environment may, and a full disk.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core.errors import RegraftError, printable
from regraft.core.files import write_bytes
from tasks.dvc_cache import MD5

if TYPE_CHECKING:
    from dvc.repo import Repo

# By these DVC finds files that are not in its cache: of other stores, and of versions there. No stage here has any.
_NOT_OURS = {"etag", "checksum", "version_id", "cloud", "dataset"}
COPY = Path(".dvc", "tmp", "regraft", "dvc.lock")
_seen: dict[Path, tuple[int, int, int]] = {}  # by path, how the file was when it was last found to be whole


def bring_back(repo: "Repo") -> None:
    """Make sure that DVC can read dvc.lock: keep a copy of a good one, and put the copy in place of a damaged one.

    Without a copy the damaged file is put aside. Then DVC takes from its run cache what it finds there.

    Raises:
        RegraftError: it is no file, or git left marks of a conflict in it or in dvc.yaml.
    """
    from dvc.repo import lock_repo

    root = Path(repo.root_dir)
    path, copy = root / "dvc.lock", root / COPY
    check_no_conflict(root / "dvc.yaml", _read(root / "dvc.yaml"))
    if _is_good(path, copy):
        return
    with lock_repo(repo):  # `dvc` of another environment may be writing it just now
        if _is_good(path, copy):
            return
        write_bytes(copy.with_suffix(".damaged"), path.read_bytes())
        if _is_whole(_read(copy)):
            write_bytes(path, copy.read_bytes())
            what = "It is as it was before: what came after is found again or done again."
        else:
            path.unlink()
            what = "It was put aside: results that DVC remembers are taken from its cache, others are computed again."
    print(f"dvc.lock was damaged. {what}", file=sys.stderr)


def _is_good(path: Path, copy: Path) -> bool:
    if not path.exists():
        return True
    check_is_file(path)
    stat = path.stat()
    facts = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
    if _seen.get(path) == facts:
        return True
    text = _read(path)
    check_no_conflict(path, text)
    if text is None or text != _read(copy):  # what is in the copy was read before; to read a long one takes 0.1 s
        if not _is_whole(text):
            return False
        write_bytes(copy, (text or "").encode())
    _seen[path] = facts
    return True


def check_whole(path: Path) -> None:
    """Raise RegraftError if there is a dvc.lock that DVC cannot read, or that has no stage; DVC leaves none like that.

    For who only reads it, and must not take what is damaged for what is not there.
    """
    if not (path.exists() or path.is_symlink()):
        return
    check_is_file(path)
    text = _read(path)
    check_no_conflict(path, text)
    outside = _outside(_parsed(text))
    if outside or not (_is_whole(text) and _parsed(text).get("stages")):
        is_cut_off = text and not text.endswith("\n")
        found = (
            "no line break at its end" if is_cut_off else "nothing that DVC can read" if text else "no text in UTF-8"
        )
        found = f"a path that leads outside, {printable(outside[0])}" if outside else found
        raise RegraftError(
            f"{path} is damaged: expected what DVC recorded of each stage, found {found}. `git checkout {path}` "
            f"brings back the one that was committed last, and `git log {path}` lists earlier ones. If it was never "
            f"committed, remove it and run `regraft retrain`: what is known is not computed again."
        )


def _outside(value: Any) -> list[str]:
    """Return what DVC would read outside of its cache, by what stands for an MD5, or write outside of the project.

    DVC finds a file in its cache by the field that `hash` names, whatever that is. Here it is always an MD5.
    """
    if isinstance(value, list):
        return [found for each in value for found in _outside(each)]
    if not isinstance(value, dict):
        return []
    own = [str(value["md5"])] if not MD5.fullmatch(str(value.get("md5", "0" * 32))) else []
    own += [f"hash: {value['hash']}"] if value.get("hash", "md5") not in ("md5", "md5-dos2unix") else []
    own += [f"{name}: {value[name]}" for name in _NOT_OURS & value.keys()]
    inside = Path(str(value.get("relpath", "")))
    own += [str(inside)] if inside.is_absolute() or ".." in inside.parts else []
    return own + [found for name, each in value.items() if name != "params" for found in _outside(each)]


def check_is_file(path: Path) -> None:
    """Raise RegraftError if a folder, a pipe or a device lies where DVC keeps a file."""
    if not path.is_file():
        raise RegraftError(f"{path} must be a file that DVC wrote. Move away what is there, and run again.")


def check_no_conflict(path: Path, text: str | None) -> None:
    """Raise RegraftError if git left its marks in a file of DVC's."""
    if text and any(line.startswith("<<<<<<< ") for line in text.splitlines()):
        raise RegraftError(
            f"git left a conflict in {path}. Take one side, with `git checkout --ours` or `--theirs`, and run again: "
            f"DVC finds out what is left to do."
        )


def is_good_pointer(path: Path) -> bool:
    """Whether there is a file that describes the data folder, and DVC can read it; a damaged one is removed.

    It says nothing that DVC does not find out anew by reading the folder.
    """
    if not path.exists():
        return False
    check_is_file(path)
    text = _read(path)
    check_no_conflict(path, text)
    outs = _parsed(text).get("outs")
    if isinstance(outs, list) and outs and all(isinstance(out, dict) and "path" in out for out in outs):
        return True
    path.unlink()
    print(f"{path.name} was damaged. It is written anew from the data folder.", file=sys.stderr)
    return False


def _is_whole(text: str | None) -> bool:
    """Whether DVC accepts a dvc.lock; a whole one ends with a line break, and the start of one may not."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    if not text or not text.endswith("\n"):
        return False
    try:
        COMPILED_LOCKFILE_SCHEMA(_parsed(text))
    except Invalid:
        return False
    return True


def _parsed(text: str | None) -> dict[str, Any]:
    from ruamel.yaml import YAML, YAMLError

    try:
        contents = YAML(typ="safe").load(text or "")
    except (YAMLError, ValueError, RecursionError):  # ValueError: a number or a date that is none
        return {}
    return contents if isinstance(contents, dict) else {}


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return None
