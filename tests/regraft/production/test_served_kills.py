"""kill -9 at every step of writing the Triton repository, seen as a server sees it that looks at any moment."""

from pathlib import Path

import pytest

from regraft.files import sha256_of
from regraft.production.registry import Production
from regraft.serving.triton import versions_in
from tests.support.served import promote_and_serve, roll_back_and_serve, serve, write_colour_model
from tests.support.steps import Stepping

FIVE = ("a", "b", "c", "d", "e")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models" / "production"


def seen(folder: Path) -> str | None:
    """The model that Triton takes, after a look at all that must hold whatever was killed; None if there is none."""
    repository = folder / "regraft"
    if not repository.exists():
        return None
    assert (repository / "config.pbtxt").is_file()
    assert (repository / "labels.txt").is_file()
    for version in versions_in(repository):
        model = repository / str(version) / "model.onnx"
        assert (repository / str(version) / "model.onnx.sha256").read_text() == f"{sha256_of(model)}  model.onnx\n"
        assert {"golden.json", "golden.png"} <= {path.name for path in model.parent.iterdir()}
    return sha256_of(repository / str(versions_in(repository)[-1]) / "model.onnx")


def test_whenever_the_first_repository_is_killed_it_is_whole_or_not_there_and_the_next_command_completes_it(folder):
    production = Production(folder)
    production.promote(write_colour_model(folder), "a test", keep=5)
    step, found = 0, set()
    while True:
        step += 2
        project = folder.parent / str(step)
        Production(project).promote(write_colour_model(folder), "a test", keep=5)
        if not Stepping(serve, project, at=step).is_killed():
            break
        found.add(seen(project))
        serve(project)
        assert seen(project) == sha256_of(project / "model.onnx")
        assert not (project / ".next-version").exists()
    assert found == {None}  # it gets its name last of all
    assert step > 15


@pytest.mark.parametrize("change", [promote_and_serve, roll_back_and_serve])
def test_whenever_a_change_is_killed_an_old_or_a_new_version_is_served_and_the_next_command_completes_it(
    folder, change
):
    promote_and_serve(folder, 1.0)
    promote_and_serve(folder, 2.0)
    promote_and_serve(folder, 3.0, FIVE)
    step, found = 0, []
    while True:
        step += 3  # a change has about a hundred
        arguments = (1.0 + step, ("x", "y")) if change is promote_and_serve else ()
        before = sha256_of(folder / "model.onnx")
        if not Stepping(change, folder, *arguments, at=step).is_killed():
            break
        model = sha256_of(folder / "model.onnx")
        found.append((seen(folder) == model, model == before))
        serve(folder)
        assert seen(folder) == model
        assert len(versions_in(folder / "regraft")) == 2
        promote_and_serve(folder, 3.0 + step, FIVE)
    assert {(True, True), (False, False), (True, False)} <= set(found)
    assert step > 30
