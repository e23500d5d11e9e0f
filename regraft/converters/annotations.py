"""Exports of labelling tools as JSON: COCO, and Label Studio's JSON and JSON-MIN.

COCO has images, annotations and categories in one file per split, as annotations/instances_train.json. In Label Studio
cancelled annotations and predictions do not count. Where a task has several annotations, those marked as ground truth
count, or else all. Annotations of one photo must agree.

Sources: https://cocodataset.org/#format-data, https://labelstud.io/guide/export.
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from regraft.converters.records import (
    LeftOut,
    Record,
    Wanted,
    one_label,
    only_field,
    split_in,
    split_named,
    text_of,
    texts_in,
)
from regraft.core.errors import InvalidData, printable
from regraft.core.files import readable_bytes
from regraft.photos.folder import open_inside, walk_around

COCO_KEYS = ("images", "annotations", "categories")
_MOST_BYTES = 1024 * 2**20  # about a million annotated photos; parsed, it takes several times as much memory
_LOCAL_FILES, _UPLOADS = "/data/local-files/", "/data/upload/"
_IS_PHOTO = re.compile(
    r"(?:.*/|[a-z][a-z0-9]+://).*|[^/]+\.(?:jpe?g|png|gif|bmp|tiff?|webp|avif|heic)", re.I | re.DOTALL
)


def load_json(root: Path, name: str) -> Any:
    """Return the contents of a JSON file below `root`; InvalidData if it is too large, unreadable or no JSON."""
    shown = printable(str(root / name))
    try:
        with open_inside(root, name) as file:
            if (size := os.fstat(file.fileno()).st_size) > _MOST_BYTES:
                raise InvalidData(
                    f"{shown} must have at most {readable_bytes(_MOST_BYTES)}. Received: {readable_bytes(size)}. "
                    f"Export it in parts."
                )
            return json.loads(file.read().decode("utf-8-sig"))
    except OSError as error:
        raise InvalidData(f"{shown} cannot be read: {error.strerror}. Make it readable.") from None
    except (ValueError, RecursionError) as error:
        raise InvalidData(f"{shown} is no JSON: {printable(str(error))}. Export it again.") from None


def read_coco(source: Path, wanted: Wanted, left_out: LeftOut) -> Iterator[Record]:
    """Yield the images of one JSON file, or of all in annotations/ of a folder."""
    if source.is_file():
        yield from _coco_file(source.parent, source.name, left_out)
        return
    for name in sorted(walk_around(source)[0]):
        if name.startswith("annotations/") and name.endswith(".json"):
            yield from _coco_file(source, name, left_out)


def _coco_file(root: Path, name: str, left_out: LeftOut) -> Iterator[Record]:
    shown, contents = printable(str(root / name)), load_json(root, name)
    if not isinstance(contents, dict) or not contents.keys() >= set(COCO_KEYS):
        raise InvalidData(f"{shown} must be an object with {', '.join(COCO_KEYS)}. Export it as COCO again.")
    images, annotations, categories = (_objects(contents[key], shown, key) for key in COCO_KEYS)
    class_names = {text_of(category.get("id")): text_of(category.get("name")) for category in categories}
    labels: dict[str | None, list[str]] = defaultdict(list)
    for number, annotation in enumerate(annotations):
        class_name = class_names.get(text_of(annotation.get("category_id")))
        if class_name is None:
            raise InvalidData(
                f"{shown}: annotation {number} must name one of the categories by its category_id. Received: "
                f"{printable(repr(annotation.get('category_id')))}. Export it again."
            )
        labels[text_of(annotation.get("image_id"))].append(class_name)
    subset = Path(name).stem.partition("_")[2] or Path(name).stem
    folders = ("", "images", f"images/{subset}", subset, "data")  # where tools put the images of this file
    for number, image in enumerate(images):
        photo = text_of(image.get("file_name")) or ""
        where = f"{name}: {photo or f'image {number}'}"
        if label := one_label(labels[text_of(image.get("id"))], where, left_out):
            split = split_in(Path(name).name)
            yield Record(where, label, name=photo, folders=folders, split=split, fields=texts_in(image))


def read_label_studio(source: Path, wanted: Wanted, left_out: LeftOut) -> Iterator[Record]:
    """Yield the tasks of a JSON file."""
    shown = printable(str(source))
    tasks = _objects(load_json(source.parent, source.name), shown, "tasks")
    is_min = bool(tasks) and "annotations" not in tasks[0]
    controls = sorted({name for task in tasks for name, _ in _choices(task)})
    control = only_field(controls, wanted.label, "choice", shown) if not is_min and (controls or wanted.label) else ""
    labels: dict[str, list[str]] = defaultdict(list)
    data: dict[str, dict[str, Any]] = {}
    for number, task in enumerate(tasks):
        where = f"task {text_of(task.get('id')) or number}"
        if is_min:  # an entry for each annotation, with the data beside the answer
            name = wanted.label or "choice"
            answer = task.get(name)
            choices = answer.get("choices") if isinstance(answer, dict) else [answer]
            labels[where] += [label for choice in choices or [] if (label := text_of(choice))]
            data[where] = {key: value for key, value in task.items() if key != name}
        elif isinstance(task.get("data"), dict):
            labels[where] += [label for name, given in _choices(task) if name == control for label in given]
            data[where] = task["data"]
        else:
            raise InvalidData(f"{shown}: task {number} must have an object `data`. Export it as JSON again.")
    for where, given in labels.items():
        if label := one_label(given, where, left_out):
            fields = texts_in(data[where])
            split, folders = split_named(fields.get("split")), ("", "images")
            yield Record(where, label, name=_photo(fields), folders=folders, split=split, fields=fields)


def _choices(task: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield each answer that counts: the name of its control, and the choices."""
    annotations = [each for each in task.get("annotations") or [] if isinstance(each, dict)]
    given = [each for each in annotations if not each.get("was_cancelled")]
    for annotation in [each for each in given if each.get("ground_truth") is True] or given:
        for answer in annotation.get("result") or []:
            value = answer.get("value") if isinstance(answer, dict) else None
            if isinstance(value, dict) and answer.get("type") == "choices" and isinstance(value.get("choices"), list):
                labels = [label for choice in value["choices"] if (label := text_of(choice))]
                yield text_of(answer.get("from_name")) or "", labels


def _photo(fields: dict[str, str]) -> str:
    """The address or path of the photo; empty where it cannot be told."""
    photos = [value for value in fields.values() if _IS_PHOTO.fullmatch(value)]
    photo = fields.get("image") or (photos[0] if len(photos) == 1 else "")
    if photo.startswith(_LOCAL_FILES):  # below the server's LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT
        return parse_qs(urlsplit(photo).query).get("d", [""])[0]
    return unquote(photo.removeprefix(_UPLOADS)) if photo.startswith(_UPLOADS) else photo


def _objects(value: Any, shown: str, what: str) -> list[dict[str, Any]]:
    """Return a list of objects, or raise InvalidData; `what` names it: 'images'."""
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise InvalidData(f"{shown}: {what} must be a list of objects. Export it again.")
    return value
