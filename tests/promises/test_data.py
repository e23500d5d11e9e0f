"""Photos are checked before anything is trained: hostile ones are quarantined, and who trains on them is protected."""

import io
import json
import os
import shutil
import struct
import tarfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from tests.promises.conftest import Ran
from tests.promises.user import PHOTOS, REGRAFT, Command, Project, save_photo

pytestmark = pytest.mark.flow
NO_HATS = {
    "expectations": [
        {
            "type": "expect_column_values_to_not_match_regex",
            "kwargs": {"column": "path", "regex": "/hat/"},
            "severity": "critical",
            "notes": "we sell no hats",
        }
    ]
}
BROKEN = {  # by file: what the reason has to say
    "train/hat/half.jpg": "",
    "train/hat/empty.jpg": "",
    "train/hat/words.png": "",
    "train/hat/drawing.svg": "",
    "train/hat/bomb.png": "max_pixels",
    "train/hat/slow.png": "max_seconds",
}


def black_png(side: int, *, whole: bool) -> bytes:
    """Return a small PNG of many pixels, with all its rows or with the first one alone."""

    def chunk(kind: bytes, contents: bytes) -> bytes:
        return struct.pack(">I", len(contents)) + kind + contents + struct.pack(">I", zlib.crc32(kind + contents))

    compressor = zlib.compressobj(1)
    rows = b"".join(
        [*(compressor.compress(bytes(1 + 3 * side)) for _ in range(side if whole else 1)), compressor.flush()]
    )
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


class Checks:
    """What was said of a folder of clothes, and of what was put among them, one after the other."""

    def __init__(self, project: Project) -> None:
        self.project, raw = project, project.raw
        for path in PHOTOS.rglob("*.jpg"):
            (raw / path.relative_to(PHOTOS)).parent.mkdir(parents=True, exist_ok=True)
            (raw / path.relative_to(PHOTOS)).write_bytes(path.read_bytes())
        os.mkfifo(raw / "train" / "hat" / "pipe.jpg")
        self.pipe = project.regraft("retrain")
        (raw / "train" / "hat" / "pipe.jpg").unlink()
        project.write("expectations/ours.json", json.dumps(NO_HATS))
        self.no_hats = project.regraft("retrain")
        (project.root / "expectations" / "ours.json").unlink()
        self._break(raw)
        self.edited = self._edit_while_it_runs()
        self.checked = project.run("dvc", "repro", "check_features")

    def _break(self, raw: Path) -> None:
        hats = raw / "train" / "hat"
        self.leaked = sorted((raw / "train" / "shoes").glob("*.jpg"))[0]
        with Image.open(self.leaked) as photo:
            width, height = photo.size
            part = photo.crop((width // 50, height // 50, width - width // 50, height - height // 50))
            part.save(raw / "test" / "shoes" / "again.jpg", quality=90)
        (hats / "half.jpg").write_bytes(self.leaked.read_bytes()[:1500])
        (hats / "empty.jpg").write_bytes(b"")
        (hats / "words.png").write_text("not an image")
        (hats / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
        (hats / "bomb.png").write_bytes(black_png(30_000, whole=False))
        (hats / "slow.png").write_bytes(black_png(9000, whole=True))
        (hats / "notes.txt").write_text("nobody meant this as an image")
        self.project.set_params({"validate_data.max_pixels": 90_000_000, "validate_data.max_seconds": 0.5})
        self.project.set_limits({"readable_images": 0.5})

    def _edit_while_it_runs(self) -> Command:
        """Write one photo anew, as a whole, again and again until the run ends."""
        recorded = self.project.read("data/raw.dvc")
        command = self.project.start(*REGRAFT, "retrain")
        command.wait_until(lambda: self.project.read("data/raw.dvc") != recorded, "it has recorded the photos")
        numbers, draft = np.random.default_rng(0), self.project.root.parent / "draft.png"
        give_up = time.monotonic() + 300
        while command.process.poll() is None:
            assert time.monotonic() < give_up, command.output
            save_photo(draft, numbers.integers(0, 256, (64, 64, 3), np.uint8))
            draft.rename(self.project.raw / "train" / "hat" / "late.png")
            time.sleep(0.05)
        return command


@pytest.fixture(scope="module")
def checks(projects: Callable[..., Project], first_run: Ran) -> Checks:
    """A folder of clothes, and what was put into it. The store of another project has the backbone's graph already."""
    project = projects()
    shutil.copytree(first_run.project.root / "build/store", project.root / "build/store")
    project.set_limits({"enough_images_per_class": 1})
    return Checks(project)


def test_what_would_hold_up_a_run_is_refused_by_name_before_anything_reads_it(checks: Checks) -> None:
    assert (checks.pipe.status, "pipe.jpg" in checks.pipe.output) == (1, True), checks.pipe.output


def test_an_expectation_of_the_users_own_stops_the_run_in_the_users_words(checks: Checks) -> None:
    assert checks.no_hats.status == 1
    assert "we sell no hats" in checks.no_hats.output
    assert not (checks.project.root / "models" / "model.onnx").exists()


def test_an_input_that_is_edited_while_it_is_read_fails_that_run_and_the_next_one_goes_on(checks: Checks) -> None:
    assert checks.edited.status == 1
    assert "preprocess: Ran" not in checks.edited.output
    assert "data/raw" in checks.edited.output
    assert checks.checked.status == 0, checks.checked.output


def test_broken_hostile_and_slow_files_are_quarantined_with_a_reason_and_the_others_are_used(checks: Checks) -> None:
    files = {row["path"]: row for row in checks.project.report("validation")["not_used"]}
    assert {path for path in BROKEN if path in files} == set(BROKEN)
    for path, word in BROKEN.items():
        assert word in files[path]["reason"], files[path]
        assert files[path]["reason"]
    assert "bomb.png" in checks.edited.output
    assert checks.project.report("features")["images"] == 60 + 2  # the leak and the late one; no broken one


def test_photos_that_are_nearly_the_same_in_two_splits_are_named_as_leaks(checks: Checks) -> None:
    warned = [each for each in checks.project.report("embeddings")["expectations"] if not each["success"]]
    text = json.dumps([each["offenders"] for each in warned])
    assert "test/shoes/again.jpg" in text
    assert f"train/shoes/{checks.leaked.name}" in text


def parquet_of(folder: Path, photos: dict[str, bytes]) -> None:
    """Write an export of Hugging Face: images and labels in a Parquet file."""
    rows = [{"image": {"bytes": contents, "path": name}, "label": name[:3]} for name, contents in photos.items()]
    folder.mkdir()
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "train-00000-of-00001.parquet")


def coco_of(folder: Path, photos: dict[str, bytes]) -> None:
    """Write an export in COCO's format."""
    (folder / "images").mkdir(parents=True)
    for name, contents in photos.items():
        (folder / "images" / name).write_bytes(contents)
    names = [*photos]
    whole = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 1 if name[:3] == "cat" else 2, "bbox": [0, 0, 1, 1]}
            for number, name in enumerate(names)
        ],
    }
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances.json").write_text(json.dumps(whole))


