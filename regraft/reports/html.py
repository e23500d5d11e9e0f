"""Self-contained HTML pages: Markdown, embedded pictures, and thumbnails of photos; no network, no script."""

import base64
import html
import re
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from regraft.files import write_text
from regraft.reports.markdown import PNG

_JPEG = "data:image/jpeg;base64,"
_JPEG_QUALITY = 80

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1f2328; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
section {{ border-top: 1px solid #d1d9e0; margin-top: 2rem; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; }}
th, td {{ border: 1px solid #d1d9e0; padding: 0.25rem 0.6rem; text-align: left; }}
img {{ max-width: 100%; }}
.photos {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 0.8rem; }}
figure {{ margin: 0; }}
figcaption {{ font-size: 12px; color: #57606a; overflow-wrap: anywhere; }}
</style></head><body><h1>{title}</h1>
{sections}
</body></html>
"""


def write_page(path: Path, title: str, pages: list[str]) -> None:
    """Write one HTML file.

    Args:
        path: of the file.
        title: of the page.
        pages: a section each, as Markdown in which pictures are embedded as PNG, or as HTML from `gallery`.
    """
    from markdown_it import MarkdownIt

    # html=False: a class or file name cannot bring markup into the page.
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table")
    renderer.validateLink = lambda url: url.startswith(PNG)  # type: ignore[method-assign]
    # The renderer goes through a link letter by letter, seconds for a picture: it is given a number in its place.
    pictures: list[str] = []

    def number(match: re.Match[str]) -> str:
        pictures.append(match[1])
        return f"{PNG}{len(pictures) - 1})"

    def rendered(page: str) -> str:
        return page if isinstance(page, _Html) else renderer.render(page)

    numbered = [
        page if isinstance(page, _Html) else re.sub(rf"{re.escape(PNG)}([A-Za-z0-9+/=]+)\)", number, page)
        for page in pages
    ]
    sections = "\n".join(f"<section>{rendered(page)}</section>" for page in numbered)
    sections = re.sub(rf'"{re.escape(PNG)}(\d+)"', lambda match: f'"{PNG}{pictures[int(match[1])]}"', sections)
    write_text(path, _PAGE.format(title=html.escape(title), sections=sections))


def gallery(title: str, words: str, tiles: list[tuple[np.ndarray, str]]) -> str:
    """Return thumbnails with a line of text below each, as a section of a page.

    Args:
        title: heading.
        words: a sentence below it.
        tiles: uint8 RGB, shape (height, width, 3), and the text.
    """
    figures = "\n".join(
        f'<figure><img src="{_JPEG}{_encoded(pixels)}" alt=""><figcaption>{html.escape(text)}</figcaption></figure>'
        for pixels, text in tiles
    )
    return _Html(f'<h2>{html.escape(title)}</h2><p>{html.escape(words)}</p><div class="photos">\n{figures}\n</div>')


class _Html(str):
    """A section that is HTML already."""


def _encoded(pixels: np.ndarray) -> str:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_JPEG_QUALITY)
    return base64.b64encode(file.getvalue()).decode()
