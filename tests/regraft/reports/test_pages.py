import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from markdown_it import MarkdownIt

from regraft.core.config import CardWords
from regraft.core.csv_files import write_csv
from regraft.core.files import read_json, write_json
from regraft.core.params_file import load_params
from regraft.core.statistics import wilson
from regraft.export.abstention import choose_threshold
from regraft.export.calibration import Calibration
from regraft.export.evaluation import (
    Novel,
    calibration_report,
    class_table,
    classification_report,
    outcome_of,
    reliability,
    risk_coverage,
    slice_table,
    write_confusion,
    write_parts,
    write_predictions,
)
from regraft.export.finishing import Parity
from regraft.features.drift import Drift
from regraft.features.extraction import Receipt
from regraft.photos.dataset import Dataset, write_dataset
from regraft.reports.first_screen import Circumstances
from regraft.reports.model_card import model_card
from regraft.reports.pages import pages_of, summary, write_html
from regraft.reports.sources import Sources
from regraft.training.heads import TrainedHead, write_leaderboard
from regraft.training.metrics import Epoch, Score, objective_of, write_curve
from regraft.training.network_file import HeadSettings
from regraft.validation.drift import histograms
from tests.support.library import sources_in
from tests.support.pipeline import STAGES

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</td></table><h1>x",
    "&lt;b&gt;",
    r"a\|b",
    "![x](https://example.org/x.png)",
]
HOSTILE += ["`code`", "__init__", "a\rb", "a\n\n# b"]
LEAK = {"split": "test", "other_split": "train", "similarity": 0.97}
LABEL_ERROR = {"split": "train", "suggested": "dog", "score": 0.0125}
EXPECTATION = {"name": "n", "severity": "error", "success": False, "expected": "few", "count": 1, "advice": "Fix it."}
WHY = {"precision": "int8, per channel", "words": "It is within the budget."}
COMPARED = {"accuracy": {"float32": 0.91, "int8": 0.905}, "difference": {"value": -0.005, "low": -0.03, "high": 0.01}}
INT8 = {"sha256": "1" * 64, "bytes": 1234567, "processor": "A processor, 2 cores, int8 by avx_vnni", **WHY}
INT8 |= {"test": {"images": 200, **COMPARED}, "abstention": "It answers every photo."}
DRIFT: dict[str, object] = {"quantity": "shorter_side", "photos": "joined", "against": "production"}
DRIFT |= {"then": 90, "now": 30, "psi": 0.5, "limit": 0.25}
LINEAR = HeadSettings(0, "relu", "adamw", 0.2, 0.001, 0.0, 0.05)
CURVE = [Epoch(0, None, Score(0.25, 1.5, 0.3, 1.6)), Epoch(1, 1.25, Score(0.75, 0.5, 0.7, 0.6))]
ACCURACY, RECALL = asdict(objective_of("none")), asdict(objective_of("balanced"))
UNSAID = CardWords(intended_use=None, not_for=None, licence=None, contact=None)
NOW = Circumstances("2026-11-25 19:14 UTC", "data/raw, MD5 0123", "git 4567")
LEADERS = [TrainedHead(LINEAR, [], CURVE, CURVE[1], np.ones(2, bool))] * 25


class Page(HTMLParser):
    """What a browser would find: tags, addresses, the text of cells, and how many cells each row of each table has."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str | None] = []
        self.cells: list[str] = []
        self.tables: list[list[int]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append(0)
        elif tag in ("td", "th"):
            self.tables[-1][-1] += 1
            self.cells.append("")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data.rstrip("\n")


@pytest.fixture(autouse=True)
def nothing_is_drawn(monkeypatch):
    """Charts have no pixels here: drawing a hundred of them takes minutes, and tests of their own look at them."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, png, **_: png.write(b"drawn"))


