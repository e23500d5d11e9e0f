"""`regraft store`: look after the store."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Root = Annotated[
    Path | None, typer.Option(help="The store's folder; without it paths.store of params.yaml.", show_default=False)
]
Shared = Annotated[
    str | None,
    typer.Option(
        help="The store that machines share: s3://bucket/folder; without it machine.shared_store of params.yaml.",
        show_default=False,
    ),
]


@app.command(name="list")
def list_(root: Root = None, shared: Shared = None) -> None:
    """Say what the store holds, with sizes."""
    with _store(root, shared) as (folder, address):
        from regraft.store.overview import list_store

        list_store(folder, address)


@app.command()
def verify(root: Root = None, shared: Shared = None) -> None:
    """Read every row and set damaged shards aside.

    The next retraining computes their rows again.
    """
    with _store(root, shared) as (folder, address):
        from regraft.store.overview import verify

        verify(folder, address)


@app.command()
def gc(
    keep: Annotated[int, typer.Option(min=0, help="How many versions of dvc.lock in git's history still count.")],
    root: Root = None,
    shared: Shared = None,
    stale_days: Annotated[
        float,
        typer.Option(
            min=0,
            help="Days without using the shared store after which a machine counts as gone, and without a new file "
            "after which nobody uses what another decoder said of photos.",
        ),
    ] = 30,
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it only say what would be removed.")] = False,
) -> None:
    """Remove what nothing needs any more.

    Needed is what the working copy, the last versions of dvc.lock or a DVC experiment was made from, and what the
    exported model and the one in production said of photos. What other machines have recorded in a shared store stays
    until they are gone. Files that are not Regraft's stay in any case.
    """
    with _store(root, shared) as (folder, address):
        from regraft.store.facts import open_facts
        from regraft.store.upkeep import collect
        from tasks.found_store import load_project
        from tasks.history import features_versions, models_in_use
        from tasks.project import enter_project

        params = load_project(enter_project())
        versions = features_versions(Path(), params.paths.features, keep=keep)
        in_use = {*models_in_use(params.paths), open_facts(params).name}
        collect(folder, address, versions, in_use=in_use, stale_days=stale_days, really=yes)


@app.command()
def compact(root: Root = None, shared: Shared = None) -> None:
    """Merge small shards and small files of facts, and drop rows that are there twice."""
    with _store(root, shared) as (folder, address):
        from regraft.store.upkeep import compact

        compact(folder, address)


@contextmanager
def _store(root: Path | None, shared: str | None) -> Iterator[tuple[Path, str | None]]:
    """The folder and the shared root that the options name, or else params.yaml; outside a project --root is enough."""
    from regraft.errors import RegraftError
    from tasks.found_store import load_project
    from tasks.project import enter_project, readable_errors

    with readable_errors("store"):
        if root is None or Path("params.yaml").exists():
            params = load_project(enter_project())
            root, shared = root or params.paths.store, shared or params.machine.shared_store
        if not root.is_dir() and not shared:
            raise RegraftError(
                f"there is no store in {root}. Run `regraft retrain` first, or give the store's folder by --root."
            )
        yield root, shared
