"""Exports of other tools, read photo by photo; nothing in them is believed, and nothing is unpacked by its name.

Hugging Face: Parquet with a column of images, {bytes, path}, and a label; class names are in the metadata (ClassLabel).
WebDataset: files of a tar that follow each other and share a key are one sample: 0.jpg, 0.cls, 0.json; the key is the
path up to the first dot of the name. COCO: images, annotations and categories, a JSON file per split. Label Studio:
JSON; cancelled annotations and predictions do not count, and where some are marked as ground truth those alone do.

Sources: https://cocodataset.org/#format-data, https://labelstud.io/guide/export.
"""

import json
import os
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Self, cast
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa

from regraft.converters.listing import MOST_BYTES, NO_LABEL, NO_PHOTO, SEVERAL_LABELS, LeftOut, Record, Wanted
from regraft.core.errors import InvalidData, printable
from regraft.core.files import readable_bytes
from regraft.photos.folder import open_inside, walk_around
from regraft.photos.foreign_parquet import ForeignParquet
from regraft.photos.labels_file import SPLIT_NAMES

PARQUET, TAR = ".parquet", ".tar"
COCO_KEYS = ("images", "annotations", "categories")
_MOST_JSON = 1024 * 2**20  # bytes: about a million annotated photos; parsed, it takes several times as much memory
_LOCAL_FILES, _UPLOADS = "/data/local-files/", "/data/upload/"
_IS_PHOTO = re.compile(
    r"(?:.*/|[a-z][a-z0-9]+://).*|[^/]+\.(?:jpe?g|png|gif|bmp|tiff?|webp|avif|heic)", re.I | re.DOTALL
)
_PHOTOS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic", "jp2", "ppm", "img", "image")
_LABELS = ("cls", "txt", "text", "label")  # kinds of files that hold the label alone, the most telling first
_KEYS = ("label", "class", "class_name", "cls")  # of a JSON file
_MOST_TEXT = 2**20  # bytes of a label or of a JSON file in a tar
_MOST_HEADER = 5_000  # bytes of a member's name and attributes; no path of a file is longer than 4,096
_MOST_READS = 100  # behind the end of a file, before it counts as cut off
_SPLIT = re.compile(r"((?:.*/)?[^/.]*)\.([^/]+)")


def load_json(root: Path, name: str) -> Any:
    """Return the contents of a JSON file below `root`; InvalidData if it is too large, unreadable or no JSON."""
    shown = printable(str(root / name))
    try:
        with open_inside(root, name) as file:
            if (size := os.fstat(file.fileno()).st_size) > _MOST_JSON:
                raise InvalidData(
                    f"{shown} must have at most {readable_bytes(_MOST_JSON)}. Received: {readable_bytes(size)}. "
                    f"Export it in parts."
                )
            return json.loads(file.read().decode("utf-8-sig"))
    except OSError as error:
        raise InvalidData(f"{shown} cannot be read: {error.strerror}. Make it readable.") from None
    except (ValueError, RecursionError) as error:
        raise InvalidData(f"{shown} is no JSON: {printable(str(error))}. Export it again.") from None


def read_coco(source: Path, wanted: Wanted, left_out: LeftOut) -> Iterator[Record]:
    """Yield the images of one JSON file, or of all in annotations/ of a folder."""
    root, names = (source.parent, [source.name]) if source.is_file() else (source, sorted(walk_around(source)[0]))
    for name in names:
        if not source.is_file() and not (name.startswith("annotations/") and name.endswith(".json")):
            continue
        shown, contents = printable(str(root / name)), load_json(root, name)
        if not isinstance(contents, dict) or not contents.keys() >= set(COCO_KEYS):
            raise InvalidData(f"{shown} must be an object with {', '.join(COCO_KEYS)}. Export it as COCO again.")
        images, annotations, categories = (_objects(contents[key], shown, key) for key in COCO_KEYS)
        class_names = {_text(category.get("id")): _text(category.get("name")) for category in categories}
        labels: dict[str | None, list[str]] = defaultdict(list)
        for number, annotation in enumerate(annotations):
            class_name = class_names.get(_text(annotation.get("category_id")))
            if class_name is None:
                raise InvalidData(
                    f"{shown}: annotation {number} must name one of the categories by its category_id. Received: "
                    f"{printable(repr(annotation.get('category_id')))}. Export it again."
                )
            labels[_text(annotation.get("image_id"))].append(class_name)
        subset = Path(name).stem.partition("_")[2] or Path(name).stem
        folders = ("", "images", f"images/{subset}", subset, "data")  # where tools put the images of this file
        for number, image in enumerate(images):
            photo = _text(image.get("file_name")) or ""
            where = f"{name}: {photo or f'image {number}'}"
            if label := _one_label(labels[_text(image.get("id"))], where, left_out):
                split = _split_in(Path(name).name)
                yield Record(where, label, name=photo, folders=folders, split=split, fields=_texts(image))


