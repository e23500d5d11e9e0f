"""`regraft predict`: photos through a shipped file."""

import typer

# Options are those of `python -m regraft.serving`, which runs where typer is not installed.
TAKES_ALL = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False} | {
    "help_option_names": []
}


def predict(context: typer.Context) -> None:
    """Say what a model makes of photos, a row for each.

    `regraft predict --help` lists the options.
    """
    from regraft.serving.command import main

    raise typer.Exit(main(context.args, program="regraft predict"))
