"""A night of dark photos among which one has a wrong label and one shows nothing known: each is found, and told."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.promises.conftest import DIGITS, PER_CLASS, Ran, write_table
from tests.promises.user import Command, Project, save_photo

pytestmark = pytest.mark.flow
DARK = 10  # new photos of each digit


class Night:
    """What the checks said."""

    def __init__(self, project: Project, digits: Path) -> None:
        self.project = project
        rows = project.table("data/raw/labels.csv")
        for digit in DIGITS:
            for source in sorted((digits / digit).glob("*.png"))[PER_CLASS : PER_CLASS + DARK]:
                with Image.open(source) as photo:
                    save_photo(project.raw / digit / source.name, np.asarray(photo) // 2)
                rows.append({"path": f"{digit}/{source.name}", "label": digit, "group": "", "camera": "left"})
        self.mislabelled = self._add(rows, sorted((digits / "6").glob("*.png"))[-1], "0/a six.png")
        noise = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
        save_photo(project.root.parent / "noise.png", noise)
        self.strange = self._add(rows, project.root.parent / "noise.png", "1/noise.png")
        self.twins = self._twins(rows)
        write_table(project, rows)
        self.checked: Command = project.succeed("dvc", "repro", "choose_base")

    def _twins(self, rows: list[dict[str, str]]) -> dict[str, str]:
        """Add a photo of val and one of test again, a bit brighter; return by the new paths those of the photos."""
        photos, twins = pd.read_parquet(self.project.root / "build/dataset.parquet"), {}
        for split in ("val", "test"):
            path = photos.path[photos.split == split].iloc[0]
            with Image.open(self.project.raw / path) as photo:
                save_photo(self.project.root.parent / "twin.png", np.asarray(photo).clip(0, 250) + 5)
            twins[self._add(rows, self.project.root.parent / "twin.png", f"{path[0]}/{split} again.png")] = path
        return twins

    def _add(self, rows: list[dict[str, str]], source: Path, path: str) -> str:
        shutil.copy2(source, self.project.raw / path)
        rows.append({"path": path, "label": path[0], "group": "", "camera": "left"})
        return path

    def expectations(self, report: str) -> dict[str, dict]:
        """Return what a report says of each expectation."""
        return {each["name"]: each for each in self.project.report(report)["expectations"]}


@pytest.fixture(scope="module")
def night(first_run: Ran, projects: Callable[..., Project], digits: Path) -> Night:
    """The night after the first one."""
    return Night(projects(first_run), digits)


def test_a_label_that_the_other_photos_contradict_is_ranked_first(night: Night) -> None:
    ranked = night.project.table("reports/label_errors.csv")
    assert night.mislabelled in [row["path"] for row in ranked[:3]]
    row = next(row for row in ranked if row["path"] == night.mislabelled)
    assert (row["label"], row["suggested"]) == ("0", "6")


def test_a_photo_unlike_all_others_is_named(night: Night) -> None:
    assert night.strange in night.expectations("embeddings")["no_outliers"]["offenders"][0]


def test_a_night_of_darker_photos_is_told_as_drift(night: Night) -> None:
    warned = [each for each in night.expectations("validation").values() if not each["success"]]
    assert "brightness" in json.dumps(warned)


def test_a_near_duplicate_joins_the_split_of_the_photo_that_it_shows_again(night: Night) -> None:
    photos = pd.read_parquet(night.project.root / "build/dataset.parquet").set_index("path")
    assert [(photos.split[twin], photos.split[path]) for twin, path in night.twins.items()] == [
        ("val", "val"),
        ("test", "test"),
    ]


def test_on_a_healthy_night_no_check_warns(first_run: Ran, second_run: Ran) -> None:
    for ran in (first_run, second_run):
        for name in ("validation", "embeddings"):
            said = ran.project.report(name)["expectations"]
            assert [each for each in said if not each["success"] and each["severity"] == "warn"] == []


def test_with_more_than_a_tenth_of_new_photos_training_starts_from_scratch_and_says_so(night: Night) -> None:
    base = night.project.report("base")
    assert base["is_renewed"]
    assert re.search(r"renewed: \d+ of \d+ photos have changed", base["words"]), base["words"]
