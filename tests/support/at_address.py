"""Workers that share production at an address, each with a project folder of its own."""

from pathlib import Path

from regraft.core.addresses import mirror_of
from regraft.production.exclusive import found
from regraft.production.registry import Production
from regraft.production.remote_registry import Pointer, RemoteRegistry
from tests.support.production import data_of, write_candidate


def worker(root: Path, address: str) -> Path:
    """The folder in which the worker with that root works on production."""
    return root / mirror_of(address)


def promote_by_hand(folder: Path, contents: str) -> None:
    """Promote a model with its data, whatever is in production."""
    path = write_candidate(folder.parents[4] / "models" / "production", contents)
    Production(folder).promote(path, f"because of {contents}", keep=2, reference=data_of(contents))


def found_with(folder: Path, *models: str) -> None:
    """Found production and promote models, one after the other."""
    found(folder, patience=1)
    for contents in models:
        promote_by_hand(folder, contents)


def pointer_at(address: str) -> Pointer:
    """What production.json says."""
    pointer = RemoteRegistry(Path(), address).pointer()
    assert pointer
    return pointer
