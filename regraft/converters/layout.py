"""What folders say of the photos in them: <class>/..., or {train,val,test}/<class>/..."""

from collections.abc import Iterable
from dataclasses import dataclass

from regraft.photos.labels_file import SPLIT_NAMES

NO_CLASS = "not inside a class folder"


@dataclass(frozen=True, slots=True)
class Layout:
    """Which of the two it is."""

    has_splits: bool

    def read(self, path: str) -> tuple[str, str | None] | None:
        """Return the name of the class folder and the split of a photo, whose path has forward slashes; or None."""
        parts = path.split("/")
        if not self.has_splits:
            return (parts[0], None) if len(parts) > 1 else None
        return (parts[1], SPLIT_NAMES[parts[0].lower()]) if len(parts) > 2 else None


def layout_of(tops: Iterable[str], *, are_nested: bool) -> Layout:
    """Return the layout.

    Args:
        tops: the names of the folders at the top.
        are_nested: whether any of them has folders of its own.
    """
    names = {name.lower() for name in tops}
    return Layout("train" in names and names <= SPLIT_NAMES.keys() and are_nested)
