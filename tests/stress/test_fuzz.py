import sys
from pathlib import Path

import pytest

from regraft.photos import images
from tests.stress import fuzz

# Pillow warns of TIFF files that are cut short, and goes on.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def test_no_damaged_file_stops_validation_and_none_that_is_accepted_fails_in_training(real_photos):
    result = fuzz.measure(fuzz.REAL_PHOTOS, files=250, seed=0)
    assert result["problems"] == []
    assert result["files"] == 250
    assert set(result["verdicts"]) >= {"use", "quarantine"}  # else the damage is too small, or too large, to tell


def test_an_accepted_file_that_cannot_be_decoded_ends_the_command_with_its_name(monkeypatch, capsys):
    load_rgb = images.load_rgb

    def cannot_read_bitmaps(path: Path):
        if path.suffix == ".bmp":
            raise OSError("broken decoder")
        return load_rgb(path)

    monkeypatch.setattr(fuzz, "load_rgb", cannot_read_bitmaps)
    monkeypatch.setattr(sys, "argv", ["fuzz", "--files", "60"])
    with pytest.raises(SystemExit, match=r"class-\d/\d+\.bmp was accepted: OSError: broken decoder"):
        fuzz.main()
    assert "accepted and not decodable" in capsys.readouterr().out
