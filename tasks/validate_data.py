"""Stage 1 of 7: look at every file in the data folder, and stop if the images cannot be trained on.

Reads data/raw, but of unchanged files their times only; writes build/manifest.parquet, reports/validation.json and
reports/class_balance.png.
"""

from regraft.config import Params
from regraft.errors import InvalidData
from regraft.files import write_json
from regraft.manifest import build_manifest, write_manifest
from regraft.plots import class_balance_chart
from regraft.validation import problems_that_stop, validate
from tasks.stage import Progress, stage


@stage
def validate_data(params: Params, progress: Progress) -> None:
    """Write the manifest and what the expectations found; a violated expectation of severity error stops the run."""
    settings, paths = params.validate_data, params.paths
    layout, manifest = build_manifest(
        paths.raw,
        max_pixels=settings.max_pixels,
        workers=params.machine.workers,
        on_progress=progress("files"),
        kept=paths.store / "scan.parquet",
    )
    write_manifest(paths.manifest, layout, manifest)
    report = validate(layout, manifest, settings)
    write_json(paths.reports / "validation.json", report)
    class_balance_chart(paths.reports / "class_balance.png", report["classes"])
    stops = problems_that_stop(report)
    if stops:
        raise InvalidData("\n".join([f"the images in {paths.raw} cannot be trained on:", *stops]))


if __name__ == "__main__":
    validate_data.run()
