"""The command line: `regraft --help` is the table of contents.

A command imports what it needs when it is called, so that help and a mistyped option cost no import of TensorFlow,
Prefect or DVC. Exit status: 0 done, 1 stopped with a message that says what to do, 2 the gate refused the model.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from flows import (
    cli_base,
    cli_check_model,
    cli_keras,
    cli_measure,
    cli_predict,
    cli_production,
    cli_promote,
    cli_pull,
    cli_runs,
    cli_score,
    cli_setup,
    cli_store,
    cli_table,
    cli_try,
    cli_watch,
)

app = typer.Typer(
    help="Retrain an image classifier by transfer learning and pay only for what changed.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_store.app, name="store", help="Look after the store of computed features.")
app.add_typer(cli_production.app, name="production", help="Move production to where workers share it.")


@app.command()
def retrain(
    no_promote: Annotated[bool, typer.Option("--no-promote", help="Leave production as it is.")] = False,
    commit: Annotated[
        bool, typer.Option("--commit", help="Commit what it was made from, and the verdict; push the data.")
    ] = False,
) -> None:
    """Turn the photos in data/raw into a model in production.

    What is up to date is skipped, and the gate refuses a model that is worse than the one in production.
    """
    from tasks.project import enter_project, readable_errors

    with readable_errors("retrain"):
        root = enter_project()
        from flows.nothing_new import end_early

        # To import Prefect and to report to its server takes three times as long as to see that nothing is to be done.
        if outcome := end_early(root, promote=not no_promote, commit=commit):
            print(f"\n{outcome.message}")
            return
        from flows.retrain import retrain as flow
        from flows.run import start

        start(flow, promote=not no_promote, commit=commit)


app.command()(cli_promote.promote)
app.command(name="check-model")(cli_check_model.check_model)
app.command()(cli_base.renew_base)
app.command()(cli_pull.pull)
app.command(context_settings=cli_runs.TAKES_NUMBERS)(cli_runs.explain)
app.command(context_settings=cli_runs.TAKES_NUMBERS)(cli_runs.reproduce)


@app.command()
def report() -> None:
    """Say how good the model is, and write its page."""
    from regraft.errors import RegraftError
    from regraft.params_file import load_params
    from regraft.reports.pages import summary
    from tasks.project import enter_project, readable_errors
    from tasks.report import write_report
    from tasks.runs.receipts import work_of_last_run

    with readable_errors("report"):
        params = load_params(enter_project() / "params.yaml")
        try:
            write_report()
            print(summary(params, work_of_last_run()))
        except FileNotFoundError as error:
            raise RegraftError(f"there is no {error.filename} yet. Run `regraft retrain` first.") from None


app.command()(cli_keras.keras)
app.command()(cli_measure.measure)
app.command(context_settings=cli_predict.TAKES_ALL)(cli_predict.predict)
app.command()(cli_score.score)

app.command(name="try")(cli_try.try_model)


@app.command()
def backbones(
    name: Annotated[
        str | None, typer.Argument(help="A name, or the path of a .keras file; without it all are listed.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="As backbone.weights in params.yaml; without it random ones.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=32, max=2048, help="Side in pixels; without it the pretrained one.")
    ] = None,
    preprocessing: Annotated[
        Literal["auto", "none", "tf", "torch", "caffe"], typer.Option(help="How pixels are scaled.")
    ] = "auto",
) -> None:
    """List the pretrained networks, or describe one.

    Of one: its size, its work, its speed on this machine, and where it can be cut.
    """
    from regraft.backbones.catalogue import choose_backbone
    from regraft.backbones.selection import describe, list_backbones
    from regraft.config import BackboneChoice
    from tasks.project import readable_errors

    if name is None:
        print(list_backbones())
        return
    if weights in (None, "null"):
        weights = "own" if name.endswith(".keras") else None
    with readable_errors("backbones"):
        choice = BackboneChoice(
            name=name,
            weights=weights,
            preprocessing=preprocessing,
            image_size=image_size or "auto",
            cut="auto",
            engine="onnxruntime",
        )
        print(describe(choose_backbone(choice)))


@app.command()
def compare_backbones(
    names: Annotated[list[str], typer.Argument(help="Names that `regraft backbones` lists, or name=weights.")],
) -> None:
    """Rank pretrained networks on your own photos.

    Each runs over the train and val photos once; its accuracy, speed and size go into reports/backbones.csv.
    """
    from tasks.project import enter_project, readable_errors

    with readable_errors("compare-backbones"):
        enter_project()
        from flows.compare_backbones import compare_backbones as flow
        from flows.run import start

        start(flow, names=names)


@app.command()
def serve() -> None:
    """Start all that nights need.

    The Prefect server, the schedule, a worker, alarms and the watcher. It listens on this machine only; Ctrl-C stops
    all of it.
    """
    from tasks.project import readable_errors

    with readable_errors("serve"):
        from flows.prefect_server.serve import serve

        serve()


app.command()(cli_watch.watch)
app.command(name="setup-prefect")(cli_setup.setup_prefect)


@app.command()
def ui() -> None:
    """Start the Prefect server alone, with a password.

    It listens on this machine only; Ctrl-C stops it.
    """
    from tasks.project import readable_errors

    with readable_errors("ui"):
        from flows.prefect_server.ui import serve

        serve()


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def prefect(context: typer.Context) -> None:
    """Run Prefect's command line, logged in.

    Its server is the one of `regraft ui`, unless PREFECT_API_URL or the Prefect profile names another.
    """
    from tasks.project import readable_errors

    with readable_errors("prefect"):
        from flows.prefect_server.ui import run_prefect

        run_prefect(context.args)


app.command()(cli_table.table)


@app.command()
def demo_data(
    folder: Annotated[
        Path | None, typer.Argument(help="The data folder; without it paths.raw of params.yaml.", show_default=False)
    ] = None,
    dataset: Annotated[
        Literal["digits", "solar-cells"], typer.Option(help="1,000 digits, or 2,624 photos of solar cells.")
    ] = "digits",
    more: Annotated[bool, typer.Option("--more", help="Add 50 further digits.")] = False,
) -> None:
    """Write real photos to try Regraft on.

    They come with the packages of the extra `demo`; nothing is downloaded.
    """
    from regraft.demo_data import write_digits, write_solar_cells
    from regraft.params_file import load_params
    from tasks.project import enter_project, readable_errors

    if more and dataset != "digits":
        raise typer.BadParameter("--more goes with the digits only.")
    with readable_errors("demo-data"):
        folder = folder or load_params(enter_project() / "params.yaml").paths.raw
        if dataset == "solar-cells":
            print("elpv-dataset is licensed CC BY-NC-SA 4.0: not for commercial use.")
            written = write_solar_cells(folder)
        else:
            written = write_digits(folder, more=more)
        print(f"{written} new images in {folder}")


def main() -> None:
    """Run the command that the arguments name."""
    app(prog_name="regraft")


if __name__ == "__main__":
    main()
