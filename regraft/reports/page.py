"""A page before it is HTML or Markdown, and the templates that make either of it.

What a page shows is decided where it is made. Templates hold markup alone and escape whatever they are given: as HTML,
or in such a way that a Markdown table shows a name as it is. HTML pages need no network and run no script.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from regraft.core.errors import safe_text
from regraft.core.files import write_text
from regraft.reports.contact_sheet import Tile, draw_sheet, jpeg_of

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_TEMPLATES = Path(__file__).with_name("templates")
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~<>&@$]|:(?=//))")  # what Markdown, with its usual extensions, obeys


class Bold(str):
    """A sentence, or the value of a table's cell, in bold type."""


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading below the page's title."""

    kind: ClassVar = "heading"
    words: str


@dataclass(frozen=True, slots=True)
class Items:
    """A list with a bullet a line."""

    kind: ClassVar = "items"
    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class Table:
    """A table; cells are shown as text."""

    kind: ClassVar = "table"
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing."""

    kind: ClassVar = "chart"
    title: str  # for whoever cannot see it
    png: bytes


@dataclass(frozen=True, slots=True)
class Photos:
    """Thumbnails: one group without a name, or a row per named group."""

    kind: ClassVar = "photos"
    title: str  # for whoever cannot see them
    groups: list[tuple[str, list[Tile]]]


Block: TypeAlias = str | Heading | Items | Table | Chart | Photos


@dataclass(frozen=True, slots=True)
class Page:
    """What one stage found out, or a part of it."""

    key: str  # lower-case letters, digits and dashes: an artifact's key in Prefect, an anchor in HTML
    title: str
    blocks: Sequence[Block]


def write_page(path: Path, title: str, pages: Sequence[Page], screen: Any = None) -> None:
    """Write one HTML file with a table of contents.

    Args:
        path: of the file.
        title: of the file.
        pages: a section each.
        screen: from `regraft.reports.first_screen`, above the contents; None for none.
    """
    write_text(path, render("pages.html", title=title, pages=pages, screen=screen))


def to_markdown(page: Page) -> str:
    """Return a page as Markdown; its charts and photos are embedded."""
    return render("page.md", page=page)


def sentence(words: Any, *, as_html: bool) -> "Markup":
    """Return text in which pairs of backticks mark code, as in Markdown; an odd number of them means nothing."""
    from markupsafe import Markup, escape

    text = str(words).strip()
    parts = text.split("`")
    if as_html:
        plain, code = (lambda part: escape(safe_text(part))), Markup("<code>{}</code>").format
    else:
        plain, code = (lambda part: Markup(_escaped(part))), (lambda part: Markup(f"`{part}`"))  # noqa: S704 - escaped
    if len(parts) % 2 == 0:
        return plain(text)
    return Markup("").join(code(safe_text(part)) if place % 2 else plain(part) for place, part in enumerate(parts))


def render(template: str, **values: Any) -> str:
    """Return a template of this package, filled in; its suffix says how values are escaped."""
    kind: Literal["html", "md"] = "md" if template.endswith(".md") else "html"
    text = _environment(kind).get_template(template).render(values)
    # A block may be empty: Markdown means the same by any number of blank lines.
    return re.sub(r"\n{3,}", "\n\n", text).strip() if kind == "md" else text


def cell(value: Any) -> str:
    """Return Markdown that shows a value as it is, also in a table: it brings neither markup nor links."""
    text = _escaped(str(value)).strip()
    return f"**{text}**" if isinstance(value, Bold) else text


def _escaped(text: str) -> str:
    text = _MARKUP.sub(r"\\\1", safe_text(re.sub(r"\s+", " ", text)))
    return re.sub(r"\bwww\.", r"www\\.", text, flags=re.IGNORECASE)  # a link also without a scheme


@cache
def _environment(kind: Literal["html", "md"]) -> "Environment":
    """Return the templates; autoescape makes HTML of a value, `shown` before it Markdown or visible letters."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        if isinstance(value, Markup):
            return value
        return safe_text(str(value)) if kind == "html" else Markup(cell(value))  # noqa: S704 - escaped by `cell`

    def data_uri(contents: bytes, image: str) -> Markup:
        return Markup(f"data:image/{image};base64,{base64.b64encode(contents).decode()}")  # noqa: S704 - Base64

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (_TEMPLATES / "style.css").read_text(encoding="utf-8")
    environment.globals["style"] = Markup(style)  # noqa: S704 - ours
    environment.globals["style_digest"] = base64.b64encode(sha256(style.encode()).digest()).decode()
    environment.tests["bold"] = lambda value: isinstance(value, Bold)
    environment.filters["sentence"] = partial(sentence, as_html=kind == "html")
    environment.filters["png"] = lambda contents: data_uri(contents, "png")
    environment.filters["jpeg"] = lambda pixels: data_uri(jpeg_of(pixels), "jpeg")
    environment.filters["sheet"] = lambda groups: data_uri(draw_sheet(groups), "jpeg")
    return environment