@pytest.fixture
def reports(tmp_path: Path) -> Callable[..., Sources]:
    """A function that writes the reports of all stages, with a class and a file of the given name."""

    def write(name: str = "cat", objective: dict[str, str] = ACCURACY) -> Sources:
        folder, splits = tmp_path / "reports", {"train": 6, "val": 2, "test": 2}
        trained = {"objective": objective, "val": asdict(CURVE[1].val), "epochs_run": 1}
        written = {
            "validation": {
                "success": False,
                "layout": "classes",
                "files": {"use": 10, "quarantine": 1, "ignore": 0},
                "classes": {name: 10},
                "expectations": [EXPECTATION | {"found": name, "offenders": [name], "paths": [name]}],
                "compared_with": f"Compared with the photos of {name}.",
                "drift": [DRIFT | {"words": name}],
                "statistics": histograms(pd.DataFrame({"contrast": [0.1, 0.2]}), None, {"contrast": (0.02, None)}),
                "not_used": [{"path": name, "verdict": "quarantine", "reason": f"broken: {name}"}],
            },
            "dataset": {
                "layout": "classes",
                "images": 20,
                "copies_left_out": 0,
                "left_out": [{"path": name, "why": "its group is in test", "was_elsewhere": False}],
                "splits": {split: 2 * count for split, count in splits.items()},
                "classes": {name: splits, "dog": splits},
                "not_in_test": [name],
                "groups": {"groups": 15, "photos_in_larger": 8, "given": 2},
                "slices": {name: {"values": 40, "images": {name: 18}, "without": 1}},
                "given_splits": 0,
                "kept_splits": 3,
                "absent_splits": 1,
                "note": f"{name} was damaged.",
            },
            "features": Receipt(20, 1, 20, 8, 12, 0.5, 24.0, 0.25, 123456, "an engine").as_report(),
            "embeddings": {
                "success": True,
                "images": 20,
                "looked_at": 20,
                "namespace": "features-0",
                "expectations": [EXPECTATION | {"found": name, "offenders": [name]}],
                "leaks": [LEAK | {"path": name, "other_path": name}],
                "label_errors": [LABEL_ERROR | {"path": name, "label": name}] * 25,
                "outliers": [{"path": name, "label": name, "distance": 3.25}],
                "drift": [{"against": "production", "compared_with": f"With those of {name}.", "figures": None}],
            },
            "head": {
                **trained,
                "settings": asdict(LINEAR),
                "best_epoch": 1,
                "accuracy": asdict(wilson(3, 4)),
                "probes": dict.fromkeys(("majority", "nearest_centroid", "nearest_neighbours"), asdict(wilson(2, 4))),
                "learning_curve": {"1": asdict(wilson(1, 4)), "8": asdict(wilson(1, 4))},
                "photos": {"trained_on": 12, "compared_on": 8, "val": 4},
                "words": ["Transfer works."],
            },
            "base": {"words": f"The base is renewed: class {name} came.", "left_out": {"test": 3}},
            "base_training": {"reason": "The base was trained on 20 photos."},
            "fine_tune": {"reason": "It is used, because it is better.", **trained},
            "export": {
                "sha256": "0" * 64,
                "bytes": 123,
                "trained": "top",
                "parity": {"val photos": asdict(Parity(4, 0.1, 0.1, 1.0, 0.0))},
                "calibration": asdict(Calibration(1.0, 0.9, 40, 0.5, 0.0, "Probabilities are as they were trained.")),
                "novel_above": 0.4,
                "novel_share": 1 / 21,
                "abstention": asdict(choose_threshold(np.ones(200, bool), np.linspace(1, 0.5, 200), 0.9)),
            },
            "int8": INT8,
            "metrics": {
                "test": classification_report(np.array([0, 1]), np.eye(2)[[0, 0]], np.array(["a", "b"]), bins=2)
            },
        }
        right, groups = np.arange(40) < 30, np.arange(40).astype(str)
        written["abstention"] = asdict(outcome_of(None, right, np.ones(40), groups))
        said, facts = np.eye(2)[[0, 0, 1]] * 0.6 + 0.2, {"temperature": "0.5"}
        written["calibration"] = calibration_report(np.array([0, 1, 1]), said, facts, bins=5)
        written["calibration"]["novel"] = asdict(Novel.of(np.array([0.1, 0.5, 0.2]), 0.4, 1 / 21))
        write_csv(folder / "reliability.csv", reliability(np.array([0, 1, 1]), said, facts, bins=5))
        for report, contents in written.items():
            write_json(folder / f"{report}.json", contents)
        write_leaderboard(folder / "leaderboard.csv", LEADERS)
        columns = ["digest", "path", "class_name", "class_index", "split", "format"]
        rows = pd.DataFrame([("0", name, name, 0, "test", "PNG")], columns=columns)
        dataset, said = Dataset(rows, [name, "dog"], tmp_path / "raw"), np.array([[0.25, 0.75]])
        write_dataset(tmp_path / "dataset.parquet", dataset)
        write_predictions(folder / "predictions.csv", dataset, said)
        write_confusion(folder / "confusion.csv", dataset, said)
        slices = pd.DataFrame({name: [name, "x"] * 20, "light": ["night"] * 20 + ["day"] * 20})
        write_parts(folder / "classes.csv", class_table([name, "dog"], np.zeros(40, int), right, groups))
        write_parts(folder / "slices.csv", slice_table(slices, right, groups))
        write_csv(folder / "risk_coverage.csv", risk_coverage(right, np.linspace(1, 0.5, 40)))
        for phase in ("head", "base", "fine_tune"):
            write_curve(folder / f"{phase}_curve.csv", CURVE)
        model = onnx.ModelProto()
        preprocessing = {"image_size": 32, "crop_fraction": 0.5}
        onnx.helper.set_model_props(model, {"preprocessing": json.dumps(preprocessing)})
        onnx.save(model, tmp_path / "model.onnx")
        return sources_in(tmp_path)

    return write