def read_label_studio(source: Path, wanted: Wanted, left_out: LeftOut) -> Iterator[Record]:
    """Yield the tasks of a JSON file, in Label Studio's JSON or JSON-MIN (data and answer side by side)."""
    shown = printable(str(source))
    tasks = _objects(load_json(source.parent, source.name), shown, "tasks")
    if tasks and not any("annotations" in task or "data" in task for task in tasks):
        tasks = [_from_min(task, wanted.label or "choice") for task in tasks]
    answers = [list(_choices(task)) for task in tasks]
    controls = sorted({name for each in answers for name, _ in each})
    control = _only_field(controls, wanted.label, "choice", shown) if controls or wanted.label else ""
    for number, (task, given) in enumerate(zip(tasks, answers, strict=True)):
        if not isinstance(task.get("data"), dict):
            raise InvalidData(f"{shown}: task {number} must have an object `data`. Export it as JSON or JSON-MIN.")
        where = f"task {_text(task.get('id')) or number}"
        if label := _one_label([each for name, labels in given if name == control for each in labels], where, left_out):
            fields = _texts(task["data"])
            split, folders = _split_named(fields.get("split")), ("", "images")
            yield Record(where, label, name=_task_photo(fields), folders=folders, split=split, fields=fields)


def _from_min(task: dict[str, Any], control: str) -> dict[str, Any]:
    """Return a task of JSON-MIN in the form of JSON; a choice is a text, or an object with a list of several."""
    given = task.get(control)
    choices = given.get("choices") if isinstance(given, dict) else [given]
    answer = {"type": "choices", "from_name": control, "value": {"choices": choices}}
    data = {name: value for name, value in task.items() if name != control}
    return {"id": task.get("id"), "data": data, "annotations": [{"result": [answer] if given else []}]}


