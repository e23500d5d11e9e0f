"""Production of a folder, copied to an address with all that belongs to it: a team moves, and nothing begins anew.

Objects first, each fetched again and compared; production.json last, and only where there is none. So a copy that ends
half-way, for whatever reason, leaves nothing that anybody would take for production.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from regraft.core.addresses import is_address, is_short_enough, mirror_of, shown
from regraft.core.errors import RegraftError
from regraft.core.files import sha256_of
from regraft.production.logs import VERDICTS, change_log
from regraft.production.mirror import mirror_at
from regraft.production.mirrored import looks_of
from regraft.production.place import Place
from regraft.production.pointer import MODEL, Stored, first_pointer
from regraft.production.registry import Production

_CANDIDATES = "candidates"  # where they lie at an address


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied."""

    where: str  # as much of the address as may be shown
    files: int
    size: int  # bytes of their contents, each counted once
    model: str  # SHA-256 of the model in production
    changes: int  # lines of the log
    verdicts: int  # lines of the gate


def copy_production(folder: Path, candidates: Path, address: str) -> Copied:
    """Copy production and its candidates to an address where there is none.

    Args:
        folder: models/production, or the mirror of another address. It is as it was afterwards.
        candidates: models/candidates.
        address: such as s3://bucket/folder.

    Raises:
        RegraftError: there is production at the address already, there is no sound model in the folder, the address
            cannot be reached, or what was fetched again is not what was sent. Nothing was founded there.
        Busy: another process is changing production.
    """
    place = _empty_place(folder, address)
    with Production(folder).changing("copying production") as standing:
        if standing.digest is None:
            raise RegraftError(
                f"there is no sound model in production, so nothing was copied. {standing.problem or ''} `regraft "
                f"promote --rollback` puts the last sound model back; `regraft promote --first` begins without one."
            )
        stored = _send(place, _files(folder, candidates))
        pointer = first_pointer().next(stored)
        if not place.found(pointer):
            raise RegraftError(
                f"somebody founded production at {place.shown} meanwhile, and it stays as it is: nothing of this copy "
                f"counts there. Name another folder, in which there is no production."
            )
        if place.pointer() != pointer:
            raise RegraftError(
                f"{shown(address)} does not give back the production.json that was written there. Do not use it: look "
                f"whether somebody else writes there, and copy to another address."
            )
        place.publish(folder / MODEL, standing.digest)
        changes, damaged = change_log(folder).read()
        size = sum({each.sha256: each.size for each in stored.values()}.values())
        verdicts = _lines(folder / VERDICTS)
        return Copied(place.shown, len(stored), size, standing.digest, len(changes) + damaged, verdicts)


def _empty_place(folder: Path, address: str) -> Place:
    is_one = "://" in address and is_address(address) and is_short_enough(address)
    if not is_one or mirror_of(address).name == folder.name:
        raise RegraftError(
            f"another address was expected, of at most 180 letters, such as s3://bucket/folder or file:///mnt/folder, "
            f"where production is to lie from now on. Received: {shown(address)}."
        )
    place = Place(address)
    if place.pointer() is not None:
        raise RegraftError(
            f"there is production at {place.shown} already, and it stays as it is. Name a folder there in which there "
            f"is none."
        )
    return place


def _files(folder: Path, candidates: Path) -> dict[str, Path]:
    """Return all files by the names that they have at an address; models that lie at one only are fetched."""
    found = {name: folder / name for name in looks_of(folder)}
    if mirror := mirror_at(folder):
        for path in found.values():
            mirror.obtain(path)
    else:
        found = {name: path for name, path in found.items() if name.partition("/")[0] != _CANDIDATES}
        found |= {f"{_CANDIDATES}/{name}": candidates / name for name in looks_of(candidates)}
    is_lost = {name for name, path in found.items() if name.endswith(".onnx") and not path.stat().st_size}
    return {name: path for name, path in sorted(found.items()) if name not in is_lost}


def _send(place: Place, files: dict[str, Path]) -> dict[str, Stored]:
    """Write each content once, and fetch it again to compare."""
    by_digest: dict[str, Stored] = {}
    stored = {}
    for name, path in files.items():
        digest = sha256_of(path)
        if digest not in by_digest:
            by_digest[digest] = Stored.new(digest, path.stat().st_size)
            place.send_object(path, by_digest[digest].object)
            _compare(place, by_digest[digest], name)
        stored[name] = by_digest[digest]
    return stored


def _compare(place: Place, stored: Stored, name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="regraft-copy-") as temporary:
        fetched = Path(temporary, "object")
        try:
            place.fetch_object(stored, fetched)
            is_same = sha256_of(fetched) == stored.sha256
        except FileNotFoundError:
            is_same = False
    if not is_same:
        raise RegraftError(
            f"{place.shown} does not give back what was sent there as {name}, so nothing was founded. Run the same "
            f"command again; if that happens once more, it is no store for production."
        )


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0
