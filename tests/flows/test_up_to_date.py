"""What is asked before every run: the answer is that of the run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.toy import KINDS, PARAMS, Toy

pytestmark = pytest.mark.flow
ASK = (
    "import sys; from pathlib import Path; from tasks.up_to_date import nothing_to_do\n"
    "print(nothing_to_do(Path.cwd(), promote={promote}), 'prefect' in sys.modules)"
)


def said(toy: Toy, *, promote: bool = False) -> str:
    """What the toy project is told."""
    return toy.succeed("python", "-c", ASK.format(promote=promote)).stdout.strip()


@pytest.fixture
def recorded_toy(finished_toy: Toy) -> Toy:
    """A project in which the data is recorded and every stage up to date."""
    finished_toy.succeed("dvc", "add", "--quiet", "data/raw")
    finished_toy.write("models/model.onnx", "a model")
    finished_toy.write("models/production/model.onnx", "a model")
    return finished_toy


@pytest.mark.parametrize("kind", list(KINDS), scope="module")
def test_where_nothing_changed_there_is_nothing_to_do(recorded_toy: Toy) -> None:
    assert said(recorded_toy) == "('Completed', 'every stage is up to date.') False"
    assert said(recorded_toy, promote=True).startswith("('Already in production', 'every stage is up to date")


def _damage(toy: Toy) -> None:
    (toy.root / "build/second.txt").write_text("edited by hand")


EDITS: dict[str, Callable[[Toy], object]] = {
    "a new photo": lambda toy: toy.write("data/raw/durian.txt", "one durian"),
    "an edited photo": lambda toy: toy.write("data/raw/apple.txt", "two apples"),
    "a missing photo": lambda toy: (toy.root / "data/raw/apple.txt").unlink(),
    "an edited param": lambda toy: toy.set_param(PARAMS["second"], 0.31),
    "an edited module": lambda toy: toy.write("tasks/second.py", toy.edited_module("second")),
    "a missing output": lambda toy: (toy.root / "build/third.txt").unlink(),
    "an output edited by hand": _damage,
    "a missing dvc.lock": lambda toy: (toy.root / "dvc.lock").unlink(),
}


def test_after_any_edit_there_is_something_to_do(recorded_toy: Toy, tmp_path: Path) -> None:
    for number, (what, edit) in enumerate(EDITS.items()):
        toy = recorded_toy.copy(tmp_path / f"edited-{number}")
        edit(toy)
        assert said(toy) == "None False", what


def test_a_library_that_was_installed_by_hand_is_something_to_do(
    recorded_toy: Toy, another_numpy: dict[str, str]
) -> None:
    asked = recorded_toy.succeed("python", "-c", ASK.format(promote=False), **another_numpy)
    assert asked.stdout.strip() == "None False"


@pytest.mark.parametrize("production", ["another model", None])
def test_a_model_that_is_not_in_production_is_something_to_do_for_the_gate_only(
    recorded_toy: Toy, production: str | None
) -> None:
    (recorded_toy.root / "models/production/model.onnx").unlink()
    if production:
        recorded_toy.write("models/production/model.onnx", production)
    assert said(recorded_toy, promote=True) == "None False"
    assert said(recorded_toy).startswith("('Completed'")
