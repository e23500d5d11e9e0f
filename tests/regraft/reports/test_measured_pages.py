"""Pages of what `regraft report --measure` found out: drawn, and never for another file."""

import pytest

from regraft.core.files import write_json
from regraft.photos.corruptions import KINDS, SEVERITIES
from regraft.reports.measured_page import latency_of, latency_page, robustness_of, robustness_page
from regraft.reports.page import to_markdown
from tests.support.library import sources_in

MODEL, INT8 = "a" * 64, "b" * 64


def row(kind: str, severity: int, **changes: object) -> dict[str, object]:
    level = KINDS[kind].levels[severity - 1] if severity else None
    figures = {"accuracy": 0.9 - severity / 10, "low": 0.8 - severity / 10, "high": 0.95 - severity / 10}
    loss = {"loss": severity / 10, "loss_low": severity / 10 - 0.25, "loss_high": severity / 10 + 0.25}
    rest = {"answered": 1 - severity / 10, "precision": 0.9, "novel": severity / 20}
    return {"kind": kind, "severity": severity, "level": level, **figures, **loss, **rest, **changes}


def robustness(sha256: str, name: str = "model.onnx", **changes: object) -> dict[str, object]:
    conditions = [("none", 0), *((kind, severity) for kind in KINDS for severity in range(1, SEVERITIES + 1))]
    facts = {"images": 40, "of_images": 1500, "independent_images": 30, "shorter_side": 64, "same_as_raw": 0.975}
    return {"name": name, "sha256": sha256, **facts, "rows": [row(*each, **changes) for each in conditions]}


def engine(name: str, kind: str, difference: float) -> dict[str, object]:
    quantiles = {"p50": 10.25, "p95": 20.5, "p99": 30.75}
    figures = {"bytes": 123, "version": "1.2.3-x", "cold_start_seconds": 0.5, "one_thread": quantiles}
    figures |= {"all_cores": quantiles, "images_per_second": 123.4, "peak_bytes": 1e8, "peak_bytes_of_batches": 2e8}
    return {"name": name, "engine": kind, **figures, "largest_difference": difference, "same_class": 0.875}


@pytest.fixture
def sources(tmp_path):
    write_json(tmp_path / "reports" / "export.json", {"sha256": MODEL})
    write_json(tmp_path / "reports" / "int8.json", {"sha256": INT8})
    return sources_in(tmp_path)


def write_latency(sources, **about):
    rows = [
        engine("model.onnx", "onnxruntime", 0.0),
        engine("model.onnx in OpenVINO", "openvino", 0.2),
        {"name": "Keras", "engine": "keras", "problem": "it is <not> there"},
    ]
    facts = {"processor": "A CPU | fast", "cores": 4, "photo": [640, 480], "repeats": 201, "batch": 32}
    facts |= {"batch_repeats": 12, "processes": 3, "warm_up": 10, "compared": 16, "rows": rows}
    write_json(sources.reports / "latency.json", {"about": {"model": MODEL, "int8": INT8} | about, **facts})


def text_of(page) -> str:
    return to_markdown(page).replace("\\", "")


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (None, "Not measured yet. `regraft report --measure` measures it"),
        ("{", "What was measured is about another file."),
    ],
)
def test_without_figures_the_pages_say_how_to_get_them(sources, contents, words):
    for name, page in (("latency.json", latency_page), ("robustness.json", robustness_page)):
        if contents:
            (sources.reports / name).write_text(contents)
        assert words in to_markdown(page(sources))


def test_figures_of_another_file_are_not_shown(sources):
    write_latency(sources)
    write_json(sources.reports / "robustness.json", {"files": [robustness(MODEL), robustness(INT8, "model.int8.onnx")]})
    assert [each["sha256"] for each in robustness_of(sources)] == [MODEL, INT8]
    write_json(sources.reports / "int8.json", {"sha256": MODEL})  # it is the same file now
    assert [each["sha256"] for each in robustness_of(sources)] == [MODEL]
    assert latency_of(sources) is None
    write_json(sources.reports / "export.json", {"sha256": "c" * 64})
    assert robustness_of(sources) == []


def test_the_page_of_speed_has_every_engine_with_its_threads_and_warns_of_other_answers(sources):
    write_latency(sources)
    page = text_of(latency_page(sources))
    assert "A CPU | fast. From the pixels of a photo of 640 x 480" in page
    assert "| one thread: p50, p95, p99 | 4 threads: p50, p95, p99 | batches of 32, 4 threads |" in page
    assert "| model.onnx, onnxruntime 1.2.3 | 123 B | 0.50 s | 10.2, 20.5, 30.8 ms |" in page
    assert "123 photos/s | 100.0 MB | 200.0 MB | yes |" in page
    assert "**88% the same class; a probability differs by 0.2 at most**" in page
    assert "**model.onnx in OpenVINO does not answer as the file does, on 16 test photos.**" in page
    assert "Not measured: Keras (it is <not> there)." in page


def test_the_page_of_robustness_marks_what_is_more_than_chance(sources):
    write_json(sources.reports / "robustness.json", {"files": [robustness(MODEL)]})
    page = text_of(robustness_page(sources))
    assert "The same 40 of 1,500 test photos (as independent as 30)" in page
    (line,) = [line for line in page.splitlines() if line.startswith("| turned, degrees |")]
    assert line == (
        "| turned, degrees | 5: 80% | 10: 70% | **20: 60%** | **30: 50%** | **45: 40%** | 50.0 (25.0 to 75.0) | "
        "50%, 90% of them rightly | 25% |"
    )
