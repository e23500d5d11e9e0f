"""The data folder: one walk over names and kinds, which opens nothing, and a way to open a file that never waits.

Whoever may put photos into the folder can put anything there: a pipe that is waited for without end, a link to a
device, a name that is no text, a dvc.yaml whose commands DVC runs. DVC hashes whatever it finds. So the folder is
checked before DVC touches it (`check_folder`), hidden folders included, since DVC reads these too.
"""

import errno
import os
import re
import stat
from collections import defaultdict
from dataclasses import dataclass
from enum import Enum
from io import BufferedReader
from pathlib import Path

from regraft.core.errors import InvalidData, MissingPhotos, is_invisible, printable, some

_DEEPEST = 100  # folders within folders; DVC's walk is recursive and ends at several hundred
_LONGEST = 3500  # bytes of a path; the kernel takes 4,095, and temporary names need a few
_EFFECTIVE = {"effective_ids": True} if os.access in os.supports_effective_ids else {}
# What DVC 3 takes for its own (dvc.dvcfile, dvc.ignore, dvc.repo), and the repositories that it leaves out. Files that
# end in .dvc or are named dvc.yaml are loaded, and the commands in them are run; .dvcignore, .dvc, .git and .hg hide
# what lies beside, below or within them.
_OBEYED = re.compile(r".*\.dvc|dvc\.yaml|dvc\.lock|\.dvcignore|\.git|\.hg", re.DOTALL)
_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class _Problem(Enum):
    """What must not lie in the data folder, what to do with it, and what to say of one such thing elsewhere."""

    NAME = ("names that are not UTF-8", "Rename each", "its name is not UTF-8")
    OBEYED = (
        "what DVC or git obeys: it would run commands, or leave photos out without a word",
        "Remove each; DVC tracks the data folder as a whole",
        "it has a name that DVC or git obeys",
    )
    SPECIAL = ("what holds no photo and may be waited for without end", "Remove each", "it is no file")
    UNREADABLE = ("files and folders that cannot be read", "Make each readable, or remove it", "it cannot be read")
    OUTSIDE = ("links that leave the data folder", "Replace each by a copy of what it points to", "it leads outside")
    FOLDER = (
        "links to folders, whose photos would count twice",
        "Remove each, or replace it by a copy",
        "it is a link to a folder",
    )
    NOWHERE = ("links that lead nowhere", "Remove each", "it is a link that leads nowhere")
    DEEP = (
        f"what lies more than {_DEEPEST} folders deep or has a path of over {_LONGEST:,} bytes",
        "Move each up",
        f"it lies more than {_DEEPEST} folders deep, or has a path of over {_LONGEST:,} bytes",
    )


@dataclass(frozen=True, slots=True)
class _Refused:
    """An entry that must go."""

    problem: _Problem
    words: str = ""  # what to say after its path


def check_folder(root: Path) -> None:
    """Raise InvalidData if there is no data folder, or if something lies in it that no program should read or obey."""
    walk(root)


def walk(root: Path) -> list[str]:
    """Every file below `root`, except in hidden folders. Nothing is opened.

    Returns:
        Paths relative to `root`, with forward slashes, in no order. Links are among them if they lead to a file
        within `root`.

    Raises:
        InvalidData: there is no such folder, or something lies in it, hidden or not, that must not: each is named.
    """
    if not os.path.isdir(root):  # noqa: PTH112 - Path.is_dir raises where a folder above may not be searched
        raise MissingPhotos(
            f"there is no data folder {printable(str(root))}. Expected labelled photos in it: <class>/*.jpg, "
            f"{{train,val,test}}/<class>/*.jpg, or labels.csv. Put yours there, or run `make demo` for sample data."
        )
    files, refused = _walk(root)
    if refused:
        raise InvalidData(_message(root, refused))
    return files


def walk_around(root: Path) -> tuple[list[str], dict[str, str]]:
    """Do the same in a folder that others fill as they like: what must not be read is left out, and named.

    Returns:
        The files, as `walk` does; and by the path of what is left out why it is, as a sentence.
    """
    files, refused = _walk(root)
    sentences = {problem: problem.value[2] for problem in refused}
    return files, {path: sentences[problem] + words for problem, entries in refused.items() for path, words in entries}


def _walk(root: Path) -> "tuple[list[str], dict[_Problem, list[tuple[str, str]]]]":
    """The files below a folder; and what is none, as its path and words that follow it, by what is wrong."""
    files: list[str] = []
    refused: dict[_Problem, list[tuple[str, str]]] = defaultdict(list)
    real_root = os.path.realpath(root)
    waiting = [("", 0, False)]
    while waiting:
        folder, depth, is_hidden = waiting.pop()
        try:
            entries = _entries(root / folder)
        except FileNotFoundError:  # it was there a moment ago
            continue
        except OSError as error:
            refused[_Problem.UNREADABLE].append((folder.rstrip("/") or str(root), f" ({error.strerror})"))
            continue
        for entry in entries:
            path = folder + entry.name
            is_folder = _look_at(entry, real_root, depth)
            if isinstance(is_folder, _Refused):
                refused[is_folder.problem].append((path, is_folder.words))
            elif is_folder:
                waiting.append((f"{path}/", depth + 1, is_hidden or _is_hidden_folder(entry.name)))
            elif not is_hidden:
                files.append(path)
    return files, refused


