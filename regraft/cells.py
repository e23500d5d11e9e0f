r"""Names in the cells of CSV files: they cannot do anything in a spreadsheet, in a terminal or in a web page.

A name is written as `shown` shows it: an apostrophe stands in front of what a spreadsheet would take for a formula, and
what has no shape or a meaning in HTML is written as a number, \x3c for a less-than sign. `name_of` takes it back.
"""

import re

from regraft.errors import is_invisible

_FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20"  # also in full width, which spreadsheets take for the same
# `<` ends a script; `;` begins a new cell in half of Europe, and a backslash begins a number here.
_AS_NUMBERS = "<>;\\"
_NUMBER = re.compile(r"\\x([0-9a-f]{2})|\\u([0-9a-f]{4})|\\U([0-9a-f]{8})")


def shown(name: str) -> str:
    """Return a name as it is written into a cell."""
    text = "".join(_number(letter) if letter in _AS_NUMBERS or is_invisible(letter) else letter for letter in name)
    start = text.lstrip().removeprefix("'").lstrip()
    return f"'{text}" if text.startswith("'") or start.startswith(tuple(_FORMULA)) else text


def name_of(cell: str) -> str:
    """Return the name that `shown` made a cell of."""
    return _NUMBER.sub(lambda found: chr(int(found[1] or found[2] or found[3], 16)), cell.removeprefix("'"))


def _number(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
