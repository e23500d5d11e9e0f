"""Commands about runs: `retrain`, `pull`, `score`, `explain` and `reproduce`."""

import sys
from typing import Annotated

import typer

TAKES_NUMBERS = {"ignore_unknown_options": True}  # -1 is a run and no option
_RUN = "A run's name, or how it begins, or -1 for the last, -2 for the one before."


def retrain(
    no_promote: Annotated[bool, typer.Option("--no-promote", help="Leave production as it is.")] = False,
    commit: Annotated[
        bool, typer.Option("--commit", help="Commit what it was made from, and the verdict; push the data.")
    ] = False,
    renew_base: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Train a new base on all photos; the reason goes into the records."),
    ] = None,
) -> None:
    """Turn the photos in data/raw into a model in production.

    What is up to date is skipped, and the gate refuses a model that is worse than the one in production. Runs with few
    changes start from the base and learn only what is new; a removed photo leaves its trace in the base until
    --renew-base trains a new one.
    """
    from tasks.project import enter_project, readable_errors

    with readable_errors("retrain"):
        root = enter_project()
        if renew_base is not None:
            from regraft.core.params_file import load_params
            from tasks.base_renewal import ask_by_hand

            print(ask_by_hand(load_params(root / "params.yaml"), renew_base), flush=True)
        from flows.nothing_new import end_early

        # Importing Prefect and reporting to its server takes three times as long as seeing that nothing is to be done.
        if outcome := end_early(root, promote=not no_promote, commit=commit):
            print(f"\n{outcome.message}")
            return
        from flows.retrain import retrain as flow
        from flows.run import start

        start(flow, promote=not no_promote, commit=commit)


def pull() -> None:
    """Bring here what a run starts from.

    The records of the last run (nights.push, nights.branch), its results and the data from DVC's remote. A worker that
    keeps nothing does this first.
    """
    from regraft.core.params_file import load_params
    from tasks.project import readable_errors
    from tasks.runs.remotes import pull as fetch

    with readable_errors("pull"):
        from tasks.dvc_seam import enter_dvc_project

        root = enter_dvc_project()
        for sentence in fetch(root, load_params(root / "params.yaml")):
            print(sentence, flush=True)


def score() -> None:
    """Ask the model in production about new photos.

    They are those that score.photos in params.yaml names; what was said of a photo before is not computed again. The
    table is build/scores.parquet; reports/scores.html says whether the photos are like those of production's training.
    """
    from tasks.project import enter_project, readable_errors

    with readable_errors("score"):
        root = enter_project()
        from flows.nothing_new import end_scoring_early

        # As for `retrain`: Prefect's import takes longer than to see that nothing is to be done.
        if outcome := end_scoring_early(root):
            print(f"\n{outcome.name}: {outcome.message}")
            return
        from flows.run import start
        from flows.score import score as flow

        start(flow)


def explain(
    run: Annotated[str | None, typer.Argument(help=f"{_RUN} Without it the last.", show_default=False)] = None,
) -> None:
    """Say why each stage of a run ran or did not.

    And what changed since the run before: it compares two receipts, and the lists of photos in DVC's cache.
    """
    from regraft.core.params_file import load_params
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

    From its photos, params and code; the bytes are compared. Code that is in no commit of yours does not
    run. It works in a folder of its own and changes nothing here.
    Exit status: 0 the same bytes, 1 cannot be done, 2 others.
    """
    from regraft.core.errors import safe_text
    from regraft.core.params_file import load_params
    from tasks.project import enter_project, readable_errors
    from tasks.runs.reproduce import reproduce as again

    def tell(line: str) -> None:
        print(safe_text(line), flush=True)  # a receipt may come from elsewhere

    with readable_errors("reproduce"):
        params = load_params(enter_project() / "params.yaml")
        is_same = again(params, run, anyway=anyway, tell=tell, trusted=trust)
    sys.exit(0 if is_same else 2)
