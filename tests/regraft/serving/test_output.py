"""What `regraft predict` writes, in every format."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from regraft.core.errors import name_of
from regraft.serving import output
from tests.support.predicted import NOVELTY, PROMISE, PURE, rows_of


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_every_format_says_the_same(call, make_model, photos, tmp_path, form):
    target = tmp_path / f"answers.{form}"
    (photos / "bad.jpg").write_bytes(b"no photo")
    status, written, _ = call(make_model(**PROMISE, **NOVELTY), photos, "--top", 3, "--output", target)
    assert (status, written) == (0, "")
    text = target.read_text()
    rows = list(csv.DictReader(text.splitlines())) if form == "csv" else rows_of(text)
    told = [(Path(row["path"]).name, row["class"] or None, row["error"] or None) for row in rows]
    bad = ("bad.jpg", None, "not an image that can be read")
    assert told == [bad, *((f"{name}.png", name, None) for name in ("blue", "green", "red")), ("grey.png", None, None)]
    assert float(rows[1]["probability"]) == pytest.approx(PURE, abs=1e-6)
    assert not list(tmp_path.glob(".*"))
    if form != "jsonl":
        assert list(rows[0]) == output.columns(3)


def test_a_table_has_a_line_for_each_photo(call, make_model, photos):
    (photos / "bad.jpg").touch()
    assert call(make_model(**PROMISE, **NOVELTY), photos)[1].splitlines() == [
        "class   probability  novelty  photo",
        f"-                             {photos}/bad.jpg: the file is empty",
        f"blue         0.5761   0.424   {photos}/blue.png",
        f"green        0.5761   0.424   {photos}/green.png",
        f"red          0.5761   0.424   {photos}/red.png",
        f"unsure       0.3333   0.667!  {photos}/more/grey.png  (red 0.3333)",
    ]


@pytest.mark.parametrize("form", ["table", "csv", "jsonl"])
def test_names_of_any_kind_are_written_and_never_break_a_row(call, make_model, tmp_path, form):
    folder, target = tmp_path / "photos", tmp_path / "answers"
    folder.mkdir()
    for name in (b"=1+1.png", b'a\nb,"c.png', b"a\xff.png", "\u202egnp.é.png".encode()):
        Image.new("RGB", (4, 4), "red").save(io.BytesIO(), "PNG")
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:  # noqa: PTH118, PTH123 - bytes
            Image.new("RGB", (4, 4), "red").save(file, "PNG")
    status = call(make_model(), folder, "--format", form, "--output", target)[0]
    assert status == 0
    expected = {"=1+1.png", 'a\nb,"c.png', "a\\xff.png", "\u202egnp.é.png"}
    lines = target.read_text().splitlines()
    assert len(lines) == (4 if form == "jsonl" else 5)
    rows = rows_of(target.read_text()) if form == "jsonl" else list(csv.DictReader(lines))
    if form != "table":
        paths = [name_of(row["path"]) if form == "csv" else row["path"] for row in rows]
        assert {path.removeprefix(f"{folder}/") for path in paths} == expected


def test_an_output_that_cannot_be_written_is_an_error_in_words(call, make_model, photos, tmp_path):
    status, _, said = call(make_model(), photos, "--output", tmp_path / "model.onnx" / "a.csv")
    assert status == 1
    assert "cannot be written to" in said


def test_a_bar_is_drawn_only_where_rows_do_not_appear_on_the_same_screen(call, make_model, photos, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert "4/4" in call(make_model(), photos)[2]
    assert "4/4" not in call(make_model(), photos, "--no-progress")[2]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "4/4" not in call(make_model(), photos)[2]
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert call(make_model(), photos)[0] == 0


def test_a_full_disk_behind_standard_output_is_an_error_in_words(make_model, photos, root):
    command = [sys.executable, "-m", "regraft.serving", make_model(), photos]
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device of Linux
        done = subprocess.run(command, cwd=root, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        1,
        "predict stopped: standard input or output failed (No space left on device).",
    )
