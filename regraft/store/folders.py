"""Which folders of a store are namespaces: those whose description fits their name, and nothing else."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from regraft.core.errors import RegraftError, some
from regraft.store.description import facts_in, read_description
from regraft.store.names import DESCRIPTION, is_half_sent, is_namespace, is_ours, is_shard, writer_of
from regraft.store.namespace import Namespace
from regraft.store.remote import Remote
from regraft.store.shards import shard_paths


def candidates(root: Path, remote: Remote | None) -> list[str]:
    """Return the names of all folders that have the name of a namespace, here and in the shared root."""
    here = {path.name for path in root.iterdir() if path.is_dir()} if root.is_dir() else set()
    return sorted(name for name in here | set(remote.folders() if remote else ()) if is_namespace(name))


def namespaces(root: Path, remote: Remote | None) -> list[str]:
    """Return the names of all namespaces, here and in the shared root; name the folders that only look like one."""
    found = []
    for name in candidates(root, remote):
        if facts_of(root, remote, name):
            found.append(name)
        else:
            print(
                f"{name} is left alone: it has no {DESCRIPTION} that fits its name. If it is Regraft's, the next "
                "retraining that needs it writes that again; else remove the folder yourself."
            )
    return found


def facts_of(root: Path, remote: Remote | None, name: str) -> dict[str, Any] | None:
    """Return what the arrays of a namespace are, as its description here or in the shared root says, or None."""
    facts = read_description(root / name)
    if facts is None and remote:
        facts = facts_in(remote.read(f"{name}/{DESCRIPTION}") or b"", name)
    return facts


def open_folder(root: Path, remote: Remote | None, name: str) -> Namespace:
    """Open a namespace by the name of its folder, to look after it: copies of rows of the shared root do not count.

    Raises:
        RegraftError: what its arrays are is not known, because namespace.json is damaged.
    """
    facts = facts_of(root, remote, name)
    if facts is None:
        raise RegraftError(
            f"{root / name / DESCRIPTION} is damaged or missing. The next retraining that needs these rows writes it "
            "again; if none does, delete the folder."
        )
    return Namespace(root / name, facts, remote, keeps_copies=False)


def has_shards(root: Path, remote: Remote | None, name: str) -> bool:
    """Whether a folder holds files with names of shards."""
    return bool(shard_paths(root / name)) or any(map(is_shard, remote.sizes(name) if remote else ()))


def size_of(root: Path, remote: Remote | None, name: str) -> int:
    """Return the bytes of a namespace, here or in the shared root, whichever are more."""
    here = sum((root / name / file).lstat().st_size for file in _files(root / name) if is_ours(name, file))
    there = remote.sizes(name).items() if remote else ()
    return max(here, sum(size for file, size in there if is_ours(name, file)))


def remove_namespace(root: Path, remote: Remote | None, name: str) -> None:
    """Remove what Regraft wrote to the folder of a namespace, and the folder if nothing else is in it."""
    folder = root / name
    for file in sorted(_files(folder), key=lambda file: file == DESCRIPTION):  # which is what tells that it is ours
        if is_ours(name, file) or writer_of(name, file) is not None:
            (folder / file).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()
    left = set(_files(folder))
    if remote:
        for file in sorted(remote.sizes(name), key=lambda file: file == DESCRIPTION):
            if is_ours(name, file) or is_half_sent(name, file):
                remote.remove(f"{name}/{file}")
            else:
                left.add(file)
        remote.remove_empty(name)
    if left:
        print(f"{name}: left alone, since Regraft did not write it: {some(sorted(left))}.")


def _files(folder: Path) -> list[str]:
    """Return the names in a folder, but those of other folders."""
    try:
        return [path.name for path in folder.iterdir() if path.is_symlink() or not path.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