def html_of(sources: Sources) -> str:
    path = sources.reports / "report.html"
    write_html(path, sources, NOW)
    return path.read_text(encoding="utf-8")


def page_of(sources: Sources, stage: str, key: str) -> str:
    return pages_of(stage, sources)[key].replace("\\", "")


def change(sources: Sources, report: str, **changes: object) -> None:
    path = sources.reports / f"{report}.json"
    write_json(path, read_json(path) | changes)


def kinds(addresses: list[str | None]) -> list[str]:
    """Addresses without the pixels of pictures, in which names may be drawn."""
    return [str(address).partition(",")[0] for address in addresses]


def test_the_html_page_holds_the_pages_of_all_stages_and_links_to_each(reports):
    sources = reports()
    assert [stage for stage in STAGES if not pages_of(stage, sources)] == []
    keys = [key for stage in [*STAGES, "promote_model", "measure"] for key in pages_of(stage, sources)]
    assert [key for key in keys if not re.fullmatch("[a-z0-9-]+", key)] == []  # what Prefect allows
    page = html_of(sources)
    assert sorted(re.findall('<section id="(.*?)">', page)) == sorted(keys)
    assert sorted(address[1:] for address in kinds(Page(page).addresses) if address.startswith("#")) == sorted(keys)


def test_the_html_page_needs_no_network_and_runs_nothing(reports):
    page = html_of(reports())
    addresses = {re.sub("#.*", "#", kind) for kind in kinds(Page(page).addresses)}
    assert addresses == {"#", "validation.html", "data:image/png;base64", "data:image/jpeg;base64"}
    assert "http" not in re.sub('http-equiv|"data:.*?"', "", page)
    assert Page(page).tags.isdisjoint({"script", "iframe", "object", "embed", "form", "link"})
    (policy,) = re.findall('<meta http-equiv="Content-Security-Policy" content="(.*?)">', page)
    assert page.index("Content-Security-Policy") < min(page.index("<title"), page.index("<style"), page.index("<img"))
    assert 'name="referrer" content="no-referrer"' in page
    style = page.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.split("; ")[:3] == ["default-src 'none'", "img-src data:", f"style-src 'sha256-{digest}'"]


