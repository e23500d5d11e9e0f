"""Label Studio: the JSON export (a list of tasks with their annotations) and JSON-MIN (a list of answers).

Annotations that were cancelled, and predictions, say nothing. Where a task has several annotations, those that are
marked as ground truth count, or else all, and they must agree. Source: https://labelstud.io/guide/export.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from regraft.converters.json_files import list_in, load_json
from regraft.converters.records import LeftOut, Record, Wanted, one_label, only_field, split_named, text_of, texts_in
from regraft.errors import InvalidData, printable

_LOCAL_FILES = "/data/local-files/"
_UPLOADS = "/data/upload/"
_ANSWER = "choice"  # what JSON-MIN calls it, unless the labelling interface has another name for it
_IS_PHOTO = re.compile(
    r"(?:.*/|[a-z][a-z0-9]+://).*|[^/]+\.(?:jpe?g|png|gif|bmp|tiff?|webp|avif|heic)", re.I | re.DOTALL
)


def read_label_studio(source: Path, wanted: Wanted, left_out: LeftOut) -> Iterator[Record]:
    """Yield the tasks of a JSON file."""
    shown = printable(str(source))
    tasks = list_in(load_json(source.parent, source.name), shown, "tasks")
    if tasks and "annotations" not in tasks[0] and "completions" not in tasks[0]:
        yield from _read_answers(tasks, wanted, left_out)
        return
    controls = sorted({name for task in tasks for name, _ in _choices(task)})
    control = only_field(controls, wanted.label, "choice", shown) if controls or wanted.label else None
    for number, task in enumerate(tasks):
        data = task.get("data")
        if not isinstance(data, dict):
            raise InvalidData(f"{shown}: task {number} must have an object `data`. Export it as JSON again.")
        where = f"task {text_of(task.get('id')) or number}"
        labels = [label for name, given in _choices(task) if name == control for label in given]
        if label := one_label(labels, where, left_out):
            yield _record(where, label, data)


def _choices(task: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield each answer that counts: the name of its control, and the choices."""
    annotations = task.get("annotations", task.get("completions"))
    given = [each for each in annotations or [] if isinstance(each, dict) and not each.get("was_cancelled")]
    given = [each for each in given if each.get("ground_truth") is True] or given
    for annotation in given:
        for answer in annotation.get("result") or []:
            value = answer.get("value") if isinstance(answer, dict) else None
            if isinstance(value, dict) and answer.get("type") == "choices" and isinstance(value.get("choices"), list):
                labels = [label for choice in value["choices"] if (label := text_of(choice))]
                yield text_of(answer.get("from_name")) or "", labels


def _read_answers(tasks: list[dict[str, Any]], wanted: Wanted, left_out: LeftOut) -> Iterator[Record]:
    """JSON-MIN has an entry for each annotation; the data stand beside the answer."""
    answers: dict[str, list[str]] = defaultdict(list)
    data: dict[str, dict[str, Any]] = {}
    name = wanted.label or _ANSWER
    for number, task in enumerate(tasks):
        where = f"task {text_of(task.get('id')) or number}"
        answer = task.get(name)
        choices = answer.get("choices") if isinstance(answer, dict) else [answer]
        answers[where] += [label for choice in choices or [] if (label := text_of(choice))]
        data[where] = {key: value for key, value in task.items() if key != name}
    for where, labels in answers.items():
        if label := one_label(labels, where, left_out):
            yield _record(where, label, data[where])


def _record(where: str, label: str, data: dict[str, Any]) -> Record:
    fields = texts_in(data)
    return Record(where, label, name=_photo(fields), folders=("", "images"), split=split_named(fields.get("split")),
                  fields=fields)  # fmt: skip


def _photo(fields: dict[str, str]) -> str:
    """The address or path of the photo; empty where it cannot be told."""
    photos = [value for value in fields.values() if _IS_PHOTO.fullmatch(value)]
    photo = fields.get("image") or (photos[0] if len(photos) == 1 else "")
    if photo.startswith(_LOCAL_FILES):  # below the server's LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT
        return parse_qs(urlsplit(photo).query).get("d", [""])[0]
    if photo.startswith(_UPLOADS):  # below its media/upload
        return unquote(photo.removeprefix(_UPLOADS))
    return photo
