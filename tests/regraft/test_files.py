import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from regraft.files import fingerprint, read_json, readable_bytes, replacing, sha256_of, write_json, write_text


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that says `old`, alone in its folder."""
    path = tmp_path / "folder" / "report.txt"
    write_text(path, "old")
    return path


def fail(*_: object) -> None:
    raise OSError("no space left on device")


def write_half(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text("half")
        fail()


def test_a_file_is_replaced(path):
    write_text(path, "neü")
    assert path.read_text(encoding="utf-8") == "neü"


def test_an_error_while_writing_leaves_the_old_file(path):
    with pytest.raises(OSError, match="no space"):
        write_half(path)
    assert path.read_text() == "old"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_an_error_of_the_disk_leaves_the_old_file(path, monkeypatch, step):
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="no space"):
        write_text(path, "new")
    assert path.read_text() == "old"


def test_an_error_leaves_no_other_file(path):
    with pytest.raises(OSError, match="no space"):
        write_half(path)
    assert list(path.parent.iterdir()) == [path]


def test_a_kill_while_writing_leaves_the_old_file(path, root):
    program = f"""
import os
from pathlib import Path
from regraft.files import replacing
with replacing(Path({str(path)!r})) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), {int(signal.SIGKILL)})
"""
    killed = subprocess.run([sys.executable, "-c", program], cwd=root, check=False)
    assert (killed.returncode, path.read_text()) == (-signal.SIGKILL, "old")


def test_the_temporary_name_keeps_the_suffix_because_keras_chooses_the_format_by_it(tmp_path):
    with replacing(tmp_path / "model.keras") as temporary:
        temporary.touch()
    assert temporary.suffix == ".keras"


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_is_replaced_and_its_target_stays(path, link):
    # DVC may link outputs into its cache; writing through the link would damage the cache.
    linked = path.with_name("linked.txt")
    link(path, linked)
    write_text(linked, "new")
    assert (path.read_text(), linked.read_text()) == ("old", "new")


def test_json_comes_back_as_it_was_written(path):
    report = {"z": [1, None, "ñ"], "a": {"share": 0.5}}
    write_json(path, report)
    assert read_json(path) == report


def test_json_keeps_the_order_of_keys(path):
    write_json(path, {"z": 1, "a": 2})
    assert list(read_json(path)) == ["z", "a"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_refuses_what_other_languages_cannot_read(path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"share": value})
    assert path.read_text() == "old"


def test_sha256_is_that_of_fips_180(path):
    write_text(path, "abc")
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_fingerprint_does_not_depend_on_the_order_of_keys():
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})


@pytest.mark.parametrize("other", [{"a": 2}, {"b": 1}, {"a": "1"}, {"a": [1]}, {"a": 1, "b": None}])
def test_a_fingerprint_depends_on_every_fact(other):
    assert fingerprint(other) != fingerprint({"a": 1})


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1234567, "1.2 MB"), (5e9, "5.0 GB"), (3e15, "3000.0 TB")],
)
def test_a_size_is_readable(count, text):
    assert readable_bytes(count) == text
