"""The benchmark of growth: it sees what stages take, makes rows that stages believe, and its model extrapolates."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scaling import print_tables
from benchmarks.scaling_model import CAPS, Entry, bytes_per_photo, fit, predictions, without
from benchmarks.scaling_rows import Rows
from benchmarks.scaling_watch import watched
from regraft.params_file import load_params
from regraft.photos.decoder import DecodeLimits
from regraft.photos.duplicates import mark_duplicates
from regraft.photos.images import Threads
from regraft.photos.known import Learning
from regraft.photos.manifest import build_manifest
from regraft.store.facts import Facts
from tests.support.pipeline import HEAD_ONLY

_HOLDS = 'held = bytearray(b"x") * 40_000_000; import subprocess, sys, time; time.sleep(0.3)'


def test_a_stage_has_its_own_memory_and_that_of_what_it_starts(tmp_path: Path):
    helper = [sys.executable, "-S", "-c", _HOLDS]
    stage = [sys.executable, "-S", "-c", f"{_HOLDS}; subprocess.run({helper})", "-m", "tasks.made_up"]
    caller = [sys.executable, "-S", "-c", f"{_HOLDS}; subprocess.run({stage[:-2]} + ['-' + 'm', 'tasks.' + 'made_up'])"]
    run = watched(caller, tmp_path, dict(os.environ), log=tmp_path / "log")
    assert list(run.stages) == ["made_up"]
    assert 80 < run.stages["made_up"].peak_memory_mb < 110
    assert 120 < run.whole.peak_memory_mb < 160
    assert 40 < run.beside.peak_memory_mb < 70
    assert 0.5 < run.stages["made_up"].seconds < run.whole.seconds


def test_a_command_that_fails_ends_the_benchmark_with_what_it_said(tmp_path: Path):
    with pytest.raises(SystemExit, match=r"status 3:\nno disk"):
        watched(["sh", "-c", "echo no disk; exit 3"], tmp_path, dict(os.environ), log=tmp_path / "log")


def test_of_rows_without_photos_nothing_is_decoded_and_some_are_near_duplicates(tmp_path: Path):
    rows = Rows.made(tmp_path, HEAD_ONLY)
    rows.grow(400)
    rows.grow(500)
    params = load_params(rows.root / "params.yaml")
    limits = DecodeLimits(params.validate_data.max_pixels, params.validate_data.max_seconds)
    learning = Learning(Facts(rows.root / params.paths.store, None, max_pixels=limits.max_pixels))
    _, manifest = build_manifest(rows.root / params.paths.raw, limits=limits, threads=Threads(2), learning=learning)
    marked = mark_duplicates(manifest, max_hash_distance=20, on_label_conflict="drop")
    assert (len(marked), set(marked.verdict), learning.decoded) == (500, {"use"}, 0)
    assert 400 < marked.group.nunique() < 500


TERMS = {"cache_features": (4.0, 1e-5, 5e-3, 0.0), "train_head": (2.0, 1e-6, 0.0, 2e-4)}


def entry(kind: str, run: str, photos: int, new: int) -> Entry:
    """Measurements that follow exactly from `TERMS`; memory is 200 MB and 2 kB a photo."""
    parts = {
        name: {
            "seconds": float(np.dot(terms, (1, photos, new, min(photos, CAPS.get(name, 0))))),
            "peak_memory_mb": 200 + 0.002 * photos,
        }
        for name, terms in TERMS.items()
    }
    return {"kind": kind, "run": run, "photos": photos, "new": new, "parts": parts}


ENTRIES = [entry("photos", "first", size, size) for size in (1000, 4000, 16_000)]
ENTRIES += [entry("photos", "one_percent_new", size + size // 100, size // 100) for size in (1000, 4000, 16_000)]
ENTRIES += [entry("rows", "nothing_new", size, 0) for size in (10_000, 100_000, 300_000)]
ENTRIES += [entry("rows", "first", size, 0) for size in (10_000, 100_000, 300_000)]


def test_the_model_finds_the_terms_that_figures_were_made_of():
    parts = fit(ENTRIES)
    assert {name: part.seconds.tolist() for name, part in parts.items()} == {
        name: pytest.approx(terms, rel=1e-3, abs=1e-7) for name, terms in TERMS.items()
    }
    assert parts["train_head"].most_photos(24) == pytest.approx((24_000 - 200) / 0.002, rel=0.01)


def test_the_largest_size_of_each_kind_is_left_out_with_its_one_percent():
    fitted, compared = without(ENTRIES, None)
    assert {each["photos"] for each in compared} == {16_000, 16_160, 300_000}
    assert len(fitted) + len(compared) == len(ENTRIES)
    assert without(ENTRIES[:2], None)[1] == []


def test_only_what_is_distributed_is_divided_among_workers():
    hours = {(row["photos"], row["workers"]): row["hours"]["first"] for row in predictions(fit(ENTRIES))}
    passes = 1e7 * 5e-3 / 3600
    assert hours[10**7, 1] - hours[10**7, 8] == pytest.approx(passes * 7 / 8, abs=0.02)


def test_bytes_are_those_of_the_largest_size():
    assert bytes_per_photo([{"photos": 10, "bytes": {"build": 50}}, {"photos": 100, "bytes": {"build": 300}}, {}]) == {
        "build": 3
    }


def test_a_part_that_did_not_run_is_shown_as_that(capsys: pytest.CaptureFixture[str]):
    parts = {"preprocess": {"seconds": 1.0, "cpu_seconds": 2.0, "peak_memory_mb": 3.0}}
    print_tables(
        [
            {"kind": "photos", "run": "first", "photos": 10, "new": 10, "parts": parts},
            {"kind": "photos", "run": "first", "photos": 20, "new": 20, "parts": {}},
        ]
    )
    assert "preprocess" in capsys.readouterr().out
