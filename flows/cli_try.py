"""`regraft try`: the shipped file in a browser."""

import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer


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
    from regraft.files import readable_bytes
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
    from regraft.params_file import load_params

    paths = load_params(enter_project() / "params.yaml").paths
    return model or paths.onnx, output or paths.reports / "try.html"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "regraft"


def _open(page: Path) -> bool:
    """Show a page; never in a browser of the terminal, which would run no script and keep the command waiting."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    return webbrowser.open(page.resolve().as_uri())
