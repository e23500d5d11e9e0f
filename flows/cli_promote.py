"""`regraft promote`: put a model into production, or the one before back."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from regraft.config import Params
    from regraft.production.change_log import Change


def promote(
    candidate: Annotated[
        str | None, typer.Option(metavar="SHA", help="Accept a candidate that the gate left to a person.")
    ] = None,
    reason: Annotated[str, typer.Option(help="With --candidate: why, for the log.")] = "",
    rollback: Annotated[bool, typer.Option("--rollback", help="Put the previous model back.")] = False,
    to: Annotated[str | None, typer.Option(metavar="SHA", help="With --rollback: back to this model.")] = None,
    force: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Put the new model, or --candidate, in, whatever the gate says of it."),
    ] = None,
    anchor: Annotated[
        str | None,
        typer.Option(metavar="SHA", help="Hold all later models against this one; `production`: the one there now."),
    ] = None,
    candidates: Annotated[bool, typer.Option("--candidates", help="List the models that were not promoted.")] = False,
    first: Annotated[
        bool, typer.Option("--first", help="Where production is at an address and there is none yet: begin it.")
    ] = False,
    history: Annotated[bool, typer.Option("--history", help="List what was in production, and when.")] = False,
) -> None:
    """Put the new model into production, or the one before.

    Models are named by the beginning of their SHA-256. One that was rolled back from stays out until --force puts it
    back. Reasons go into the log. --first founds production at an address, once; then the gate lets the first model in.
    """
    from regraft.params_file import load_params
    from tasks import promote as gate
    from tasks.project import enter_project, readable_errors

    accept = candidate is not None and force is None
    if sum([rollback, force is not None, accept, anchor is not None, candidates, history, first]) > 1:
        raise typer.BadParameter(
            "--candidate, --rollback, --force, --anchor, --first, --candidates and --history exclude each other, but "
            "--force takes a --candidate."
        )
    if (to is not None and not rollback) or (reason and not accept):
        raise typer.BadParameter("--to goes with --rollback, --reason with --candidate.")
    with readable_errors("promote"):
        params = load_params(enter_project() / "params.yaml")
        if candidates:
            print("\n".join(gate.candidates_told(params)) or "There are none.")
            return
        if history:
            _print_history(params)
            return
        change = None
        if rollback:
            change = gate.rollback(params, to)
        elif anchor is not None:
            change = gate.set_anchor(params, anchor)
        elif force is not None:
            change = gate.force(params, force, candidate)
        elif candidate is not None:
            change = gate.approve(params, candidate, reason)
        if change:
            _tell(params, change)
            return
        if first:
            gate.found_production(params)
        from flows.promote import promote as flow
        from flows.run import start

        start(flow)


def _print_history(params: "Params") -> None:
    from tasks import promote as gate

    changes, wrong = gate.history(params)
    for change in changes:
        print(gate.told(change))
    print(wrong, end="\n" if wrong else "", file=sys.stderr)


def _tell(params: "Params", change: "Change") -> None:
    """Say what was done by hand, and do what follows a promotion."""
    from regraft.errors import RegraftError
    from tasks import promote as gate
    from tasks.after_promotion import after_promotion
    from tasks.report import refresh_report

    print(gate.told(change), flush=True)
    for sentence in after_promotion(params):
        print(sentence, file=sys.stderr, flush=True)
    try:
        refresh_report()
    except (RegraftError, OSError) as error:  # production has changed, and that is what was asked for
        print(f"report.html still shows what was in production before: {error}", file=sys.stderr)
