"""Commands about data and networks: `table`, `store` and `backbones`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

Name = Literal["folder", "huggingface", "webdataset", "labelstudio", "coco"]
_DEMOS = ("demo:digits", "demo:more-digits", "demo:solar-cells")


def table(
    source: Annotated[
        str, typer.Argument(help="A folder, an export, an address such as s3://bucket/photos, or demo:digits.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The table, of demo: the folder; without it labels.csv in paths.raw of params.yaml, or that folder.",
            show_default=False,
        ),
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
    there; those inside an export are written beside the table. Real photos to try Regraft on come with packages:
    demo:digits (1,000 digits), then demo:more-digits (50 further ones), or demo:solar-cells (2,624 photos).
    """
    from tasks.project import enter_project, readable_errors

    with readable_errors("table"):
        if source.startswith("demo:"):
            _write_demo(source, out)
            return
        from regraft.converters.conversion import convert
        from regraft.converters.listing import Wanted

        if out is None:
            from regraft.core.params_file import load_params

            out = load_params(enter_project() / "params.yaml").paths.raw / "labels.csv"
        wanted = Wanted.parsed(fields or [])
        converted = convert(source, out, wanted, name=name, photos=photos, replace=replace)
        print("\n".join([f"{out}: {converted.lines()[0]}", *converted.lines()[1:]]))


def _write_demo(source: str, folder: Path | None) -> None:
    """Write the photos of a demo data set into a folder, or into the project's data folder."""
    from regraft.converters.demo_data import write_digits, write_solar_cells
    from regraft.core.errors import RegraftError
    from regraft.core.params_file import load_params
    from tasks.project import enter_project

    if source not in _DEMOS:
        raise RegraftError(f"expected one of {', '.join(_DEMOS)}. Received: {source}.")
    folder = folder or load_params(enter_project() / "params.yaml").paths.raw
    if source == "demo:solar-cells":
        print("elpv-dataset is licensed CC BY-NC-SA 4.0: not for commercial use.")
        written = write_solar_cells(folder)
    else:
        written = write_digits(folder, more=source == "demo:more-digits")
    print(f"{written} new images in {folder}")


def store(
    verify: Annotated[bool, typer.Option("--verify", help="Read every row and set damaged shards aside.")] = False,
    gc: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Find what neither the last N versions of dvc.lock nor a model needs."),
    ] = None,
    compact: Annotated[bool, typer.Option("--compact", help="Merge small shards; drop rows that are twice.")] = False,
    root: Annotated[
        Path | None, typer.Option(help="The store's folder; without it paths.store of params.yaml.", show_default=False)
    ] = None,
    shared: Annotated[
        str | None,
        typer.Option(
            help="The store that machines share: s3://bucket/folder; without it machine.shared_store of params.yaml.",
            show_default=False,
        ),
    ] = None,
    stale_days: Annotated[
        float,
        typer.Option(
            min=0,
            help="With --gc: days without using the shared store after which a machine counts as gone, and without a "
            "new file after which the records of another decoder are unused.",
        ),
    ] = 30,
    yes: Annotated[bool, typer.Option("--yes", help="With --gc: remove it; without --yes only name it.")] = False,
) -> None:
    """List what the store of features holds, or look after it.

    The next retraining computes damaged rows again. --gc keeps what the working copy, the last versions of dvc.lock in
    git's history or a DVC experiment was made from, and the inference cache of the exported model and of production.
    What other machines have recorded in a shared store stays until they are gone; files that are not Regraft's stay.
    """
    if sum([verify, gc is not None, compact]) > 1:
        raise typer.BadParameter("--verify, --gc and --compact exclude each other.")
    with _store(root, shared) as (folder, address):
        from regraft.store import overview, upkeep

        if gc is not None:
            _collect(folder, address, gc, stale_days, really=yes)
        elif verify:
            overview.verify(folder, address)
        elif compact:
            upkeep.compact(folder, address)
        else:
            overview.list_store(folder, address)


def _collect(folder: Path, address: str | None, keep: int, stale_days: float, *, really: bool) -> None:
    from regraft.store.facts import open_facts
    from regraft.store.upkeep import collect
    from tasks.found_store import load_project
    from tasks.history import features_versions, models_in_use
    from tasks.project import enter_project

    params = load_project(enter_project())
    versions = features_versions(Path(), params.paths.features, keep=keep)
    in_use = {*models_in_use(params.paths), open_facts(params).name}
    collect(folder, address, versions, in_use=in_use, stale_days=stale_days, really=really)


@contextmanager
def _store(root: Path | None, shared: str | None) -> Iterator[tuple[Path, str | None]]:
    """The folder and the shared root that the options name, or else params.yaml; outside a project --root is enough."""
    from regraft.core.errors import RegraftError
    from tasks.found_store import load_project
    from tasks.project import enter_project, readable_errors

    with readable_errors("store"):
        if root is None or Path("params.yaml").exists():
            params = load_project(enter_project())
            root, shared = root or params.paths.store, shared or params.machine.shared_store
        if not root.is_dir() and not shared:
            raise RegraftError(
                f"there is no store in {root}. Run `regraft retrain` first, or give the store's folder by --root."
            )
        yield root, shared


def backbones(
    names: Annotated[
        list[str] | None, typer.Argument(help="A name, or the path of a .keras file; without it all are listed.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Rank the named ones, or name=weights, on your own photos.")
    ] = False,
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
    """List the pretrained networks, describe one, or compare some.

    Of one: its size, its work, its speed on this machine, and where it can be cut. With --compare each runs over the
    train and val photos once; its accuracy, speed and size go into reports/backbones.csv.
    """
    from regraft.backbones.catalogue import choose_backbone
    from regraft.backbones.selection import describe, list_backbones
    from regraft.core.config import BackboneChoice
    from tasks.project import readable_errors

    if compare:
        _compare(names or [])
        return
    if not names:
        print(list_backbones())
        return
    if len(names) > 1:
        raise typer.BadParameter("more than one name goes with --compare.")
    name = names[0]
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


def _compare(names: list[str]) -> None:
    from tasks.project import enter_project, readable_errors

    if not names:
        raise typer.BadParameter("--compare needs names that `regraft backbones` lists, or name=weights.")
    with readable_errors("backbones"):
        enter_project()
        from flows.compare_backbones import compare_backbones as flow
        from flows.run import start

        start(flow, names=names)
