"""HEIC, what phones write."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from regraft.photos import dataset as dataset_module
from regraft.photos.dataset import source_of
from regraft.photos.decoder import inspect
from regraft.photos.images import heif_version, is_heif, load_rgb
from tests.support.mutations import HEIC, damage

# Corners of the upright picture, top left, top right, bottom left, bottom right.
CORNERS = [(200, 40, 40), (40, 160, 60), (50, 70, 200), (220, 200, 60)]


def test_a_photo_is_upright_although_its_container_and_its_exif_data_both_ask_for_a_turn():
    rgb = load_rgb(HEIC)
    assert rgb.shape == (64, 96, 3)
    corners = [rgb[y, x].tolist() for y in (4, 59) for x in (4, 91)]
    assert np.abs(np.array(corners) - CORNERS).max() < 12  # it is compressed


def test_facts_are_those_of_the_upright_picture():
    facts = inspect(HEIC, max_pixels=96 * 64)
    assert (facts.problem, facts.format, facts.width, facts.height) == (None, "HEIF", 96, 64)
    assert (facts.mode, facts.bit_depth, facts.orientation) == ("RGB", 8, 1)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", True),
        (b"\0\0\0\x18ftypheix\0\0\0\0mif1heix", True),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", True),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1miafavif", False),
        (b"\0\0\0\x14ftypmif1\0\0\0\0mif1heic", False),  # what is behind the box is none of its brands
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", False),
        (b"\0\0\0\x18ftyphevc\0\0\0\0msf1hevc", False),  # a sequence
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp41", False),
        (b"", False),
    ],
)
def test_the_brands_of_its_first_box_say_what_it_is(start, expected):
    assert is_heif(start) is expected


def test_damage_is_a_problem_and_never_an_exception(tmp_path):
    good, random, problems = HEIC.read_bytes(), np.random.default_rng(0), 0
    for _ in range(150):
        (tmp_path / "hostile.heic").write_bytes(damage(good, random, good))
        problems += inspect(tmp_path / "hostile.heic", max_pixels=10**6).problem is not None
    assert problems > 50


def test_a_size_that_its_container_makes_up_is_not_believed(tmp_path):
    contents = bytearray(HEIC.read_bytes())
    position = contents.index(b"ispe") + 8
    for width, height, said in ((30_000, 30_000, "above validate_data.max_pixels"), (8, 8, "")):
        contents[position : position + 8] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        (tmp_path / "a.heic").write_bytes(contents)
        problem = inspect(tmp_path / "a.heic", max_pixels=10**6).problem
        assert problem
        assert said in problem


def test_the_library_is_loaded_only_where_there_is_such_a_photo_and_opens_no_other(tmp_path):
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png")
    program = (
        "import sys; from pathlib import Path; from PIL import Image; from regraft.photos.images import load_rgb\n"
        "before = set(Image.ID); load_rgb(Path(sys.argv[1])); print('pi_heif' in sys.modules)\n"
        "load_rgb(Path(sys.argv[2])); print('pi_heif' in sys.modules, 'HEIF' in Image.ID)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.png"), str(HEIC)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert ended.stdout.split() == ["False", "True", "False"]


def test_the_version_of_the_library_is_in_the_key_of_its_photos_and_of_no_others(monkeypatch):
    digest = "0" * 64
    before = {name: source_of(digest, name) for name in ("JPEG", "PNG", "HEIF")}
    monkeypatch.setattr(dataset_module, "heif_version", lambda: "pi-heif 99")
    after = {name: source_of(digest, name) for name in ("JPEG", "PNG", "HEIF")}
    assert before["JPEG"] == before["PNG"] == digest
    assert {name for name in before if before[name] != after[name]} == {"HEIF"}
    assert heif_version().startswith("pi-heif ")
