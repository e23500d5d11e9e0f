"""Stage 6 of 11: choose which photos and settings the base is made of: those of before, or today's.

Reads build/dataset.parquet and build/manifest.parquet; writes reports/base.json, build/left_out.parquet (the photos
that judge nothing, because the base saw them or near-duplicates of them) and build/base_photos.parquet, which it also
reads as it was before: the base stays until too much has changed. So does data/base_renewals.csv, where the gate or a
person asks for
a new one: DVC leaves both there (`persist` in dvc.yaml), and runs this stage when a line was added.
"""

from typing import Any

from regraft.core.config import Params
from regraft.core.errors import Damaged, InputsChanged
from regraft.core.files import write_json
from regraft.photos.base_choice import choose_record
from regraft.photos.base_record import BaseRecord, read_base_record, record_of, write_base_record
from regraft.photos.base_requests import read_requests, write_requests
from regraft.photos.dataset import read_dataset
from regraft.photos.left_out import Today, write_left_out
from regraft.photos.manifest import read_manifest
from tasks.code_record import what_decides
from tasks.progress import Progress
from tasks.stage import stage

# Settings that change no byte of a base.
_ASIDE = {
    # Which photos `max_photos` leaves is in the record itself.
    "fine_tune": ("budget", "max_photos", "renew_after"),
    "preprocess": ("val_share", "test_share"),
    "train_head": ("learning_curve",),
}


@stage
def choose_base(params: Params, progress: Progress) -> None:
    """Write which record counts, and why; where it is that of before, no base is trained."""
    paths, settings = params.paths, params.fine_tune
    dataset, (_, manifest) = read_dataset(paths.dataset, paths.raw), read_manifest(paths.manifest)
    today, asked = Today.of(dataset, manifest, params.validate_data.max_hash_distance), read_requests(paths.renewals)
    code, is_off = what_decides("train_base").digest, settings.mode == "off"
    new = record_of(today, _settings(params), code, is_off=is_off, max_photos=settings.max_photos)
    choice = choose_record(_before(params), new, today, asked=asked, renew_after=settings.renew_after)
    write_base_record(paths.base_photos, choice.record)
    write_left_out(paths.left_out, choice.left_out)
    if read_requests(paths.renewals) != asked:
        raise InputsChanged(f"{paths.renewals} was added to while this stage ran. Run again, and it counts.")
    if not paths.renewals.exists():
        write_requests(paths.renewals, {})
    words = choice.words + choice.record.sample_words
    report = {
        "words": words,
        "is_renewed": choice.is_renewed,
        "base": choice.record.name,
        "photos": len(choice.record.photos),
        "of": choice.record.of,
        "changes": {what: len(digests) for what, digests in choice.changes.by_kind().items()},
        "share": choice.changes.share,
        "left_out": {split: len(digests) for split, digests in choice.left_out.items()},
    }
    write_json(paths.reports / "base.json", report)
    print(f"choose_base: {words}")


def _before(params: Params) -> BaseRecord | None:
    try:
        return read_base_record(params.paths.base_photos, params.paths.raw)
    except (FileNotFoundError, Damaged):
        return None


def _settings(params: Params) -> dict[str, Any]:
    """Return the settings of a base, as JSON: the record has them, so `train_base` depends on nothing else."""
    sections = {
        "backbone": params.backbone,
        "fine_tune": params.fine_tune,
        "preprocess": params.preprocess,
        "train_head": params.train_head,
    }
    settings = {
        name: section.model_dump(mode="json", exclude=set(_ASIDE.get(name, ()))) for name, section in sections.items()
    }
    if params.fine_tune.mode != "auto":
        del settings["fine_tune"]["max_minutes"]  # nothing looks at it
    return settings | {"seed": params.seed, "cache_features": {"views": params.cache_features.views}}


if __name__ == "__main__":
    choose_base.run()
