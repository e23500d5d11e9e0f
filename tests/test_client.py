"""docs/classify.py, the client that users copy, reads photos as Regraft does."""

import importlib.util
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from types import ModuleType

import numpy as np
import PIL.EpsImagePlugin
import pytest
from PIL import Image, UnidentifiedImageError

from regraft.export.compose import write_graph
from regraft.photos.images import FORMATS, load_rgb
from regraft.serving.thresholds import Promise
from tests.support.mutations import ENCODINGS, HEIC, encode, in_mode

CLIENT = Path(__file__).parents[1] / "docs" / "classify.py"


@pytest.fixture
def client(monkeypatch) -> ModuleType:
    Image.init()
    for name in ("ID", "OPEN", "EXTENSION", "MIME"):  # it registers HEIC, which no other test is to see
        monkeypatch.setattr(Image, name, getattr(Image, name).copy())
    spec = importlib.util.spec_from_file_location("classify", CLIENT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_shows_the_file_as_it_is(root):
    blocks = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)
    assert CLIENT.read_text() in blocks


def test_it_opens_the_formats_that_regraft_opens(client):
    assert [*FORMATS, "HEIF"] == client.FORMATS


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "P", "RGBA", "1", "I;16", "CMYK"])
def test_it_reads_all_pixels_as_regraft_does(client, tmp_path, photo, mode):
    picture = in_mode(Image.fromarray(photo(0, 60, 40)), mode)
    if mode == "RGBA":
        picture.putalpha(Image.linear_gradient("L").resize((60, 40)))
    read = 0
    for suffix in ENCODINGS:
        if contents := encode(picture, suffix):
            (tmp_path / f"a.{suffix}").write_bytes(contents)
            ours = load_rgb(BytesIO(contents))
            assert np.array_equal(client.read(str(tmp_path / f"a.{suffix}")), ours), suffix
            read += 1
    assert read >= 2


def test_it_reads_heic_as_regraft_does(client):
    assert np.array_equal(client.read(str(HEIC)), load_rgb(HEIC))


def test_it_reads_other_photos_without_the_library_for_heic(monkeypatch, tmp_path, photo, request):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    client = request.getfixturevalue("client")
    Image.fromarray(photo(0, 60, 40)).save(tmp_path / "a.png")
    assert np.array_equal(client.read(str(tmp_path / "a.png")), photo(0, 60, 40))
    assert list(FORMATS) == client.FORMATS


def test_it_never_runs_postscript(client, tmp_path, photo, monkeypatch):
    monkeypatch.setattr(PIL.EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("it was run"))
    Image.fromarray(photo(0, 60, 40)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with pytest.raises(UnidentifiedImageError):
        client.read(str(tmp_path / "a.jpg"))


@pytest.mark.parametrize(("abstain_below", "is_unsure"), [(0.9, True), (None, False)])
def test_it_says_that_it_is_unsure_below_the_threshold_of_the_file(colour_model, tmp_path, abstain_below, is_unsure):
    promise = None if abstain_below is None else Promise(abstain_below, 0.98, 0.95)
    write_graph(tmp_path / "model.onnx", colour_model(["red", "green", "blue"]), promise and promise.as_metadata())
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "a.png")  # its probability is e / (e + 2) = 0.58
    command = [sys.executable, str(CLIENT), str(tmp_path / "model.onnx"), str(tmp_path / "a.png")]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[is_unsure:][0] == "0.5761  red"
    assert (lines[0] == "unsure") is is_unsure
