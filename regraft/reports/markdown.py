"""Markdown that shows what it is given: the pages in the Prefect UI, and the tables of the HTML pages."""

import base64
import re
from typing import Any

from regraft.errors import safe_text
from regraft.reports.blocks import Chart, Page, Photos


def to_markdown(page: Page) -> str:
    """Return a page as Markdown; its charts and photos are embedded."""
    return "\n\n".join([f"# {page.title}", *(_text(block) for block in page.blocks)])


def table(header: list[str], rows: list[list[Any]]) -> str:
    """Return a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell(value) for value in line) + " |" for line in lines)


def cell(value: Any) -> str:
    """Return a table cell that shows what it is given: a name can neither break the table nor bring markup or links."""
    text = re.sub(r"([\\`*_{}\[\]()#+!|~<>&@$]|:(?=//))", r"\\\1", safe_text(" ".join(str(value).split())))
    text = re.sub(r"\bwww\.", r"www\\.", text, flags=re.IGNORECASE)  # a link also without a scheme
    return f"**{text}**" if isinstance(value, Bold) else text


class Bold(str):
    """A cell in bold type."""


def _text(block: str | Chart | Photos) -> str:
    if isinstance(block, str):
        return block
    if isinstance(block, Chart):
        kind, contents = "png", block.png
    else:
        from regraft.reports.thumbnails import draw_sheet  # it reads photos, and a page of words needs none of that

        kind, contents = "jpeg", draw_sheet(block.groups)
    return f"![{block.title}](data:image/{kind};base64,{base64.b64encode(contents).decode()})"
