"""`regraft table`: what other tools wrote, or what lies in a bucket, as a table of photos."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Name = Literal["folder", "huggingface", "webdataset", "labelstudio", "coco"]


def table(
    source: Annotated[str, typer.Argument(help="A folder, an export, or an address such as s3://bucket/photos.")],
    out: Annotated[
        Path | None,
        typer.Option(help="The table; without it labels.csv in paths.raw of params.yaml.", show_default=False),
    ] = None,
    name: Annotated[Name | None, typer.Option("--format", help="The format, where it is not found out.")] = None,
    photos: Annotated[
        str | None, typer.Option(help="The folder or address that the names of photos in the source are relative to.")
    ] = None,
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--field",
            metavar="WHAT=FIELD",
            help="label=, group= or slice= and a field of the source; may come several times.",
        ),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a table that is there.")] = False,
) -> None:
    """Write labels.csv for photos from elsewhere.

    From a bucket, Hugging Face, WebDataset, Label Studio, COCO or a folder of classes. Photos in a bucket stay
    there; those inside an export are written beside the table.
    """
    from tasks.project import enter_project, readable_errors

    with readable_errors("table"):
        from regraft.converters.conversion import convert
        from regraft.converters.records import Wanted

        if out is None:
            from regraft.params_file import load_params

            out = load_params(enter_project() / "params.yaml").paths.raw / "labels.csv"
        wanted = Wanted.parsed(fields or [])
        converted = convert(source, out, wanted, name=name, photos=photos, replace=replace)
        print("\n".join([f"{out}: {converted.lines()[0]}", *converted.lines()[1:]]))
