"""`regraft check-model`: is a model file whole, and does it answer here as it did where it was made?"""

from pathlib import Path
from typing import Annotated

import typer


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
