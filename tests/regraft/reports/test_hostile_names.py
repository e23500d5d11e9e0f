"""Class names that are made to do something in a page or in Markdown."""

import html
import re
from html.parser import HTMLParser

from markdown_it import MarkdownIt

from regraft.reports.page import Page, Table, cell, to_markdown

NAMES = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "]]>{{constructor}}",
    "{scripts}{plot_divs}",
    "![x](https://example.org/a.png)",
    "[x](javascript:alert(1))",
    "https://example.org",
    "www.example.org",
    "<https://example.org>",
    "someone@example.org",
    "&lt;b&gt;",
    "a\x1b]0;owned\x07b",
    "a\u202egpj.exe",
    "$\\frac{",
    "$x$ \\$",
    "| a | b |",
    "\ufffe\u200b\U0001f469\u200d\U0001f52c",
    "=cmd|' /C calc'!A0",
    "x" * 5000,
]


class Elements(HTMLParser):
    """The elements of a page, with their attributes, and what scripts hold."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def tags(self) -> list[str]:
        return [tag for tag, _ in self.found]


def words_of(page: str) -> str:
    """The words of a page as a person reads them."""
    text = html.unescape(re.sub("<[^>]*>", " ", page.partition("<body>")[2]))
    return re.sub(r" (?=[:;.])", "", " ".join(text.split()))


def test_markdown_has_no_link_picture_or_markup_from_a_name():
    renderer = MarkdownIt("gfm-like", {"html": True, "linkify": False}).enable("table")
    for name in NAMES:
        page = renderer.render(to_markdown(Page("key", name, [Table(["name", "other"], [[name, name]]), name])))
        assert set(Elements(page).tags()) <= {"h1", "table", "thead", "tbody", "tr", "th", "td", "p"}, name
        assert not re.search(r"(https?|ftp)://|www\.|[^\\\s]@\S", cell(name)), "what browsers' renderers make links of"
        assert not set("\x1b\x07\u202e") & set(page)
