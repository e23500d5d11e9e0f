"""Projects that several promises are asked of: each is built once, whoever asks first, and then copied, not changed."""

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from filelock import FileLock

from tests.promises.user import Project, clean_environment, new_project, outcomes_of

DIGITS = "0167"  # easy to tell apart, so that so few photos are enough
PER_CLASS, GROUPED = 30, 3
FIRST = {
    "preprocess.val_share": 0.2,
    "preprocess.test_share": 0.25,
    "evaluate.target_precision": 0.8,  # what so few val photos can show
}


@dataclass(frozen=True)
class Ran:
    """A project after a command, and what the command printed."""

    root: str
    status: int
    output: str
    model: str  # SHA-256 of models/model.onnx

    @property
    def outcomes(self) -> dict[str, str]:
        """The outcome of each step of a run."""
        return outcomes_of(self.output)

    @property
    def project(self) -> Project:
        """The project, to be read."""
        return Project(Path(self.root), {})


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of every command that a test starts."""
    return clean_environment(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], Any]], Any]:
    """A function that builds something once for all processes of this run of pytest; it returns JSON."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def build(name: str, function: Callable[[Path], Any]) -> Any:
        folder = base / f"promises-{name}"
        with FileLock(f"{folder}.lock"):
            result = folder / "result.json"
            if not result.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                result.write_text(json.dumps(function(folder)))
            return json.loads(result.read_text())

    return build


@pytest.fixture(scope="session")
def digits(once: Callable, environment: dict[str, str]) -> Path:
    """The folder of the 1,000 digits of `regraft table demo:digits`."""

    def write(folder: Path) -> str:
        project = Project(folder, environment)
        shutil.copy2(Path(__file__).parents[2] / "params.yaml", folder)
        return _demo_data(project)

    return Path(once("digits", write))


def _demo_data(project: Project) -> str:
    source = str(Path(__file__).parents[2])
    project.succeed(
        "python", "-m", "flows.cli", "table", "demo:digits", "--out", str(project.root / "digits"), PYTHONPATH=source
    )
    return str(project.root / "digits")


@pytest.fixture(scope="session")
def first_run(once: Callable, digits: Path, environment: dict[str, str]) -> Ran:
    """A project of 120 digits after its first `regraft retrain`: a labels.csv with groups and a slice. Copy it."""

    def build(folder: Path) -> dict[str, Any]:
        project = new_project(folder, environment, FIRST)
        project.succeed("git", "add", ".")
        project.succeed("git", "commit", "--quiet", "--message", "A project")
        write_digits(project, digits, {digit: range(PER_CLASS) for digit in DIGITS})
        return asdict(retrain(project))

    return Ran(**once("first", build))


@pytest.fixture(scope="session")
def second_run(once: Callable, first_run: Ran, digits: Path, environment: dict[str, str]) -> Ran:
    """The same after a second `regraft retrain`: three photos are new, one of a known group; one was renamed.

    A person moved one of train to test, which the base has seen. Its model waits for a person (promote.mode), and
    nobody is asked, since the run has no server.
    """

    def build(folder: Path) -> dict[str, Any]:
        project = copy_of(first_run, folder, environment)
        project.set_params({"promote.mode": "approve"})
        write_digits(project, digits, {digit: range(PER_CLASS + (digit != "7")) for digit in DIGITS})
        table = project.table("data/raw/labels.csv")
        (project.raw / "0" / "renamed.png").write_bytes((project.raw / table[0]["path"]).read_bytes())
        (project.raw / table[0]["path"]).unlink()
        table[0]["path"] = "0/renamed.png"
        table[-1]["group"] = "patient 6"
        moved = moved_to_test(first_run)
        write_table(project, [row | {"split": "test" if row["path"] == moved else ""} for row in table])
        return asdict(retrain(project))

    return Ran(**once("second", build))


@pytest.fixture(scope="session")
def projects(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Project]]:
    """A function that returns a project of a test's own: a copy of one that ran, or a new one with some settings."""
    made: list[Project] = []

    def make(of: Ran | None = None, settings: dict[str, Any] | None = None) -> Project:
        folder = tmp_path_factory.mktemp("promise")
        made.append(copy_of(of, folder, environment) if of else new_project(folder, environment, settings))
        return made[-1]

    yield make
    for project in made:
        project.end()


def moved_to_test(first_run: Ran) -> str:
    """Return the photo of train that a person moves to test before the second run: the first one without a group."""
    photos = pd.read_parquet(first_run.project.root / "build/dataset.parquet").set_index("path")
    table = first_run.project.table("data/raw/labels.csv")
    return next(row["path"] for row in table if not row["group"] and photos.split[row["path"]] == "train")


def copy_of(ran: Ran, folder: Path, environment: dict[str, str]) -> Project:
    """Copy a project with all that it has computed."""
    return Project(Path(shutil.copytree(ran.root, folder / "project", symlinks=True)), environment)


def retrain(project: Project) -> Ran:
    """Run `regraft retrain`."""
    ran = project.regraft("retrain")
    assert ran.status in (0, 2), ran.output
    return Ran(str(project.root), ran.status, ran.output, project.sha256("models/model.onnx"))


def write_digits(project: Project, digits: Path, numbers: dict[str, range]) -> None:
    """Put digits into the data folder, with a table: the first few of each digit are of one patient."""
    rows = []
    for digit, chosen in numbers.items():
        (project.raw / digit).mkdir(exist_ok=True)
        paths = sorted((digits / digit).glob("*.png"))
        for number in chosen:
            shutil.copy2(paths[number], project.raw / digit / paths[number].name)
            group = f"patient {digit}" if number < GROUPED else ""
            camera = "left" if number % 2 else "right"
            row = {"path": f"{digit}/{paths[number].name}", "label": digit, "group": group, "camera": camera}
            rows.append(row)
    write_table(project, rows)


def write_table(project: Project, rows: list[dict[str, str]]) -> None:
    """Write data/raw/labels.csv."""
    with (project.raw / "labels.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, [*rows[0]])
        table.writeheader()
        table.writerows(rows)