def webdataset_of(folder: Path, photos: dict[str, bytes]) -> None:
    """Write a tar file of a WebDataset."""
    folder.mkdir()
    with tarfile.open(folder / "train-000000.tar", "w") as tar:
        for name, contents in photos.items():
            stem = name.removesuffix(".jpg")
            for suffix, part in (("jpg", contents), ("txt", name[:3].encode())):
                entry = tarfile.TarInfo(f"{stem}.{suffix}")
                entry.size = len(part)
                tar.addfile(entry, io.BytesIO(part))


def label_studio_of(folder: Path, photos: dict[str, bytes]) -> None:
    """Write an export of Label Studio in JSON-MIN."""
    folder.mkdir()
    for name, contents in photos.items():
        (folder / name).write_bytes(contents)
    rows = [{"id": number, "image": name, "choice": name[:3]} for number, name in enumerate(photos)]
    (folder / "project.json").write_text(json.dumps(rows))


def folder_of(folder: Path, photos: dict[str, bytes]) -> None:
    """Write a folder for each class."""
    for name, contents in photos.items():
        (folder / name[:3]).mkdir(parents=True, exist_ok=True)
        (folder / name[:3] / name).write_bytes(contents)


EXPORTS = {
    "hugging face": (parquet_of, "", []),
    "coco": (coco_of, "", []),
    "webdataset": (webdataset_of, "", []),
    "label studio": (label_studio_of, "project.json", ["--photos", "{folder}"]),
    "folder": (folder_of, "", []),
}


@pytest.mark.parametrize("format_name", EXPORTS)
def test_regraft_table_makes_a_labelled_folder_of_the_export_of_another_tool(
    format_name: str, checks: Checks, tmp_path: Path
) -> None:
    write, source, options = EXPORTS[format_name]
    paths = sorted((PHOTOS / "train").rglob("*.jpg"))[:4]
    names = ["cat 1.jpg", "cat 2.jpg", "dog 1.jpg", "dog 2.jpg"]
    photos = {name.replace(" ", "-"): path.read_bytes() for name, path in zip(names, paths, strict=True)}
    write(tmp_path / "export", photos)
    project = Project(tmp_path / "project", checks.project.environment)
    project.raw.mkdir(parents=True)
    for name in ("regraft", "tasks", "flows", "params.yaml", "dvc.yaml"):
        (project.root / name).symlink_to(checks.project.root / name)
    options = [option.format(folder=tmp_path / "export") for option in options]
    project.succeed(*REGRAFT, "table", str(tmp_path / "export" / source), *options)
    rows = project.table("data/raw/labels.csv")
    assert sorted(row["label"] for row in rows) == ["cat", "cat", "dog", "dog"]
    assert sorted((project.raw / row["path"]).read_bytes() for row in rows) == sorted(photos.values())