def _choices(task: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield each answer that counts: the name of its control, and the choices."""
    annotations = [each for each in task.get("annotations") or [] if isinstance(each, dict)]
    given = [each for each in annotations if not each.get("was_cancelled")]
    for annotation in [each for each in given if each.get("ground_truth") is True] or given:
        for answer in annotation.get("result") or []:
            value = answer.get("value") if isinstance(answer, dict) else None
            if isinstance(value, dict) and answer.get("type") == "choices" and isinstance(value.get("choices"), list):
                labels = [label for choice in value["choices"] if (label := _text(choice))]
                yield _text(answer.get("from_name")) or "", labels


def _task_photo(fields: Mapping[str, str]) -> str:
    """The address or path of the photo; empty where it cannot be told."""
    photos = [value for value in fields.values() if _IS_PHOTO.fullmatch(value)]
    photo = fields.get("image") or (photos[0] if len(photos) == 1 else "")
    if photo.startswith(_LOCAL_FILES):  # below the server's LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT
        return parse_qs(urlsplit(photo).query).get("d", [""])[0]
    return unquote(photo.removeprefix(_UPLOADS)) if photo.startswith(_UPLOADS) else photo


def read_hugging_face(source: Path, wanted: Wanted, left_out: LeftOut) -> Iterator[Record]:
    """Yield the rows of a Parquet file, or of all below a folder."""
    root, names = _files_of(source, PARQUET)
    for name in names:
        shown = printable(str(root / name))
        try:
            with open_inside(root, name) as file, ForeignParquet(file, shown) as table:
                yield from _parquet_rows(table, name, wanted, left_out)
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            reason = printable(" ".join(str(getattr(error, "strerror", None) or error).split()))
            raise InvalidData(f"{shown} is no sound Parquet file: {reason}. Write or download it again.") from None


def _parquet_rows(table: ForeignParquet, name: str, wanted: Wanted, left_out: LeftOut) -> Iterator[Record]:
    columns = table.schema.names
    try:
        features = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
        facts: dict[str, Any] = {column: each for column, each in features.items() if isinstance(each, dict)}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        facts = {}  # written by another library
    image = _image_column(table.schema, facts, name)
    labels = [column for column in ("label", "labels") if column in columns][:1]
    labels = labels or [column for column in columns if facts.get(column, {}).get("_type") == "ClassLabel"]
    label = _only_field(columns if wanted.label else labels, wanted.label, "column of labels", name)
    for column in wanted.fields:
        _only_field(columns, column, "column", name)
    others = [
        each for each in dict.fromkeys((*wanted.fields, "split")) if each in columns and each not in (image, label)
    ]
    row = 0
    for batch in table.batches([image, label, *others]):
        for cells in batch.to_pylist():
            where, row = f"{name}: row {row}", row + 1
            fields = {column: text for column in others if (text := _cell(cells[column], facts.get(column), where))}
            class_name = _cell(cells[label], facts.get(label), where)
            photo = cells[image] if isinstance(cells[image], dict) else {"bytes": cells[image]}
            content = photo.get("bytes") if isinstance(photo.get("bytes"), bytes) else None
            path = photo.get("path") if isinstance(photo.get("path"), str) else None
            if class_name is None or (content is None and path is None):
                left_out.add(NO_LABEL if class_name is None else NO_PHOTO, where)
            else:
                split = _split_in(name) or _split_named(fields.get("split"))
                yield Record(where, class_name, content, path or "", split=split, fields=fields)


def _image_column(schema: pa.Schema, facts: dict[str, Any], name: str) -> str:
    columns = [column for column in schema.names if facts.get(column, {}).get("_type") == "Image"]
    columns = columns or [
        each.name for each in schema if pa.types.is_struct(each.type) or pa.types.is_binary(each.type)
    ]
    if "image" in columns or len(columns) == 1:
        return "image" if "image" in columns else columns[0]
    raise InvalidData(
        f"{name} must have one column of images, {{bytes, path}}, or one named `image`. Received: "
        f"{', '.join(map(printable, schema.names[:20]))}. Remove the others, or rename the right one."
    )


def _cell(cell: Any, facts: Any, where: str) -> str | None:
    """The text of a cell; of a ClassLabel the name of the class, None for -1, which marks a row without a label."""
    names = (facts or {}).get("names")
    if not isinstance(cell, int) or isinstance(cell, bool) or not isinstance(names, list):
        return _text(cell)
    if not -1 <= cell < len(names):
        raise InvalidData(
            f"{where} must have a label from 0 to {len(names) - 1}, for which the file has names. Received: {cell}. "
            f"Write it again."
        )
    return _text(names[cell]) if cell >= 0 else None


class _Member(tarfile.TarInfo):
    """A member whose header is read into memory only if it is as small as headers are."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        is_plain = member.isfile() or member.isdir() or member.issym() or member.islnk() or member.isdev()
        if member.size < 0 or (not is_plain and member.size > _MOST_HEADER):
            raise tarfile.ReadError(f"a header of {member.size:,} bytes; at most {_MOST_HEADER:,} are read")
        return member


class _Ending:
    """A file that is not read for ever behind its end; it cannot be sought in, so no header leads back to itself."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._reads_left = file, _MOST_READS

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self._reads_left -= not content
        if not self._reads_left:
            raise EOFError("it ends within a file that should be longer")
        return content


def read_webdataset(source: Path, wanted: Wanted, left_out: LeftOut) -> Iterator[Record]:
    """Yield the samples of a tar file, or of all below a folder."""
    root, names = _files_of(source, TAR)
    for name in names:
        shown = printable(str(root / name))
        try:
            with (
                open_inside(root, name) as file,
                tarfile.open(fileobj=cast(BinaryIO, _Ending(file)), mode="r|", tarinfo=_Member) as tar,
            ):
                for key, members in _samples(tar, name, left_out):
                    if record := _sample_record(f"{name}: {key}", members, wanted, left_out, _split_in(name)):
                        yield record
        except (OSError, tarfile.TarError, EOFError, ValueError, IndexError, RecursionError) as error:
            reason = printable(getattr(error, "strerror", None) or str(error))
            raise InvalidData(f"{shown} is no sound tar file: {reason}. Write or download it again.") from None


def _samples(tar: tarfile.TarFile, name: str, left_out: LeftOut) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield key and members of each sample, by their kind: the name after its first dot, in small letters."""
    key, members = None, {}
    for member in tar:
        tar.members = []  # type: ignore[attr-defined] - or it keeps all headers that it has read
        match = _SPLIT.fullmatch(member.name)
        if not match or not member.isreg() or member.issparse() or re.search(r"(^|/)\.+[^./]", member.name):
            continue
        if match[1] != key:
            if members:
                yield str(key), members
            key, members = match[1], {}
        kind = match[2].lower()
        is_photo = kind in _PHOTOS
        if not is_photo and kind not in (*_LABELS, "json"):
            continue
        if member.size > (MOST_BYTES if is_photo else _MOST_TEXT):
            left_out.add("with a file that is too large", f"{name}: {member.name} ({member.size:,} bytes)")
        elif is_photo and any(other in _PHOTOS and other != kind for other in members):
            members[kind] = b""  # the sample cannot be used, and need not be held
        elif file := tar.extractfile(member):
            members[kind] = file.read()
    if members:
        yield str(key), members


def _sample_record(
    where: str, members: dict[str, bytes], wanted: Wanted, left_out: LeftOut, split: str | None
) -> Record | None:
    photos = [kind for kind in members if kind in _PHOTOS]
    if len(photos) != 1:
        left_out.add("with several photos" if photos else NO_PHOTO, where)
        return None
    kind = "json"
    try:
        contents = json.loads(members.get(kind, b"{}").decode("utf-8-sig"))
        fields = _texts(contents) if isinstance(contents, dict) else {}
        label = fields.get(wanted.label) if wanted.label else None
        if not wanted.label:
            kind = next((kind for kind in _LABELS if kind in members), "")
            label = _text(members[kind].decode("utf-8-sig")) if kind else None
            label = label or next((fields[key] for key in _KEYS if key in fields), None)
    except (ValueError, RecursionError) as error:
        raise InvalidData(f"{where}.{kind} cannot be read: {printable(str(error))}. Write it again.") from None
    if label is None:
        left_out.add(NO_LABEL, where)
        return None
    return Record(where, label, members[photos[0]], split=split or _split_named(fields.get("split")), fields=fields)


def _objects(value: Any, shown: str, what: str) -> list[dict[str, Any]]:
    """Return a list of objects, or raise InvalidData; `what` names it: 'images'."""
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise InvalidData(f"{shown}: {what} must be a list of objects. Export it again.")
    return value


def _text(value: Any) -> str | None:
    """Return a text or a number as text, without spaces around it; None for anything else, and for an empty one."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value).strip() or None


def _texts(fields: Mapping[Any, Any]) -> dict[str, str]:
    """Return those fields of a JSON object that are texts or numbers."""
    return {str(name): text for name, value in fields.items() if (text := _text(value)) is not None}


def _split_in(path: str) -> str | None:
    """Return the split in a file's name or in those of the folders above it, the nearest one: train-00000.parquet."""
    for part in reversed(PurePosixPath(path.lower()).parts):
        found = {SPLIT_NAMES[word] for word in re.findall(r"[a-z]+", part) if word in SPLIT_NAMES}
        if len(found) == 1:
            return found.pop()
    return None


def _split_named(text: str | None) -> str | None:
    """Return the split that a field names as a whole; or None."""
    return SPLIT_NAMES.get(text.strip().lower()) if text else None


def _one_label(labels: Iterable[str], where: str, left_out: LeftOut) -> str | None:
    """Return the label of a photo; where there is none, or more than one, the photo is left out."""
    different = sorted(set(labels))
    if len(different) == 1:
        return different[0]
    left_out.add(*((SEVERAL_LABELS, f"{where} ({', '.join(different)})") if different else (NO_LABEL, where)))
    return None


def _only_field(names: list[str], wanted: str | None, what: str, shown: str) -> str:
    """Return the wanted field, or the only one there is; InvalidData if that is none."""
    if wanted in names or (wanted is None and len(names) == 1):
        return wanted or names[0]
    listed = ", ".join(printable(name) for name in names[:20]) or "none"
    expected = f"one {what}" if wanted is None else f"a {what} '{printable(wanted)}'"
    raise InvalidData(f"{shown} must have {expected}. Received: {listed}. Name the one to use with --field label=NAME.")


def _files_of(source: Path, suffix: str) -> tuple[Path, list[str]]:
    """Return a folder and the names of files below it: the source itself, or all files in it that end so, by name."""
    if source.is_file():
        return source.parent, [source.name]
    return source, sorted(name for name in walk_around(source)[0] if name.lower().endswith(suffix))
