"""A life of a project, of the hundreds that `make stress` plays."""

from pathlib import Path

import pytest

from regraft.production.registry import Production
from tests.stress.state_machine import Life, finished_project, play


def test_whatever_is_edited_killed_collected_and_rolled_back_what_must_hold_holds(tmp_path: Path) -> None:
    counts = play(tmp_path, steps=7, first_seed=0)
    assert sum(counts.values()) >= 7
    assert len(counts) >= 3, counts  # the seed is one whose lives are not all of one kind


def test_a_change_of_production_that_nobody_asked_for_is_noticed(tmp_path: Path) -> None:
    with finished_project(tmp_path) as project:
        life = type("Life", (Life,), {"project": project})()
        life.begin(has_run=True)
        life.production_is_sound()
        (tmp_path / "other.onnx").write_bytes(life.exported.read_bytes() + b"\0")
        Production(life.production.folder).promote(tmp_path / "other.onnx", "nobody asked", keep=5)
        with pytest.raises(AssertionError):
            life.production_is_sound()
