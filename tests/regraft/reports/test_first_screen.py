import html
import re
from pathlib import Path

import pytest

from regraft.core.files import sha256_of, write_json
from regraft.production.registry import Production
from regraft.reports.first_screen import Circumstances, first_screen
from regraft.reports.page import render
from regraft.reports.sources import Sources
from tests.support.library import sources_in

NOW = Circumstances("2026-11-25 19:14 UTC", "data/raw, MD5 0123", "git 4567, and not committed: params.yaml")
BETTER = {"images": 200, "accuracy": 0.9, "accuracy_low": 0.851, "accuracy_high": 0.934}
WORSE = {"images": 200, "accuracy": 0.8, "accuracy_low": 0.739, "accuracy_high": 0.8496}


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """A run whose model is right on 180 of 200 test photos; nothing is in production."""
    reports = tmp_path / "reports"
    (tmp_path / "model.onnx").write_bytes(b"new")
    (tmp_path / "dataset.parquet").write_bytes(b"photos")
    met, missed = ({"success": success, "expected": f"photos that are {success}"} for success in (True, False))
    written = {
        "metrics": {"test": BETTER},
        "export": {"sha256": sha256_of(tmp_path / "model.onnx"), "bytes": 12_345_678},
        "validation": {"files": {"use": 1000, "quarantine": 3, "ignore": 1}, "expectations": [met, missed]},
        "dataset": {"images": 1000, "classes": {"a": {}, "b": {}}, "splits": {"train": 600, "val": 200, "test": 200}},
        "features": {"computed": 40, "from_store": 960, "rows": 1000, "seconds": 1.25, "seconds_saved": 30.0},
        "embeddings": {"expectations": [met]},
        "fine_tune": {"reason": "Shipped weights: fine-tuned. It is better; 6 photos <say> so."},
    }
    for name, contents in written.items():
        write_json(reports / f"{name}.json", contents)
    return sources_in(tmp_path)


def say(sources: Sources, *, is_accepted: bool, words: str, champion: dict | None) -> None:
    """Write what the gate said of this model."""
    about = {"model": sha256_of(sources.onnx), "dataset": sha256_of(sources.dataset_file)}
    name = "Promoted" if is_accepted else "Refused"
    verdict = {"about": about, "name": name, "is_accepted": is_accepted, "words": words, "champion": champion}
    write_json(sources.reports / "gate.json", verdict)


def put_into_production(sources: Sources, contents: bytes, words: str) -> None:
    path = sources.onnx.with_name("other.onnx")
    path.write_bytes(contents)
    Production(sources.production).promote(path, words, keep=1)


def seen(sources: Sources) -> str:
    """The first screen as a person reads it; code is in backticks."""
    page = re.sub("</?code>", "`", render("first_screen.html", screen=first_screen(sources, NOW)))
    return re.sub(r"\s+", " ", html.unescape(re.sub("<.*?>", " ", page)))


def test_a_model_that_is_in_production_is_told_with_the_reason_and_beside_the_one_before_it(sources):
    put_into_production(sources, b"new", "Accepted: 0.9000 against 0.8000.")
    say(sources, is_accepted=True, words="Accepted.", champion=WORSE)
    text = seen(sources)
    assert re.search(r"In production since 2\d{3}-\d\d-\d\d \d\d:\d\d UTC Accepted: 0\.9000 against 0\.8000\.", text)
    assert "90.0% This model: accuracy on 200 test photos; 95% interval 85.1% to 93.4%" in text
    assert "80.0% The one before it: accuracy on 200 test photos; 95% interval 73.9% to 85.0%" in text


def test_a_model_that_was_refused_is_told_with_the_reason_and_beside_the_one_in_production(sources):
    put_into_production(sources, b"old", "First model in production.")
    say(sources, is_accepted=False, words="Refused: it is worse.", champion=BETTER)
    text = seen(sources)
    assert "Refused It is worse." in text
    assert "90.0% The one in production" in text


def test_a_model_that_the_gate_has_not_seen_is_neither_in_production_nor_compared(sources):
    assert "Not in production No model is in production. `regraft promote` asks the gate" in seen(sources)
    put_into_production(sources, b"old", "First model in production.")
    text = seen(sources)
    assert re.search(r"Not in production Another model is \(\w{12}, since .* UTC: First model in production\.\)", text)
    assert "The one in production: not compared yet." in text


def test_a_model_that_was_accepted_and_rolled_back_is_not_in_production(sources):
    put_into_production(sources, b"old", "First model in production.")
    put_into_production(sources, b"new", "Accepted.")
    say(sources, is_accepted=True, words="Accepted.", champion=WORSE)
    Production(sources.production).rollback()
    text = seen(sources)
    assert re.search(r"Kept out It was rolled back from at 2\d{3}-.* UTC: Rolled back from \w{12}", text)
    assert "`regraft promote --force REASON` lets this one in again" in text


def test_a_damaged_model_in_production_is_told_with_what_repairs_it(sources):
    put_into_production(sources, b"new", "First model in production.")
    (sources.production / "model.onnx").write_bytes(b"ne")
    text = seen(sources)
    assert re.search(r"Production is damaged .*model\.onnx is damaged: it has other bytes", text)
    assert "`regraft promote --rollback` repairs it" in text


def test_the_first_screen_says_what_the_run_was_made_of(sources):
    text = seen(sources)
    for words in [
        "1,000 in 2 classes (600 train, 200 val, 200 test); 3 quarantined",
        "2 of 3 met; not met: photos that are False",
        "Shipped weights: fine-tuned. It is better.",
        "40 forward passes of the backbone, 960 of 1000 views from the store; 1.2 s spent, 30.0 s saved",
        "model.onnx, 12.3 MB, sha256",
        "data/raw, MD5 0123",
        "git 4567, and not committed: params.yaml",
        "2026-11-25 19:14 UTC",
    ]:
        assert words in text


def test_words_cannot_bring_markup_into_the_first_screen(sources):
    write_json(sources.reports / "fine_tune.json", {"reason": "<script>alert(1)</script>"})
    put_into_production(sources, b"new", "<img src=x onerror=alert(1)>")
    text = render("first_screen.html", screen=first_screen(sources, Circumstances("<b>", "<i>", "<u>")))
    assert re.findall("<(script|img|b|i|u)>?(?! )", text.replace("<b>90.0%", "").replace("<b>-", "")) == []
