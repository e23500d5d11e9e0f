"""`regraft production`: where production lies."""

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def production() -> None:
    """Move production to where workers share it."""


@app.command()
def copy(
    address: Annotated[str, typer.Argument(help="Where it is to lie: s3://bucket/folder.", show_default=False)],
) -> None:
    """Copy production to an address, with its history, verdicts and candidates.

    Nothing is there before, and nothing here is changed: what was copied is production once paths.production of
    params.yaml names that address.
    """
    from regraft.params_file import load_params
    from regraft.production.copying import copy_production
    from tasks.project import enter_project, readable_errors

    with readable_errors("production copy"):
        paths = load_params(enter_project() / "params.yaml").paths
        copied = copy_production(paths.production, paths.candidates, address)
        print(
            f"Copied production to {copied.where}: {copied.files} files, {copied.size / 1e6:.1f} MB, each fetched "
            f"again and compared.\nThe model in production is {copied.model[:12]}, after {copied.changes} changes and "
            f"{copied.verdicts} verdicts of the gate.\nNow write the address into paths.production of params.yaml. "
            f"What is promoted before that is not there."
        )
