"""Self-contained HTML pages: Markdown, charts and thumbnails of photos; no network, no script."""

import base64
import html
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from regraft.errors import safe_text
from regraft.files import write_text
from regraft.reports.blocks import Block, Chart, Page, Photos, Tile
from regraft.reports.document import document
from regraft.reports.style import STYLE
from regraft.reports.thumbnails import to_jpeg

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

_BODY = """{first}
<nav><h2>Contents</h2><ul>
{contents}
</ul></nav>
{sections}"""


def write_page(path: Path, title: str, pages: list[Page], first: str = "") -> None:
    """Write one HTML file with a table of contents.

    Args:
        path: of the file.
        title: of the page.
        pages: a section each.
        first: HTML above the contents.
    """
    renderer = _renderer()
    contents = "\n".join(f'<li><a href="#{page.key}">{html.escape(page.title)}</a></li>' for page in pages)
    sections = "\n".join(_section(renderer, page) for page in pages)
    body = _BODY.format(first=first, contents=contents, sections=sections)
    write_text(path, document(title, body, STYLE))


def _renderer() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    # html=False: a class or file name cannot bring markup into the page; nor can it bring a link or a picture.
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table")
    renderer.validateLink = lambda url: False  # type: ignore[method-assign]
    return renderer


def _section(renderer: "MarkdownIt", page: Page) -> str:
    blocks = "\n".join(_block(renderer, block) for block in page.blocks)
    return f'<section id="{page.key}"><h2>{html.escape(page.title)}</h2>\n{blocks}</section>'


def _block(renderer: "MarkdownIt", block: Block) -> str:
    if isinstance(block, Chart):
        return f'<div class="wide"><img class="chart" src="{_png(block.png)}" alt="{html.escape(block.title)}"></div>'
    if isinstance(block, Photos):
        return "\n".join(_group(name, tiles) for name, tiles in block.groups)
    tokens = renderer.parse(block)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = "h3"  # below the section's own heading
    text = renderer.renderer.render(tokens, renderer.options, {})
    return text.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")


def _group(name: str, tiles: list[Tile]) -> str:
    """A grid of thumbnails, or a row that scrolls sideways where the group has a name."""
    figures = "".join(
        f"<figure>{_pictures(tile)}<figcaption>{_lines(tile.caption)}</figcaption></figure>"
        if tile.caption
        else _pictures(tile)
        for tile in tiles
    )
    if name:
        return f'<h4>{html.escape(safe_text(name))}</h4><div class="row">{figures}</div>'
    kind = "photos strips" if any(tile.beside for tile in tiles) else "photos"
    return f'<div class="{kind}">{figures}</div>' if tiles else "<p>None.</p>"


def _pictures(tile: Tile) -> str:
    first, *others = (f'<img src="{_jpeg(pixels)}" alt="">' for pixels in (tile.pixels, *tile.beside))
    return f'<div class="strip">{first}{"".join(others)}</div>' if others else first


def _lines(text: str) -> str:
    return html.escape(safe_text(text)).replace("\n", "<br>")


def _png(contents: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(contents).decode()}"


def _jpeg(pixels: np.ndarray) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(to_jpeg(Image.fromarray(pixels))).decode()}"
