"""Stage 1 of 11: look at every file in the data folder, and stop if the images cannot be trained on.

Reads data/raw, but of unchanged files their times only, and expectations/; writes build/manifest.parquet,
reports/validation.json and reports/validation.html, which is there too where the stage stops the run.

It also compares the photos with what the model in production, and the anchor, were trained on
(models/production), although that is no dep in dvc.yaml: production is state, and as a dep it would redo this stage
after every promotion. The report says with which models it compared.
"""

from typing import Any

from regraft.core.config import Params
from regraft.core.errors import InvalidData, some
from regraft.core.files import write_json
from regraft.photos.decoder import DecodeLimits
from regraft.photos.duplicates import mark_duplicates
from regraft.photos.elsewhere import elsewhere_of
from regraft.photos.images import Threads
from regraft.photos.known import Learning
from regraft.photos.manifest import build_manifest, photos_of, write_manifest
from regraft.production.records import Records
from regraft.reports.validation_page import write_validation_page
from regraft.store.facts import open_facts
from regraft.validation.checks import named_files, problems_that_stop, validate
from regraft.validation.great_expectations import begin_to_load_engine
from regraft.validation.suite import read_suites
from tasks.chosen_cluster import chosen_readers
from tasks.progress import Progress
from tasks.stage import stage

_NAMED = 10  # quarantined files, on the terminal


@stage
def validate_data(params: Params, progress: Progress) -> None:
    """Write the manifest and what the expectations found; a violated expectation of severity error stops the run."""
    settings, paths = params.validate_data, params.paths
    limits = DecodeLimits(settings.max_pixels, settings.max_seconds)
    expectations = read_suites(paths.expectations)
    begin_to_load_engine()
    elsewhere, learning = elsewhere_of(params), Learning(open_facts(params), chosen_readers(params, know=True))
    elsewhere.trim_abandoned()
    layout, manifest = build_manifest(
        paths.raw,
        limits=limits,
        threads=Threads(params.machine.workers, progress("files")),
        cache=paths.store / "scan.parquet",
        learning=learning,
        elsewhere=elsewhere,
    )
    manifest = mark_duplicates(
        manifest, max_hash_distance=settings.max_hash_distance, on_label_conflict=settings.on_label_conflict
    )
    write_manifest(paths.manifest, layout, manifest)
    records = Records(paths.production)
    found = {"production": records.find_reference(), "anchor": records.anchor_reference()}
    references = {name: reference.rows for name, (reference, _) in found.items() if reference}
    report = validate(
        layout,
        manifest,
        settings,
        expectations,
        references=references if "production" in references else {},
        compared_with=" ".join(words for _, words in found.values()) if references else found["production"][1],
    )
    report |= {"photos_decoded": learning.decoded, **elsewhere.fetches.as_report()}
    write_json(paths.reports / "validation.json", report)
    _name_quarantined(report, params)
    manifest = named_files(report, manifest)  # beside processes that draw, of a million files the rest would be much
    write_validation_page(
        paths.reports / "validation.html",
        report,
        manifest,
        photos_of(manifest, paths.raw, elsewhere),
        threads=Threads(params.machine.workers),
        limits=limits,
    )
    stops = problems_that_stop(report)
    if stops:
        raise InvalidData("\n".join([f"the images in {paths.raw} cannot be trained on:", *stops]))


def _name_quarantined(report: dict[str, Any], params: Params) -> None:
    files = [f"{file['path']}: {file['reason']}" for file in report["not_used"] if file["verdict"] == "quarantine"]
    if files:
        are = "1 file is" if len(files) == 1 else f"{len(files):,} files are"
        page = params.paths.reports / "validation.json"
        print(f"validate_data: {are} quarantined: {some(files, _NAMED)}. {page} has all of them.", flush=True)


if __name__ == "__main__":
    validate_data.run()
