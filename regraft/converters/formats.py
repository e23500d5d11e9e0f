"""The formats that are read, and which of them a source is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft.converters import coco, cvat, fiftyone, hugging_face, image_folder, label_studio, webdataset
from regraft.converters.json_files import load_json
from regraft.converters.records import LeftOut, Record, Wanted
from regraft.errors import InvalidData, printable
from regraft.photos.folder import walk_around

Read = Callable[[Path, Wanted, LeftOut], Iterator[Record]]


@dataclass(frozen=True, slots=True)
class Format:
    """What one tool writes."""

    title: str
    read: Read


FORMATS = {
    "folder": Format("a folder of photos, <class>/... or {train,val,test}/<class>/...", image_folder.read_folder),
    "huggingface": Format("Parquet files of Hugging Face with images in them", hugging_face.read_hugging_face),
    "webdataset": Format("tar files of WebDataset", webdataset.read_webdataset),
    "labelstudio": Format("a JSON export of Label Studio", label_studio.read_label_studio),
    "cvat": Format("an export of CVAT, CVAT for images 1.1", cvat.read_cvat),
    "fiftyone": Format("an export of FiftyOne", fiftyone.read_fiftyone),
    "coco": Format("COCO: images, annotations and categories", coco.read_coco),
}


def find_format(source: Path) -> Format:
    """Return the format of a file or a folder, by its name and by what lies in it.

    Raises:
        InvalidData: there is no such file or folder, or it is of no known format.
    """
    if source.is_dir():
        return FORMATS[_of_folder(source)]
    shown = printable(str(source))
    if not source.is_file():
        raise InvalidData(f"there is no {shown}. Name a folder, an export or an address such as s3://bucket/photos.")
    name = source.name.lower()
    if name.endswith(".zip"):
        raise InvalidData(f"{shown} is an archive. Unpack it, and name the folder that was in it.")
    if name.endswith(hugging_face.SUFFIX):
        return FORMATS["huggingface"]
    if name.endswith(webdataset.SUFFIXES):
        return FORMATS["webdataset"]
    if name.endswith(cvat.SUFFIX):
        return FORMATS["cvat"]
    if name.endswith(".json"):
        return FORMATS[_of_json(load_json(source.parent, source.name), shown)]
    raise InvalidData(f"{shown} is of no known format. {_expected()}")


def _of_folder(folder: Path) -> str:
    if cvat.files_of(folder):
        return "cvat"
    if (folder / fiftyone.SAMPLES).is_file() or (folder / fiftyone.LABELS).is_file():
        return "fiftyone"
    names = [name.lower() for name in walk_around(folder)[0]]
    if any(name.startswith("annotations/") and name.endswith(".json") for name in names):
        return "coco"
    if any(name.endswith(webdataset.SUFFIXES) for name in names):
        return "webdataset"
    if any(name.endswith(hugging_face.SUFFIX) for name in names):
        return "huggingface"
    return "folder"


def _of_json(contents: Any, shown: str) -> str:
    if isinstance(contents, list):
        return "labelstudio"
    keys = contents.keys() if isinstance(contents, dict) else set()
    if keys >= set(coco.KEYS):
        return "coco"
    if keys & {"samples", "labels"}:
        return "fiftyone"
    raise InvalidData(f"{shown} is of no known format. {_expected()}")


def _expected() -> str:
    known = "; ".join(f"{name}: {each.title}" for name, each in FORMATS.items())
    return f"Known are {known}. Say which it is with --format."
