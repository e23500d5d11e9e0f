"""`regraft measure`: how fast the shipped file is, and how it does on damaged photos."""

from typing import Annotated, Literal

import typer


def measure(
    only: Annotated[
        Literal["latency", "robustness"] | None, typer.Option(help="One of the two; without it both.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Robustness also where it was measured for the same file and photos.")
    ] = False,
) -> None:
    """Measure the file's speed and robustness.

    How fast the shipped file answers, and how it does on damaged photos. Takes minutes, and no run does it. The figures
    go into the report and the model card, as long as the file is the same. Keep the machine free meanwhile: a busy one
    looks slow.
    """
    from regraft.errors import RegraftError
    from regraft.params_file import load_params
    from tasks.measure import measure_latency, measure_robustness
    from tasks.progress import terminal_progress
    from tasks.project import enter_project, readable_errors
    from tasks.report import refresh_report

    with readable_errors("measure"):
        params = load_params(enter_project() / "params.yaml")
        try:
            with terminal_progress("measure") as progress:
                if only != "robustness":
                    print(measure_latency(params, progress))
                if only != "latency":
                    print(measure_robustness(params, progress, again=again))
            refresh_report()
        except FileNotFoundError as error:
            raise RegraftError(f"there is no {error.filename} yet. Run `regraft retrain` first.") from None
        print(f"look at {params.paths.reports / 'report.html'} and {params.paths.reports / 'model_card.md'}")
