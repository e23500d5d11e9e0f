"""Which sources and which versions of libraries decide a result: by hand-made projects, and by this one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from regraft.backbones import trunk
from regraft.backbones.catalogue import Backbone
from regraft.core import provenance
from regraft.core.files import fingerprint
from regraft.core.params_file import load_params
from regraft.core.provenance import ROOT, Provenance, provenance_of, take_snapshot
from regraft.photos import scan_facts
from regraft.photos.views import choose_views
from regraft.training import fine_tune
from regraft.training.training_loop import Plan
from tasks.code_record import what_decides

FILES = {
    "regraft/__init__.py": "",
    "regraft/photos/__init__.py": "import lazy_loader\n\n__getattr__ = lazy_loader.attach_stub(__name__, __file__)\n",
    "regraft/photos/images.py": "import PIL\n\n\ndef load(path):\n    return PIL.open(path)\n",
    "regraft/photos/views.py": "from .images import load\n\n\ndef draw():\n    import scipy\n",
    "regraft/training.py": "import keras\nimport json\n",
    "tasks/__init__.py": "",
    "tasks/stage.py": "import matplotlib\nimport regraft.training\n",
}
ONE = "regraft.photos.images"
RICH = '''\
"""A module."""

import os


class Colour:
    """A colour."""

    name: str = "ünïcode \\N{SNOWMAN}"  # with a comment

    def shown(self, *values, width=7, **others):
        """Return it."""
        match values:
            case [1, 2.5, *_]:
                return f"{self.name!r:>{width}} {values[0]=} {1_000:,}" "joined" rf"\\d{{2}}"
            case {"key": 3j, **rest} | rest:
                return lambda x, /, y=b"bytes", *, z=...: [x async for x in y if not z]
        try:
            del self.name
        except* (OSError, ValueError) as errors:
            raise errors.exceptions[0] from None
        return {**others, "a": -1e-05, "b": 2**70, "c": None, True: (yield)}
'''


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., None]:
    """Write a small project, or some of its files anew."""

    def write(files: dict[str, str]) -> None:
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text, encoding="utf-8")

    write(FILES)
    return write


@pytest.fixture
def found(write: Callable[..., None], tmp_path: Path) -> Callable[..., Provenance]:
    """Return the provenance of modules in that project with some files written anew."""

    def found(*modules: str, without: tuple[str, ...] = (), **files: str) -> Provenance:
        write({path.replace("__", "/") + ".py": text for path, text in files.items()})
        return provenance_of(*modules, snapshot=take_snapshot(tmp_path), without=without)

    return found


def modules_of(found: Provenance) -> set[str]:
    return set(found.code) - {"regraft", "tasks", "regraft.photos"}


# Which modules belong to it.


@pytest.mark.parametrize(
    ("importing", "expected"),
    [
        ("import regraft.photos.images", {ONE}),
        ("from regraft.photos.images import load", {ONE}),
        ("import regraft.photos", set()),
        ("def later():\n    from regraft.photos.images import load", {ONE}),
        ("import importlib\nimportlib.import_module('regraft.photos.images')", {ONE}),
        ("if TYPE_CHECKING:\n    import regraft.photos.images", set()),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import regraft.photos.images", {ONE}),
    ],
)
def test_it_has_the_modules_that_an_import_runs(found, importing, expected):
    assert modules_of(found("regraft.one", regraft__one=importing)) == expected | {"regraft.one"}


def test_imports_with_dots_are_followed_from_a_package_and_from_a_module(found, write):
    write({"regraft/photos/__init__.py": "from . import images\n"})
    assert modules_of(found("regraft.photos")) == {ONE}
    assert modules_of(found("regraft.photos.views")) == {ONE, "regraft.photos.views"}


# Which changes of a source change it.


def test_the_digest_of_a_source_is_the_same_on_every_python(found):
    """Computed with Python 3.11, 3.12 and 3.13, whose trees have other fields and other empty constants."""
    assert found("regraft.one", regraft__one=RICH).code["regraft.one"] == "7875c629d0e17abc"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  # with a comment", ""),
        ('"""A colour."""', '"""The hue."""'),
        ('"""A module."""\n', ""),
        ("width=7, **others", "width = 7,\n        **others"),
    ],
)
def test_comments_docstrings_and_layout_change_nothing(found, old, new):
    assert old in RICH
    assert found("regraft.one", regraft__one=RICH) == found("regraft.one", regraft__one=RICH.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("width=7", "width=8"),
        ("[1, 2.5, *_]", "[True, 2.5, *_]"),
        ("!r:", "!s:"),
        ("**others, ", ""),
        ("not z", "z"),
        ("del self.name", "del self.colour"),
    ],
)
def test_any_other_change_of_a_source_changes_its_digest(found, old, new):
    assert old in RICH
    before = found("regraft.one", regraft__one=RICH)
    after = found("regraft.one", regraft__one=RICH.replace(old, new))
    assert before.code["regraft.one"] != after.code["regraft.one"]


@pytest.mark.parametrize("text", ["def half(", "a = '\0'"])
def test_a_source_that_somebody_is_editing_has_a_digest_of_its_own(found, text):
    assert found(ONE, regraft__photos__images=text).digest != found(ONE, regraft__photos__images=text + " ").digest


# Which libraries belong to it.


@pytest.mark.parametrize(
    ("importing", "expected"),
    [
        ("import numpy as np", {"numpy"}),
        ("from scipy.stats import norm", {"scipy"}),
        ("def later():\n    import keras", {"keras", "tensorflow", "h5py"}),
        ("import imagehash", {"imagehash", "scipy", "pillow"}),
        ("import tqdm, pydantic, json", set()),
        ("if TYPE_CHECKING:\n    import keras", set()),
    ],
)
def test_it_has_the_libraries_whose_version_decides_bytes(found, importing, expected):
    assert set(found("regraft.one", regraft__one=importing).libraries) == expected


# Who uses it.


def checkpoint_name() -> str:
    backbone = SimpleNamespace(name="small", weights_digest="random", preprocessing="tf", image_size=64, cut="block")
    views = choose_views(PARAMS.preprocess, image_size=64, count=1)
    return fingerprint(fine_tune.facts_of(cast(Backbone, backbone), views, Plan(PARAMS.fine_tune, "none", 0), files=[]))


def graph_key() -> str:
    backbone = SimpleNamespace(name="small", weights_digest="", preprocessing="tf", image_size=64, wanted_cut="auto")
    return trunk._graph_key(cast(Backbone, backbone))


PARAMS = load_params(ROOT / "params.yaml")
TRAINING = {"keras", "tensorflow", "numpy", "h5py"}
# Each with some of the modules and libraries that decide it; the most of them were once forgotten.
USERS: dict[str, tuple[Callable[[], object], set[str], set[str]]] = {
    "the checkpoint of a training": (
        checkpoint_name,
        {"training.training_loop", "photos.images", "photos.preparation", "training.trainer", "photos.views"},
        TRAINING | {"pillow", "libjpeg_turbo", "onnxruntime"},
    ),
    "the graph": (
        graph_key,
        {"photos.preparation", "backbones.cut_points", "backbones.torch_backbones", "onnx_graphs.convert"},
        TRAINING | {"tf2onnx", "onnx"},
    ),
    "the scan": (
        lambda: scan_facts._seal("", 1000),
        {"photos.images", "photos.decoder", "photos.scan"},
        {"pillow", "libjpeg_turbo", "openjpeg", "zlib", "libtiff", "libwebp", "libavif", "imagehash", "scipy"},
    ),
    "DVC's fingerprint of train_head": (
        lambda: what_decides("train_head"),
        {"training.heads", "training.logistic", "features.table", "core.files"},
        TRAINING | {"scikit-learn", "pyarrow"},
    ),
}


@pytest.mark.parametrize("user", USERS)
def test_whoever_uses_it_sees_exactly_its_sources_and_versions(user, monkeypatch):
    key_of, modules, libraries = USERS[user]
    now = take_snapshot()

    def key(**changed: dict) -> object:
        monkeypatch.setattr(provenance, "take_snapshot", lambda: replace(now, **changed))
        return key_of()

    before = key()
    for_modules = {
        name for name, text in now.modules.items() if key(modules=now.modules | {name: text + b"\nnew = 1"}) != before
    }
    for_libraries = {name for name in now.versions if key(versions=now.versions | {name: "0"}) != before}
    comments = {
        name for name, text in now.modules.items() if key(modules=now.modules | {name: text + b"\n# new"}) != before
    }
    assert {f"regraft.{name}" for name in modules} <= for_modules
    assert not for_modules & {"regraft.core.provenance", "regraft.reports.page", "tasks.stage"}
    assert libraries <= for_libraries
    assert not for_libraries & {"great-expectations", "jinja2"}
    assert comments == set()
    assert key() == before
