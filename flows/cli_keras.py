"""`regraft keras`: the trained network for whoever goes on with it in Keras."""

from pathlib import Path
from typing import Annotated

import typer


def keras(
    path: Annotated[Path, typer.Argument(help="The file to write; it ends in .keras.")] = Path("models/model.keras"),
) -> None:
    """Write the trained network in Keras' own format.

    The backbone of params.yaml with what the last run trained of it; model.onnx is made from the same weights.
    """
    from regraft.errors import RegraftError
    from regraft.export.in_keras import write_keras
    from regraft.params_file import load_params
    from tasks.project import enter_project, readable_errors

    if path.suffix != ".keras":
        raise typer.BadParameter("expected a name that ends in .keras: Keras goes by it.")
    with readable_errors("keras"):
        params = load_params(enter_project() / "params.yaml")
        try:
            write_keras(path, params.backbone, network=params.paths.model, onnx=params.paths.onnx)
        except FileNotFoundError as error:
            raise RegraftError(f"there is no {error.filename} yet. Run `regraft retrain` first.") from None
        print(f"{path}: prepared RGB 0 to 255 in, probabilities out.")