def open_inside(root: Path, path: str) -> BufferedReader:
    """Open a file of the data folder for reading, whatever took its place since the walk; this never waits.

    Raises:
        OSError: it is gone, is no file any more, or lies outside of `root` now.
    """
    full = root / path
    if not stat.S_ISREG(full.stat().st_mode):
        raise OSError(errno.EINVAL, "it is not a file")
    # Without O_NONBLOCK, to open a pipe that somebody put there just now would wait for its other end.
    file = os.fdopen(os.open(full, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    try:
        opened, real = os.fstat(file.fileno()), os.path.realpath(full, strict=True)
        if not stat.S_ISREG(opened.st_mode):
            raise OSError(errno.EINVAL, "it is not a file")
        if not _is_inside(real, os.path.realpath(root)) or not os.path.samestat(opened, os.lstat(real)):
            raise OSError(errno.EXDEV, "it leads out of the data folder")
    except OSError:
        file.close()
        raise
    return file


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        listed = list(entries)
    # A folder that may be listed but not searched gives names of which nothing else can be found out.
    if not _may(str(folder), os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    return listed


def _look_at(entry: os.DirEntry[str], real_root: str, depth: int) -> bool | _Refused:
    """Return whether an entry is a folder, or why it must go; it is not opened."""
    if not _is_utf8(entry.name):
        return _Refused(_Problem.NAME)
    if depth > _DEEPEST or len(os.fsencode(entry.path)) > _LONGEST:
        return _Refused(_Problem.DEEP)
    if _OBEYED.fullmatch(_as_file_systems_compare(entry.name)):
        return _Refused(_Problem.OBEYED)
    try:
        if entry.is_symlink():
            return _look_at_link(entry.path, real_root)
        if entry.is_dir(follow_symlinks=False):
            return True
        if not entry.is_file(follow_symlinks=False):
            return _special(entry.stat(follow_symlinks=False))
    except OSError as error:
        return _Refused(_Problem.UNREADABLE, f" ({error.strerror})")
    return _look_at_file(entry.path)


def _look_at_link(link: str, real_root: str) -> bool | _Refused:
    """Follow a link by its text alone; the last step is to ask what lies at its end."""
    target = f" -> {Path(link).readlink()}"
    try:
        end = os.path.realpath(link, strict=True)
    except OSError as error:
        is_loop_or_gone = error.errno in (errno.ELOOP, errno.ENOENT, errno.ENOTDIR)
        return _Refused(_Problem.NOWHERE if is_loop_or_gone else _Problem.UNREADABLE, target)
    if end != real_root and not _is_inside(end, real_root):
        return _Refused(_Problem.OUTSIDE, target)
    status = os.lstat(end)
    if stat.S_ISDIR(status.st_mode):
        return _Refused(_Problem.FOLDER, target)
    if not stat.S_ISREG(status.st_mode):
        return _special(status)
    return _look_at_file(end)


def _special(status: os.stat_result) -> _Refused:
    return _Refused(_Problem.SPECIAL, f" ({_SPECIAL.get(stat.S_IFMT(status.st_mode), 'neither a file nor a folder')})")


def _look_at_file(path: str) -> bool | _Refused:
    if _may(path, os.R_OK) or not os.path.lexists(path):  # it was there a moment ago
        return False
    return _Refused(_Problem.UNREADABLE, f" ({os.strerror(errno.EACCES)})")


def _may(path: str, mode: int) -> bool:
    return os.access(path, mode, **_EFFECTIVE)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _as_file_systems_compare(name: str) -> str:
    """The name without case and invisible letters: to DVC on a Mac, .DVC and .d<zero width joiner>vc are .dvc."""
    if not name.isascii():
        name = "".join(letter for letter in name if not is_invisible(letter) and letter not in "\u200c\u200d")
    return name.casefold()


def _is_inside(path: str, real_root: str) -> bool:
    return path.startswith(real_root.rstrip(os.sep) + os.sep)


def _is_hidden_folder(name: str) -> bool:
    # .ipynb_checkpoints and macOS archives hold copies of images that nobody meant as data.
    return name.startswith(".") or name == "__MACOSX"


def _message(root: Path, refused: dict[_Problem, list[tuple[str, str]]]) -> str:
    lines = []
    for problem in (problem for problem in _Problem if problem in refused):
        what, remedy, _ = problem.value
        named = sorted(path + words for path, words in refused[problem])
        lines.append(f"- {what} ({len(named)}): {some(named)}. {remedy}.")
    expected = "may hold folders, files that can be read, and links to files in it"
    return "\n".join([f"the data folder {printable(str(root))} {expected}. Other things lie there:", *lines])
