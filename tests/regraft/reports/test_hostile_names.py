"""Class names that are made to do something: in DVC's plots, in a browser, in Markdown, in a picture."""

import html
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt

from regraft.export.evaluation import write_predictions
from regraft.photos.dataset import Dataset
from regraft.reports.charts import class_balance_chart, confusion_chart
from regraft.reports.contact_sheet import Tile
from regraft.reports.page import Page, Photos, Table, cell, to_markdown, write_page

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


ATTRIBUTES = {"lang", "charset", "name", "content", "http-equiv", "href", "id", "class", "src", "alt"}


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


def page_of_plots(folder: Path, names: list[str]) -> Elements:
    """What `dvc plots show` makes of predictions on classes of these names."""
    rows = pd.DataFrame({"path": names, "class_name": names, "class_index": range(len(names))})
    write_predictions(folder / "reports" / "predictions.csv", Dataset(rows, names, folder), np.eye(len(names)))
    (folder / "dvc.yaml").write_text(
        "plots: [{reports/predictions.csv: {template: confusion, x: actual, y: predicted}}]\n"
    )
    for command in (["init", "--no-scm", "--quiet"], ["plots", "show"]):
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *command], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    return Elements((folder / "dvc_plots" / "index.html").read_text(encoding="utf-8"))


def test_a_class_name_brings_no_element_into_the_page_of_dvc_plots(tmp_path):
    plain, hostile = (tmp_path / "plain", tmp_path / "hostile")
    for folder in (plain, hostile):
        folder.mkdir()
    expected = page_of_plots(plain, [f"class {number}" for number in range(len(NAMES))])
    assert page_of_plots(hostile, NAMES).found == expected.found


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A page with every kind of block, and the names in each."""
    tiles = [Tile(np.zeros((8, 8, 3), np.uint8), name) for name in NAMES]
    blocks = [Table(["name"], [[name] for name in NAMES]), " ".join(NAMES), Photos("names", [("", tiles)])]
    blocks.append(Photos("rows", [(name, tiles[:1]) for name in NAMES]))
    write_page(tmp_path / "report.html", NAMES[0], [Page("names", NAMES[0], blocks)])
    return tmp_path / "report.html"


def test_a_page_has_the_elements_that_we_write_and_no_others(report):
    elements = Elements(report.read_text(encoding="utf-8"))
    ours = "html head meta title style body h1 h2 h4 nav ul li a section div table thead tbody tr th td p img figure"
    assert set(elements.tags()) <= {*ours.split(), "figcaption", "br"}
    for tag, attributes in elements.found:
        assert set(attributes) <= ATTRIBUTES
        assert tag != "a" or str(attributes["href"]).startswith("#")
        assert tag != "img" or re.match("data:image/(png|jpeg);base64,", str(attributes["src"]))


def test_the_policy_comes_before_whatever_it_rules_and_no_referrer_is_sent(report):
    names = [
        attributes.get("http-equiv") or attributes.get("name")
        for tag, attributes in Elements(report.read_text(encoding="utf-8")).found
        if tag == "meta"
    ]
    page = report.read_text(encoding="utf-8")
    assert page.index("Content-Security-Policy") < min(page.index("<title"), page.index("<style"), page.index("<img"))
    assert {"Content-Security-Policy", "referrer"} <= set(names)
    assert 'name="referrer" content="no-referrer"' in page


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no browser")
def test_a_browser_applies_the_styles_of_a_page_and_refuses_nothing_of_it(report, tmp_path):
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run(
        [*command, f"--user-data-dir={tmp_path / 'profile'}", report.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "<title>" in done.stdout
    assert "CONSOLE" not in done.stderr  # where a refusal is told


def test_markdown_has_no_link_picture_or_markup_from_a_name():
    renderer = MarkdownIt("gfm-like", {"html": True, "linkify": False}).enable("table")
    for name in NAMES:
        page = renderer.render(to_markdown(Page("key", name, [Table(["name", "other"], [[name, name]]), name])))
        assert set(Elements(page).tags()) <= {"h1", "table", "thead", "tbody", "tr", "th", "td", "p"}, name
        assert not re.search(r"(https?|ftp)://|www\.|[^\\\s]@\S", cell(name)), "what browsers' renderers make links of"
        assert not set("\x1b\x07\u202e") & set(page)


def test_a_picture_is_drawn_whatever_its_classes_are_called():
    assert class_balance_chart(dict.fromkeys(NAMES, 3)).startswith(b"\x89PNG")
    matrix = pd.DataFrame(np.eye(len(NAMES), dtype=int), index=pd.Index(NAMES), columns=NAMES)
    assert confusion_chart(matrix).startswith(b"\x89PNG")
