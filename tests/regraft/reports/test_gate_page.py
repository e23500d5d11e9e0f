"""The page of the gate's verdict."""

from pathlib import Path

import pytest

from regraft.core.files import finite, sha256_of, write_json
from regraft.reports.gate_page import gate_page, read_gate
from regraft.reports.page import to_markdown
from regraft.reports.sources import Sources
from tests.support.gate import CLASSES, Answering, dataset_of, digest_of, former_of, gate_of
from tests.support.library import sources_in

LABELS = [CLASSES[number % 3] for number in range(90)]
RIGHT = {digest_of(number): label for number, label in enumerate(LABELS)}


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """A run whose model lost 20 of 90 test photos."""
    (tmp_path / "model.onnx").write_bytes(b"new")
    (tmp_path / "dataset.parquet").write_bytes(b"photos")
    lost = RIGHT | {digest_of(number): CLASSES[(number + 1) % 3] for number in range(20)}
    trial = gate_of(Answering(lost), dataset_of(LABELS))
    verdict = trial.verdict(former_of(Answering(RIGHT)), (), warnings=["A <b>warning</b>."], looks=3)
    sources = sources_in(tmp_path)
    about = {"model": sha256_of(sources.onnx), "dataset": sha256_of(sources.dataset_file)}
    said = {"about": about, "name": verdict.name, "is_accepted": verdict.is_accepted, "words": verdict.words}
    write_json(sources.reports / "gate.json", finite({**said, **verdict.figures}))
    return sources


def test_the_page_has_the_sentence_the_counts_and_the_parts(sources: Sources) -> None:
    page = to_markdown(gate_page(sources))
    assert page.startswith("# Gate\n\nRefused: it is worse than the model in production: 20 photos are right only with")
    assert "| the model in production | 90 | 20 | 0 | -22.2 points | -3" in page
    assert "## By class" in page
    assert "models that these test photos judged before | 3 |" in page
    assert "<b>" not in page
    assert "From 133 compared test photos on " in page


@pytest.mark.parametrize("changed", ["model.onnx", "dataset.parquet"])
def test_a_verdict_on_another_model_or_other_photos_is_none(sources: Sources, changed: str) -> None:
    assert read_gate(sources) is not None
    (sources.onnx.parent / changed).write_bytes(b"changed")
    assert read_gate(sources) is None
    assert "The gate was not asked about this model." in to_markdown(gate_page(sources))


@pytest.mark.parametrize("contents", ["{", '{"about": 3, "name": "", "is_accepted": true, "words": ""}'])
def test_a_damaged_verdict_is_as_good_as_none(sources: Sources, contents: str) -> None:
    (sources.reports / "gate.json").write_text(contents)
    assert read_gate(sources) is None
