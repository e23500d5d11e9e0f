"""`regraft promote`: put a model into production, or the one before back."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from regraft.config import Params


def promote(
    rollback: Annotated[bool, typer.Option("--rollback", help="Put the previous model back.")] = False,
    force: Annotated[
        str | None, typer.Option(metavar="REASON", help="Put the new model in, whatever the gate says of it.")
    ] = None,
    candidate: Annotated[
        str | None, typer.Option(metavar="SHA", help="With --force: a candidate, by the beginning of its SHA-256.")
    ] = None,
    candidates: Annotated[bool, typer.Option("--candidates", help="List the models that were not promoted.")] = False,
    first: Annotated[
        bool, typer.Option("--first", help="Where production is at an address and there is none yet: begin it.")
    ] = False,
    history: Annotated[bool, typer.Option("--history", help="List what was in production, and when.")] = False,
) -> None:
    """Put the new model into production, or the one before.

    A model that was rolled back from stays out until --force puts it back. The reason goes into the log. --first founds
    production at an address, once; then the gate lets the first model in.
    """
    from regraft.params_file import load_params
    from tasks import promote as gate
    from tasks.project import enter_project, readable_errors

    if rollback + (force is not None) + candidates + history + first > 1:
        raise typer.BadParameter("--first, --rollback, --force, --candidates and --history exclude each other.")
    if candidate is not None and force is None:
        raise typer.BadParameter("--candidate goes with --force REASON.")
    with readable_errors("promote"):
        params = load_params(enter_project() / "params.yaml")
        if candidates:
            print("\n".join(gate.candidates_told(params)) or "There are none.")
            return
        if history:
            changes, wrong = gate.history(params)
            for change in changes:
                print(gate.told(change))
            print(wrong, end="\n" if wrong else "", file=sys.stderr)
            return
        if rollback or force is not None:
            _change_by_hand(params, force, candidate)
            return
        if first:
            gate.found_production(params)
        from flows.promote import promote as flow
        from flows.run import start

        start(flow)


def _change_by_hand(params: "Params", reason: str | None, candidate: str | None) -> None:
    """Promote for a reason, or roll back where there is none, and say what was done."""
    from regraft.errors import RegraftError
    from tasks import promote as gate
    from tasks.after_promotion import after_promotion, tag_commit
    from tasks.report import refresh_report

    change = gate.rollback(params) if reason is None else gate.force(params, reason, candidate)
    print(gate.told(change), flush=True)
    for sentence in [*after_promotion(params), *tag_commit(params)]:
        print(sentence, file=sys.stderr if sentence.startswith("Warning") else sys.stdout, flush=True)
    try:
        refresh_report()
    except (RegraftError, OSError) as error:  # production has changed, and that is what was asked for
        print(f"report.html still shows what was in production before: {error}", file=sys.stderr)
