"""Production of a folder, copied to an address with its history: objects first, production.json last and only if new.

A copy that ends half-way leaves nothing that is taken for production.
"""

from dataclasses import dataclass
from pathlib import Path

from regraft.core.addresses import is_address, is_short_enough, mirror_of, shown
from regraft.core.errors import RegraftError
from regraft.core.files import sha256_of
from regraft.production.exclusive import obtain
from regraft.production.registry import Production
from regraft.production.remote_registry import MODEL, RemoteRegistry, Stored, looks_of, registry_at

_CANDIDATES = "candidates"  # where they lie at an address


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied."""

    where: str  # as much of the address as may be shown
    files: int
    size: int  # bytes of their contents, each counted once
    model: str  # SHA-256 of the model in production


def copy_production(folder: Path, candidates: Path, address: str) -> Copied:
    """Copy production and its candidates to an address where there is none.

    Args:
        folder: models/production, or the mirror of another address. It is as it was afterwards.
        candidates: models/candidates.
        address: such as s3://bucket/folder.

    Raises:
        RegraftError: there is production at the address already, there is no sound model in the folder, or the address
            cannot be reached. Nothing was founded there.
        Busy: another process is changing production.
    """
    is_one = "://" in address and is_address(address) and is_short_enough(address)
    if not is_one or mirror_of(address).name == folder.name:
        raise RegraftError(
            f"another address was expected, of at most 180 letters, such as s3://bucket/folder or file:///mnt/folder, "
            f"where production is to lie from now on. Received: {shown(address)}."
        )
    there = RemoteRegistry(mirror_of(address), address)
    taken = RegraftError(
        f"there is production at {there.remote.shown} already, and it stays as it is. Name a folder there in which "
        f"there is none."
    )
    if there.pointer() is not None:
        raise taken
    with Production(folder).changing("copying production") as standing:
        if standing.digest is None:
            raise RegraftError(
                f"there is no sound model in production, so nothing was copied. {standing.problem or ''} `regraft "
                f"promote --rollback` puts the last sound model back; `regraft promote --first` begins without one."
            )
        by_digest: dict[str, Stored] = {}
        files = {}
        for name, path in _files(folder, candidates).items():
            digest = sha256_of(path)
            if digest not in by_digest:
                by_digest[digest] = there.send(path, digest)
            files[name] = by_digest[digest]
        pointer = there.found(files)
        if pointer is None:
            raise taken
        there.publish(pointer, folder / MODEL)
        return Copied(there.remote.shown, len(files), sum(each.size for each in by_digest.values()), standing.digest)


def _files(folder: Path, candidates: Path) -> dict[str, Path]:
    """Return all files by the names that they have at an address; models that lie at one only are fetched."""
    found = {name: folder / name for name in looks_of(folder)}
    if registry_at(folder):
        for path in found.values():
            if path.suffix == ".onnx" and path.parent != folder:
                obtain(path)
    else:
        found = {name: path for name, path in found.items() if name.partition("/")[0] != _CANDIDATES}
        found |= {f"{_CANDIDATES}/{name}": candidates / name for name in looks_of(candidates)}
    return {name: path for name, path in sorted(found.items()) if path.suffix != ".onnx" or path.stat().st_size}
