"""Commands about models: `promote`, `report`, `check-model`, `keras`, `predict` and `try`."""

import os
import sys
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from regraft.core.config import Params
    from regraft.production.logs import Change

# Options are those of `python -m regraft.serving`, which runs where typer is not installed.
TAKES_ALL = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False} | {
    "help_option_names": []
}


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
    copy_to: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Copy production, with its history, to where workers share it."),
    ] = None,
) -> None:
    """Put the new model into production, or the one before.

    Models are named by the beginning of their SHA-256. One that was rolled back from stays out until --force puts it
    back. Reasons go into the log. --first founds production at an address, once; then the gate lets the first model in.
    --copy-to changes nothing here: the copy is production once paths.production of params.yaml names its address.
    """
    from regraft.core.params_file import load_params
    from tasks import promote as gate
    from tasks.project import enter_project, readable_errors

    accept = candidate is not None and force is None
    named = [force is not None, accept, anchor is not None, copy_to is not None]
    if sum([rollback, candidates, history, first, *named]) > 1:
        raise typer.BadParameter(
            "--candidate, --rollback, --force, --anchor, --first, --copy-to, --candidates and --history exclude each "
            "other, but --force takes a --candidate."
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
        if copy_to is not None:
            _copy(params, copy_to)
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


def _copy(params: "Params", address: str) -> None:
    from regraft.production.copying import copy_production

    copied = copy_production(params.paths.production, params.paths.candidates, address)
    print(
        f"Copied production to {copied.where}: {copied.files} files, {copied.size / 1e6:.1f} MB.\nThe model in "
        f"production is {copied.model[:12]}.\nNow write the address into paths.production of params.yaml. What is "
        f"promoted before that is not there."
    )


def _print_history(params: "Params") -> None:
    from tasks import promote as gate

    changes, wrong = gate.history(params)
    for change in changes:
        print(gate.told(change))
    print(wrong, end="\n" if wrong else "", file=sys.stderr)


def _tell(params: "Params", change: "Change") -> None:
    """Say what was done by hand, and do what follows a promotion."""
    from regraft.core.errors import RegraftError
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


def report(
    measure: Annotated[
        bool, typer.Option("--measure", help="First measure speed, and accuracy on damaged photos. Takes minutes.")
    ] = False,
    only: Annotated[
        Literal["latency", "robustness"] | None, typer.Option(help="With --measure: one of the two; without it both.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="With --measure: robustness also where the same file was measured before.")
    ] = False,
) -> None:
    """Say how good the model is, and write its page.

    No run measures speed and robustness. Their figures stay in the report and the model card as long as the file is the
    same. Keep the machine free meanwhile: a busy one looks slow.
    """
    from regraft.core.params_file import load_params
    from regraft.reports.pages import summary
    from tasks.project import enter_project, readable_errors
    from tasks.report import write_report
    from tasks.runs.receipts import work_of_last_run

    if (only or again) and not measure:
        raise typer.BadParameter("--only and --again go with --measure.")
    with readable_errors("report"):
        params = load_params(enter_project() / "params.yaml")
        with _run_before():
            if measure:
                _measure(params, only, again=again)
                return
            write_report()
            print(summary(params, work_of_last_run()))


def _measure(params: "Params", only: str | None, *, again: bool) -> None:
    from tasks.measure import measure_latency, measure_robustness
    from tasks.progress import terminal_progress
    from tasks.report import refresh_report

    with terminal_progress("measure") as progress:
        if only != "robustness":
            print(measure_latency(params, progress))
        if only != "latency":
            print(measure_robustness(params, progress, again=again))
    refresh_report()
    print(f"look at {params.paths.reports / 'report.html'} and {params.paths.reports / 'model_card.md'}")


@contextmanager
def _run_before() -> Iterator[None]:
    """Name `regraft retrain` where a file is missing that it writes."""
    from regraft.core.errors import RegraftError

    try:
        yield
    except FileNotFoundError as error:
        raise RegraftError(f"there is no {error.filename} yet. Run `regraft retrain` first.") from None


def check_model(
    path: Annotated[Path, typer.Argument(help="A model.onnx, a folder models/production, or a Triton repository.")],
) -> None:
    """Check a model file, here or on any other machine.

    Its bytes, what goes in and comes out, its answer to the golden photo, and the Triton repository around it. Exit
    status 1 if a check fails.
    """
    from regraft.serving.check_model import look_over, told
    from tasks.project import readable_errors

    with readable_errors("check-model"):
        checks = look_over(path)
        print(told(checks))
        if any(each.status == "failed" for each in checks):
            raise typer.Exit(1)


def keras(
    path: Annotated[Path, typer.Argument(help="The file to write; it ends in .keras.")] = Path("models/model.keras"),
) -> None:
    """Write the trained network in Keras' own format.

    The backbone of params.yaml with what the last run trained of it; model.onnx is made from the same weights.
    """
    from regraft.core.params_file import load_params
    from regraft.export.finishing import write_keras
    from tasks.project import enter_project, readable_errors

    if path.suffix != ".keras":
        raise typer.BadParameter("expected a name that ends in .keras: Keras goes by it.")
    with readable_errors("keras"):
        params = load_params(enter_project() / "params.yaml")
        with _run_before():
            write_keras(path, params.backbone, network=params.paths.model, onnx=params.paths.onnx)
        print(f"{path}: prepared RGB 0 to 255 in, probabilities out.")


def predict(context: typer.Context) -> None:
    """Say what a model makes of photos, a row for each.

    `regraft predict --help` lists the options.
    """
    from regraft.serving.command import main

    raise typer.Exit(main(context.args, program="regraft predict"))


def try_model(
    model: Annotated[
        Path | None, typer.Argument(help="A model.onnx; without it the one of the last run.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The file to write; without it try.html among the reports.", show_default=False)
    ] = None,
    runtime: Annotated[
        Path | None,
        typer.Option(help="A folder with ONNX Runtime Web, where npm has no network.", show_default=False),
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Write the page, and open no browser.")] = False,
) -> None:
    """Try the model in a browser.

    Writes one HTML file, and opens it. Drop photos on it, or use the camera: it says the probabilities, whether it is
    unsure, and where it looked. It needs no network, and photos stay in it.
    """
    from regraft.core.files import readable_bytes
    from tasks.project import readable_errors

    with readable_errors("try"):
        from regraft.reports.try_page.build import write_try_page
        from regraft.reports.try_page.runtime import load_runtime

        model, output = _paths(model, output)
        write_try_page(output, model, load_runtime(_cache(), runtime))
        print(f"{output}: {readable_bytes(output.stat().st_size)}, to be opened in any browser, here or elsewhere.")
        if not no_open and not _open(output):
            print("There is no browser on this machine.")


def _paths(model: Path | None, output: Path | None) -> tuple[Path, Path]:
    """Return the model and the page: those of the project, or of the folder one is in if a model is named."""
    from tasks.project import ROOT_FILES, enter_project

    if model and not all(map(os.path.isfile, ROOT_FILES)):
        return model, output or Path("try.html")
    from regraft.core.params_file import load_params

    paths = load_params(enter_project() / "params.yaml").paths
    return model or paths.onnx, output or paths.reports / "try.html"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "regraft"


def _open(page: Path) -> bool:
    """Show a page; never in a browser of the terminal, which would run no script and keep the command waiting."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    return webbrowser.open(page.resolve().as_uri())
