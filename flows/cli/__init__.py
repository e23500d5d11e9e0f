"""The command line: `regraft --help` is the table of contents.

A command imports what it needs when it is called, so that help and a mistyped option cost no import of TensorFlow,
Prefect or DVC. Exit status: 0 done, 1 stopped with a message that says what to do, 2 the gate refused the model.
"""

import typer

from flows.cli import data, models, runs, servers

app = typer.Typer(
    help="Retrain an image classifier by transfer learning and pay only for what changed.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(runs.retrain)
app.command()(models.promote)
app.command()(models.report)
app.command(context_settings=runs.TAKES_NUMBERS)(runs.explain)
app.command(context_settings=runs.TAKES_NUMBERS)(runs.reproduce)
app.command(context_settings=models.TAKES_ALL)(models.predict)
app.command(name="try")(models.try_model)
app.command()(runs.score)
app.command(name="check-model")(models.check_model)
app.command()(models.keras)
app.command()(data.table)
app.command()(data.backbones)
app.command()(data.store)
app.command()(servers.serve)
app.command(context_settings=servers.TAKES_ALL)(servers.prefect)
app.command()(runs.pull)


def main() -> None:
    """Run the command that the arguments name."""
    app(prog_name="regraft")
