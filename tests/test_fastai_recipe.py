"""The baseline that runs in a Python of its own: elsewhere it says what it needs."""

import sys

import pytest

from benchmarks.fastai_recipe import main


def test_a_python_without_fastai_is_refused_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fastai_recipe", str(tmp_path)])
    monkeypatch.setitem(sys.modules, "fastai", None)
    with pytest.raises(SystemExit, match=r"no fastai.*Run this with another one"):
        main()
