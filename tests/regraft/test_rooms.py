"""The doors of the rooms."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import regraft

ROOMS = sorted(path.parent.name for path in Path(regraft.__file__).parent.glob("*/__init__.pyi"))
_ALONE = "import sys, regraft.photos; print([name for name in sys.modules if name.startswith('regraft.photos.')])"


def test_a_name_is_the_one_of_its_module():
    room, module = map(importlib.import_module, ("regraft.photos", "regraft.photos.images"))
    assert room.load_rgb is module.load_rgb


def test_every_room_lists_its_names():
    assert {"photos", "serving", "store", "export"} <= set(ROOMS)
    assert all(dir(importlib.import_module(f"regraft.{room}")) for room in ROOMS)


def test_a_room_loads_nothing_by_itself():
    done = subprocess.run([sys.executable, "-c", _ALONE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_name_that_no_room_has_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'regraft.photos' has no attribute 'load_rbg'"):
        importlib.import_module("regraft.photos").load_rbg  # noqa: B018 - asked for
