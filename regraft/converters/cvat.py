"""CVAT: "CVAT for images 1.1", an XML file in which tags say what is on each image.

XML may refer to other files and blow itself up by entities; CVAT writes neither, and a file that declares a document
type is refused before anything in it is resolved. Source: https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.parsers import expat

from regraft.converters.records import LeftOut, Record, Wanted, one_label, split_in, split_named
from regraft.errors import InvalidData, printable
from regraft.photos.folder import open_inside

SUFFIX = ".xml"
_BLOCK = 2**20  # bytes that are read at once
_LONGEST = 10_000  # letters of an attribute's value
_EXPORT = 'Export it as "CVAT for images 1.1" again.'


class _Images:
    """What has been read of the file: images that are complete, with their labels and attributes."""

    def __init__(self) -> None:
        self.done: list[tuple[dict[str, str], list[str], dict[str, str]]] = []
        self.has_root = False
        self._image: tuple[dict[str, str], list[str], dict[str, str]] | None = None
        self._attribute: str | None = None
        self._text = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.has_root = self.has_root or name == "annotations"
        if name == "image":
            self._image = (attributes, [], {})
        elif name == "tag" and self._image:
            self._image[1].append(attributes.get("label", "").strip())
        elif name == "attribute" and self._image:
            self._attribute, self._text = attributes.get("name"), ""

    def text(self, text: str) -> None:
        if self._attribute is not None and len(self._text) < _LONGEST:
            self._text += text

    def end(self, name: str) -> None:
        if name == "attribute" and self._image and self._attribute is not None:
            self._image[2][self._attribute] = self._text.strip()
            self._attribute = None
        elif name == "image" and self._image:
            self.done.append(self._image)
            self._image = None


def read_cvat(source: Path, wanted: Wanted, left_out: LeftOut) -> Iterator[Record]:
    """Yield the images of an XML file, or of all that lie at the top of a folder."""
    root = source.parent if source.is_file() else source
    names = [source.name] if source.is_file() else files_of(source)
    for name in names:
        yield from _read_file(root, name, left_out)


def files_of(folder: Path) -> list[str]:
    """Return the XML files at the top of a folder: CVAT writes annotations.xml, Datumaro one for each subset."""
    return sorted(path.name for path in folder.iterdir() if path.suffix.lower() == SUFFIX and path.is_file())


def _read_file(root: Path, name: str, left_out: LeftOut) -> Iterator[Record]:
    for number, (attributes, tags, fields) in enumerate(_images(root, name)):
        photo, subset = attributes.get("name", "").replace("\\", "/"), attributes.get("subset", "")
        where = photo or f"image {number}"
        if label := one_label([tag for tag in tags if tag], where, left_out):
            # The images of a subset lie in a folder of its name.
            folders = tuple(dict.fromkeys(("", "images", f"images/{subset}", subset)))
            split = split_named(subset) or split_in(name)
            yield Record(where, label, name=photo, folders=folders, split=split, fields=fields)


def _images(root: Path, name: str) -> Iterator[tuple[dict[str, str], list[str], dict[str, str]]]:
    shown = printable(str(root / name))
    images, parser = _Images(), expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = images.start, images.end
    parser.CharacterDataHandler = images.text
    parser.StartDoctypeDeclHandler = _refuse
    try:
        with open_inside(root, name) as file:
            while block := file.read(_BLOCK):
                parser.Parse(block, False)
                yield from images.done
                images.done.clear()
            parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise InvalidData(f"{shown} is no XML: {printable(str(error))}. {_EXPORT}") from None
    except _Doctype:
        raise InvalidData(
            f"{shown}, line {parser.CurrentLineNumber}, declares a document type, which may hide other files and "
            f"endless texts; CVAT writes none. {_EXPORT}"
        ) from None
    except OSError as error:
        raise InvalidData(f"{shown} cannot be read: {error.strerror}. Make it readable.") from None
    yield from images.done
    if not images.has_root:
        raise InvalidData(f"{shown} must have an element <annotations>. There is none. {_EXPORT}")


class _Doctype(Exception):
    """The file declares a document type."""


def _refuse(*declared: Any) -> None:
    raise _Doctype
