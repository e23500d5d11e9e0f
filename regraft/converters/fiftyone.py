"""FiftyOne: FiftyOneImageClassificationDataset (data/ and labels.json) and FiftyOneDataset (data/ and samples.json).

Source: https://docs.voxel51.com/user_guide/export_datasets.html.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from regraft.converters.json_files import list_in, load_json
from regraft.converters.records import (
    NO_LABEL,
    LeftOut,
    Record,
    Wanted,
    one_label,
    only_field,
    split_named,
    text_of,
    texts_in,
    without_secrets,
)
from regraft.errors import InvalidData, printable
from regraft.photos.folder import walk_around

LABELS, SAMPLES = "labels.json", "samples.json"
_DATA = "data"  # the folder with the photos
_CLASSIFICATION = "Classification"


def read_fiftyone(source: Path, wanted: Wanted, left_out: LeftOut) -> Iterator[Record]:
    """Yield the samples of an export: its folder, or the JSON file in it."""
    root = source.parent if source.is_file() else source
    name = source.name if source.is_file() else (SAMPLES if (source / SAMPLES).is_file() else LABELS)
    shown = printable(str(root / name))
    contents = load_json(root, name)
    if isinstance(contents, dict) and "samples" in contents:
        yield from _read_samples(list_in(contents["samples"], shown, "samples"), shown, wanted, left_out)
    elif isinstance(contents, dict) and isinstance(contents.get("labels"), dict):
        yield from _read_labels(root, contents, shown, left_out)
    else:
        raise InvalidData(f"{shown} must be an object with `samples`, or with `classes` and `labels`. Export it again.")


def _read_labels(root: Path, contents: dict[str, Any], shown: str, left_out: LeftOut) -> Iterator[Record]:
    """The keys are the names of the photos, mostly without their suffixes; a label is a name or a number of a class."""
    classes = contents.get("classes")
    files = {}
    for path in sorted(walk_around(root)[0]):
        inside = path.removeprefix(f"{_DATA}/")
        files[str(PurePosixPath(inside).with_suffix(""))] = files[inside] = path
    for photo, given in contents["labels"].items():
        label = given.get("label") if isinstance(given, dict) else given  # with its confidence or attributes
        if isinstance(label, int) and isinstance(classes, list):
            if not 0 <= label < len(classes):
                raise InvalidData(
                    f"{shown}: the label of {printable(without_secrets(photo))} must be a name, or a number from 0 to "
                    f"{len(classes) - 1}. Received: {label}. Export it again."
                )
            label = classes[label]
        if text := text_of(label):
            yield Record(photo, text, name=files.get(photo, photo), fields=_scalars(given))
        else:
            left_out.add(NO_LABEL, photo)


def _read_samples(samples: list[dict[str, Any]], shown: str, wanted: Wanted, left_out: LeftOut) -> Iterator[Record]:
    fields = sorted({name for sample in samples for name, value in sample.items() if _is_classification(value)})
    field = only_field(fields, wanted.label, "classification", shown) if fields or wanted.label else ""
    for number, sample in enumerate(samples):
        photo = os.fspath(text_of(sample.get("filepath")) or "").replace("\\", "/")
        where = photo or f"sample {number}"
        given = sample.get(field)
        label = text_of(given.get("label")) if isinstance(given, dict) else None
        tags = sample.get("tags")
        splits = {split for tag in tags if (split := split_named(text_of(tag)))} if isinstance(tags, list) else set()
        if label := one_label([label] if label else [], where, left_out):
            split = splits.pop() if len(splits) == 1 else None
            yield Record(where, label, name=photo, folders=("", _DATA), split=split, fields=texts_in(sample))


def _is_classification(value: Any) -> bool:
    return isinstance(value, dict) and value.get("_cls") == _CLASSIFICATION


def _scalars(given: Any) -> dict[str, str]:
    return texts_in(given) if isinstance(given, dict) else {}
