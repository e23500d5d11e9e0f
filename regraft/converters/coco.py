"""COCO: images, annotations and categories in one JSON file per split, as annotations/instances_train.json.

An image whose annotations are all of one category has that label; one with several is left out.
Source: https://cocodataset.org/#format-data.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from regraft.converters.json_files import list_in, load_json
from regraft.converters.records import LeftOut, Record, Wanted, one_label, split_in, text_of, texts_in
from regraft.errors import InvalidData, printable
from regraft.photos.folder import walk_around

KEYS = ("images", "annotations", "categories")


def read_coco(source: Path, wanted: Wanted, left_out: LeftOut) -> Iterator[Record]:
    """Yield the images of one JSON file, or of all in annotations/ of a folder."""
    if source.is_file():
        root, names = source.parent, [source.name]
    else:
        root = source
        names = sorted(name for name in walk_around(source)[0] if name.startswith("annotations/"))
        names = [name for name in names if name.endswith(".json")]
    for name in names:
        yield from _read_file(root, name, left_out)


def _read_file(root: Path, name: str, left_out: LeftOut) -> Iterator[Record]:
    shown = printable(str(root / name))
    contents = load_json(root, name)
    if not isinstance(contents, dict) or not contents.keys() >= set(KEYS):
        raise InvalidData(f"{shown} must be an object with {', '.join(KEYS)}. Export it as COCO again.")
    images, annotations, categories = (list_in(contents[key], shown, key) for key in KEYS)
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
    split = split_in(Path(name).name)
    for number, image in enumerate(images):
        photo = text_of(image.get("file_name")) or ""
        where = f"{name}: {photo or f'image {number}'}"
        if label := one_label(labels[text_of(image.get("id"))], where, left_out):
            yield Record(where, label, name=photo, folders=_folders(name), split=split, fields=texts_in(image))


def _folders(name: str) -> tuple[str, ...]:
    """Where tools put the images of annotations/instances_<subset>.json."""
    subset = Path(name).stem.partition("_")[2] or Path(name).stem
    return ("", "images", f"images/{subset}", subset, "data")
