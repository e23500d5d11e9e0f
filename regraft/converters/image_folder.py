"""A folder of photos: <class>/..., or {train,val,test}/<class>/..., as ImageNet's layout and CVAT's export of it."""

from collections.abc import Iterator
from pathlib import Path

from regraft.converters.layout import NO_CLASS, layout_of
from regraft.converters.records import LeftOut, Record, Wanted
from regraft.photos.folder import walk_around
from regraft.photos.label_rows import LABELS_FILES


def read_folder(root: Path, wanted: Wanted, left_out: LeftOut) -> Iterator[Record]:
    """Yield the photos below a folder, ordered by path; hidden files and folders are no photos."""
    files, refused = walk_around(root)
    for path in sorted(refused):
        left_out.add("that must not be opened", f"{path} ({refused[path]})")
    # A table that an earlier call wrote there is no photo.
    paths = sorted(path for path in files if path not in LABELS_FILES and not path.rpartition("/")[2].startswith("."))
    nested = [parts for path in paths if len(parts := path.split("/")) > 1]
    layout = layout_of((parts[0] for parts in nested), are_nested=any(len(parts) > 2 for parts in nested))
    for path in paths:
        if found := layout.read(path):
            yield Record(path, found[0], name=path, split=found[1])
        else:
            left_out.add(NO_CLASS, path)