def test_a_name_breaks_no_table_brings_no_markup_into_the_page_and_is_shown_as_it_is(reports):
    plain = Page(html_of(reports("cat")))
    for name in HOSTILE:
        hostile = Page(html_of(reports(name)))
        assert hostile.tables == plain.tables, name
        assert (hostile.tags, kinds(hostile.addresses)) == (plain.tags, kinds(plain.addresses)), name
        # A line end is shown as a space, a carriage return as its number.
        assert re.sub(r"\s+", " ", name.replace("\r", "\\r")) in [re.sub(r"\s+", " ", cell) for cell in hostile.cells]


def test_a_name_brings_no_markup_into_the_model_card(reports):
    renderer = MarkdownIt("gfm-like", {"html": True, "linkify": False}).enable("table")
    plain, *others = (Page(renderer.render(model_card(reports(each), NOW, UNSAID))) for each in ("cat", *HOSTILE))
    for name, hostile in zip(HOSTILE, others, strict=True):
        assert (hostile.tags, hostile.addresses, hostile.tables) == (plain.tags, plain.addresses, plain.tables), name


FIGURES = {
    ("train_head", "head"): """
        Transfer works.
        Leaderboard: 25 tried, the first 20
        | 20 | 0 | relu | adamw | 0.2 | 0.001 | 0 | 0.05 | 0.7500 | 0.5000 | 1 |
        | the head, with 8 training photos | 25.0% (4.6% to 69.9%) |
        compared on 8 of 12 training photos, and 4 of val; the best was then trained on all 12.""",
    ("validate_data", "validation"): """
        Compared with the photos of cat.
        | shorter side | only those that joined: 30 | the model in production | cat | 0.500 | 0.250 | **moved** |""",
    ("check_features", "photos-by-features"): """
        | cat | test | cat | train | 0.970 |
        Labels that are likely wrong: 25, the first 20
        | cat | train | cat | dog | 0.0125 |
        | cat | cat | 3.2 |
        With those of cat.""",
    ("evaluate", "parts"): """
        2 test photos tell as much as 2
        | cat | 40 | 75.0% (60% to 86%) |  |
        | dog | 0 | - | few photos |
        | light | day | 20 | 50.0% (30% to 70%) | **worse than the rest** |
        | light | night | 20 | 100.0% (84% to 100%) | **better than the rest** |""",
    # Two of three are right, with 0.8; without the temperature of 0.5, with 0.8 / (1 + sqrt(0.2 / 0.8)) = 2 / 3.
    ("evaluate", "calibration"): """
        | log loss | 0.6365 | 0.6852 |
        Of 3 test photos 33.3% (6.1% to 79.2%) are called novel; 4.8% were expected.""",
    ("evaluate", "abstention"): """
        Whatever the probability, at least 90% of answers are right (95% confidence)
        Of 40 test photos 100.0% (91.2% to 100.0%) are answered, and 75.0% (59.8% to 85.8%) of these""",
}


@pytest.mark.parametrize(("stage", "key"), FIGURES)
def test_a_page_has_the_figures_of_its_stage(reports, stage, key):
    page = page_of(reports(), stage, key)
    assert [line for line in FIGURES[stage, key].strip().split("\n") if line.strip() not in page] == []


@pytest.mark.parametrize(
    ("stage", "key", "report", "changes", "words"),
    [
        ("quantise", "int8", "int8", {"words": "quantise.mode is off", "test": None}, "quantise.mode is off"),
        (
            "check_features",
            "photos-by-features",
            "embeddings",
            {"drift": [{"compared_with": "With it.", "figures": asdict(Drift(500, 60, 0.5, 0.4, 0.25, 0.1, 1, 2))}]},
            "With it. 60 new photos and one half of 500",
        ),
        (
            "validate_data",
            "validation",
            "validation",
            {"expectations": [EXPECTATION | {"found": "8", "offenders": [f"{name}.jpg" for name in "abcdefgh"]}]},
            "| a.jpg; b.jpg; c.jpg; ... | Fix it. |",
        ),
    ],
)
def test_a_page_follows_its_report(reports, stage, key, report, changes, words):
    sources = reports()
    change(sources, report, **changes)
    assert words in page_of(sources, stage, key)


