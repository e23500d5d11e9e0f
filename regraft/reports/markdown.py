"""Markdown that shows what it is given: tables and pictures for the Prefect UI and for HTML pages."""

import base64
import re
from pathlib import Path
from typing import Any

PNG = "data:image/png;base64,"


def table(header: list[str], rows: list[list[Any]]) -> str:
    """Return a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell(value) for value in line) + " |" for line in lines)


def cell(value: Any) -> str:
    """Return a table cell that shows what it is given: a file name can neither break the table nor bring markup."""
    text = re.sub(r"([\\`*_{}\[\]()#+!|~<>&])", r"\\\1", " ".join(str(value).split()))
    return f"**{text}**" if isinstance(value, Bold) else text


class Bold(str):
    """A cell in bold type."""


def picture(path: Path, title: str) -> str:
    """Return a PNG file as an embedded image."""
    return f"![{title}]({PNG}{base64.b64encode(path.read_bytes()).decode()})"
