"""What a class may be called: one rule for folders and for labels.csv.

Class names stand in tables, charts, terminals, HTML and the metadata of the model. A letter that has no shape, that
terminals obey or that turns the reading direction around would break or forge one of these, and two names that look
the same would be two classes.
"""

import unicodedata
from functools import lru_cache

from regraft.core.errors import is_invisible
from regraft.photos.photo_urls import MOST_LETTERS, carries_secret, shown_name

_MOST_BYTES = 255  # as in the name of a folder


def normalised(name: str) -> str:
    """Return a class name in its one spelling, so that one class does not become two."""
    # macOS writes an accented letter as two code points, others as one.
    # What is too long is refused by everyone, and putting accents in order may take the square of their number.
    if name.isascii() or len(name) > MOST_LETTERS:
        return name.strip()
    return unicodedata.normalize("NFC", name).strip()


@lru_cache(maxsize=10_000)
def problem_of(class_name: str) -> str | None:
    """Return what is wrong with a normalised class name, with what to do, or None."""
    if not class_name:
        return "the class has no name: its name is empty or made of spaces; give it one"
    shown = shown_name(class_name, "'")
    if len(class_name.encode(errors="replace")) > _MOST_BYTES:
        return f"the class name {shown} is longer than {_MOST_BYTES} bytes; shorten it"
    if carries_secret(class_name):
        return (
            "the class name is an address or a part of one, which may hold a secret, and is not shown; rename the class"
        )
    # Some alphabets need joiners between letters, but there must be letters.
    if any(map(is_invisible, class_name)) or not class_name.strip("\u200c\u200d "):
        return f"the class name {shown} has a control character or another that cannot be seen; rename the class"
    return None
