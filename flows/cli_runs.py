"""`regraft explain` and `regraft reproduce`: what a former run did and why, and whether it can be had again."""

import sys
from typing import Annotated

import typer

TAKES_NUMBERS = {"ignore_unknown_options": True}  # -1 is a run and no option
_RUN = "A run's name, or how it begins, or -1 for the last, -2 for the one before."


def explain(
    run: Annotated[str | None, typer.Argument(help=f"{_RUN} Without it the last.", show_default=False)] = None,
) -> None:
    """Say why each stage of a run ran or did not.

    And what changed since the run before: it compares two receipts, and the lists of photos in DVC's cache.
    """
    from regraft.params_file import load_params
    from tasks.project import enter_project, readable_errors
    from tasks.runs.explain import explain as told

    with readable_errors("explain"):
        print(told(load_params(enter_project() / "params.yaml"), run))


def reproduce(
    run: Annotated[str, typer.Argument(help=_RUN)],
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Also with other libraries, or another processor, than the run had.")
    ] = False,
    trust: Annotated[
        str | None, typer.Option(help="Branch or commit whose code may run; without it what is checked out.")
    ] = None,
) -> None:
    """Make the model of an earlier run again.

    From its photos, params and code; the bytes are compared. Code that is not in a commit of yours is shown and asked
    about. It works in a folder of its own and changes nothing here.
    Exit status: 0 the same bytes, 1 cannot be done, 2 others.
    """
    from regraft.errors import safe_text
    from regraft.params_file import load_params
    from tasks.project import enter_project, readable_errors
    from tasks.runs.reproduce import reproduce as again

    def tell(line: str) -> None:
        print(safe_text(line), flush=True)  # a receipt may come from elsewhere

    with readable_errors("reproduce"):
        params = load_params(enter_project() / "params.yaml")
        confirm = typer.confirm if sys.stdin.isatty() else None
        is_same = again(params, run, anyway=anyway, tell=tell, trusted=trust, confirm=confirm)
    sys.exit(0 if is_same else 2)