def test_test_photos_are_listed_apart_with_the_advice_not_to_relabel_by_the_list_alone(reports):
    sources = reports()
    assert "In the test split" not in page_of(sources, "check_features", "photos-by-features")
    of_test, of_train = ({"path": f"{split}.jpg", "label": "cat", "split": split} for split in ("test", "train"))
    change(sources, "embeddings", label_errors=[LABEL_ERROR | of_test, LABEL_ERROR | of_train])
    page = page_of(sources, "check_features", "photos-by-features")
    before, apart = page.split("In the test split this list alone is no ground to relabel")
    assert "| train.jpg | train | cat | dog |" in before
    assert "| test.jpg | test | cat | dog |" in apart


def test_the_figures_of_a_head_are_those_that_it_was_judged_by(reports):
    sources = reports(objective=RECALL)
    header = next(line for line in page_of(sources, "train_head", "head").splitlines() if "learning rate" in line)
    assert "val macro recall" in header
    assert "val balanced log loss" in header
    assert "val accuracy" not in header
    curve = page_of(sources, "train_head", "head-curve")
    assert re.search(r"on val macro recall 0\.700 \(balanced log loss 0\.600\)", curve)


def test_the_model_card_has_the_sections_of_a_model_card_and_the_digest_of_its_file(reports):
    card = model_card(reports(), NOW, UNSAID)
    assert len(re.findall("(?m)^## (.*)$", card)) == 10
    assert "SHA-256 " + "0" * 64 in card
    assert card.count("Nobody has said") == 3
    assert "| cat | 6 | 2 | 2 |" in card
    assert "Too few test photos to tell: dog." in card
    assert "Worse than on the rest, by more than chance: light = day." in card
    assert card.count("Not measured yet. `regraft report --measure` measures it") == 2


def test_what_people_say_of_the_model_stands_in_its_card_as_text(reports):
    words = CardWords(intended_use="To <b>sort</b>.\n\nIn a shop.", not_for="*Money*.", licence="MIT", contact="a@b.c")
    card = model_card(reports(), NOW, words)
    assert "## Intended use\n\nTo \\<b\\>sort\\</b\\>.\n\nIn a shop.\n\nIt says which of 2 classes" in card
    assert "## What it must not be used for\n\n\\*Money\\*.\n\n- Photos of something else" in card
    assert "| licence of this model | MIT |" in card
    assert "Nobody has said" not in card


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (None, "12 forward passes, 8 of 20"),
        ({}, "0 forward passes.*nothing ran: all was up to date"),
        ({"cache_features": "Ran"}, "12 forward passes, 8 of 20.*ran: cache_features"),
    ],
)
def test_the_summary_tells_of_accuracy_the_work_of_this_run_and_where_to_look(
    reports, root, tmp_path, monkeypatch, work, said
):
    change(reports(), "metrics", answered={"abstain_below": 0.8125, "coverage": 0.75, "precision": 0.99})
    params = load_params(root / "params.yaml")
    monkeypatch.chdir(tmp_path)
    params.paths.onnx.parent.mkdir(parents=True)
    params.paths.onnx.write_bytes(bytes(1234))
    assert re.search(
        r"(?s)0\.5000 \(0\.0945 to 0\.9055\) on 2 photos.*below 0\.8125; the other 75% of test photos.*99\.0% of them.*"
        rf"{params.paths.onnx} \(1\.2 kB\).*receipt +{said}.*report\.html",
        summary(params, work),
    )
