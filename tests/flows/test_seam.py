"""One truth, two runners: in whatever order `dvc repro` and a flow's stages run, both go by the same dvc.lock."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.project import Command
from tests.support.toy import DVC, FLOW, KINDS, PARAMS, STAGES, Toy, build_toy

pytestmark = pytest.mark.flow
each_runner = pytest.mark.parametrize("runner", [DVC, FLOW], scope="module")
both_kinds = pytest.mark.parametrize("kind", list(KINDS), scope="module")
each_runner_after_the_other = pytest.mark.parametrize(("made_by", "runner"), [(DVC, FLOW), (FLOW, DVC)])
RECORD = """
from pathlib import Path
from tasks.dvc_seam import record_data
from tasks.project import enter_project
print(record_data(enter_project(), Path("data/raw")))
"""

CHANGES: dict[str, tuple[Callable[[Toy], None], list[str]]] = {
    "a param": (lambda toy: toy.set_param(PARAMS["second"], 0.21), ["second", "third"]),
    "a new data file": (lambda toy: toy.write("data/raw/durian.txt", "one durian"), ["first", "second", "third"]),
    "a data file's contents": (lambda toy: toy.write("data/raw/apple.txt", "two apples"), ["first", "third"]),
    "a module": (lambda toy: toy.write("tasks/second.py", toy.edited_module("second")), ["second", "third"]),
    "a param of no stage": (lambda toy: toy.set_param("machine.batch_size", 7), []),
}


@both_kinds
def test_after_the_flow_dvc_repro_runs_nothing(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy(FLOW)
    toy.succeed("dvc", "repro")
    assert toy.runs == []


@pytest.mark.parametrize("made_by", [DVC, FLOW])
def test_the_flow_skips_every_stage_that_is_up_to_date(make_toy: Callable[..., Toy], made_by: str) -> None:
    assert make_toy(made_by).bring_up_to_date(FLOW).outcomes == dict.fromkeys(STAGES, "Up to date")


def test_exactly_the_affected_stages_run(finished_toy: Toy) -> None:
    for change, (make_change, affected) in CHANGES.items():
        make_change(finished_toy)
        finished_toy.forget_runs()
        finished_toy.bring_up_to_date(FLOW)
        assert finished_toy.runs == affected, change


def test_exactly_the_affected_stages_run_under_dvc(finished_toy: Toy) -> None:
    for change in ("a data file's contents", "a param of no stage"):
        CHANGES[change][0](finished_toy)
    finished_toy.bring_up_to_date(DVC)
    assert finished_toy.runs == ["first", "third"]


@each_runner_after_the_other
def test_results_that_one_runner_computed_are_restored_by_the_other(
    make_toy: Callable[..., Toy], made_by: str, runner: str
) -> None:
    toy = make_toy(made_by)
    results, params = toy.results, toy.read("params.yaml")
    toy.set_param(PARAMS["second"], 0.21)
    toy.bring_up_to_date(made_by)
    toy.forget_runs()
    toy.write("params.yaml", params)
    run = toy.bring_up_to_date(runner)
    assert (toy.results, toy.runs) == (results, [])
    if runner == FLOW:
        assert run.outcomes == {"first": "Up to date", "second": "Restored", "third": "Restored"}


@each_runner_after_the_other
def test_a_deleted_output_is_restored_and_not_computed_again(
    make_toy: Callable[..., Toy], made_by: str, runner: str
) -> None:
    toy = make_toy(made_by)
    results = toy.results
    (toy.root / "build/second.txt").unlink()
    toy.bring_up_to_date(runner)
    assert (toy.results, toy.runs) == (results, [])


def test_dvc_runs_a_stage_through_the_function_that_the_seam_replaces(new_toy: Toy) -> None:
    script = (
        "import dvc.stage.run; from dvc.repo import Repo\n"
        "def replaced(stage, dry=False, run_env=None): raise SystemExit(f'replaced {stage.addressing}')\n"
        "dvc.stage.run.cmd_run = replaced\n"
        "Repo().reproduce('record_code', single_item=True)\n"
    )
    assert "replaced record_code" in new_toy.run("python", "-c", script).output


def test_the_flow_calls_the_function_in_its_own_process_and_not_the_command(new_toy: Toy) -> None:
    new_toy.write("dvc.yaml", new_toy.read("dvc.yaml").replace("cmd: python -m tasks.", "cmd: no-such-command "))
    assert new_toy.bring_up_to_date(FLOW).outcomes == dict.fromkeys(STAGES, "Ran")


def test_the_first_run_records_the_data_folder(new_toy: Toy) -> None:
    assert new_toy.succeed("python", "-c", RECORD).stdout.split("\n")[-2] == "Recorded"


@pytest.mark.parametrize("change", ["added", "deleted"])
def test_a_changed_data_file_is_recorded(new_toy: Toy, change: str) -> None:
    new_toy.succeed("python", "-c", RECORD)
    path = new_toy.root / "data/raw" / ("durian.txt" if change == "added" else "apple.txt")
    path.unlink() if change == "deleted" else path.write_text("one durian")
    assert new_toy.succeed("python", "-c", RECORD).stdout.split("\n")[-2] == "Recorded"


@pytest.mark.parametrize("was_recorded", [False, True])
def test_a_missing_data_folder_is_told_with_what_to_do_before_dvc_stumbles_over_it(
    new_toy: Toy, was_recorded: bool
) -> None:
    if was_recorded:
        new_toy.succeed("python", "-c", RECORD)
    (new_toy.root / "data" / "raw").rename(new_toy.root / "elsewhere")
    ran = new_toy.run("python", "-c", RECORD)
    assert ran.status == 1
    assert "there is no data folder data/raw. Expected labelled photos" in ran.output


@pytest.fixture(scope="module")
def failed(toys: Callable[..., Toy], kind: str, runner: str, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """A run whose second stage fails."""
    toy = toys(kind).copy(tmp_path_factory.mktemp("toy"))
    toy.order("second", "fail", "put at least 10 images into each class.")
    return toy.bring_up_to_date(runner)


@each_runner
def test_an_error_of_a_stage_reaches_the_person_as_its_own_message(failed: Command) -> None:
    assert " stopped: put at least 10 images into each class." in failed.output


def test_a_failed_stage_does_not_lose_what_the_stages_before_it_did(new_toy: Toy) -> None:
    new_toy.order("second", "fail", "put at least 10 images into each class.")
    new_toy.bring_up_to_date(FLOW)
    new_toy.withdraw("second", "fail")
    assert new_toy.bring_up_to_date(FLOW).outcomes == {"first": "Up to date", "second": "Ran", "third": "Ran"}


COMMANDS_OF_A_PROJECT = {"stage": ["python", "-m", "tasks.first"], "flow": ["python", "../in_process.py"]}


@pytest.mark.parametrize("command", COMMANDS_OF_A_PROJECT)
def test_outside_the_root_a_command_says_where_to_start_it(new_toy: Toy, command: str) -> None:
    run = new_toy.run(*COMMANDS_OF_A_PROJECT[command], folder="data", PYTHONPATH=str(new_toy.root))
    assert (run.status, "Traceback" in run.output) == (1, False)
    assert "stopped: run this in the project's root, the folder that holds params.yaml and dvc.yaml." in run.output


@pytest.fixture
def toy_without_dvc(environment: dict[str, str], kind: str, tmp_path: Path) -> Toy:
    """A toy project before `dvc init`."""
    (tmp_path / "project").mkdir()
    toy = build_toy(tmp_path / "project", environment)
    if kind == "git":
        toy.succeed("git", "init", "--quiet")
    return toy


@both_kinds
def test_before_dvc_init_the_flow_says_what_to_do(toy_without_dvc: Toy) -> None:
    run = toy_without_dvc.bring_up_to_date(FLOW)
    assert (run.status, "Traceback" in run.output) == (1, False)
    assert "is not a DVC project yet. Run `dvc init`" in run.output


@both_kinds
def test_a_stage_that_was_started_before_dvc_init_does_not_stand_in_its_way(toy_without_dvc: Toy, kind: str) -> None:
    toy_without_dvc.run("python", "-m", "tasks.first")
    toy_without_dvc.succeed(*KINDS[kind][-1])
    assert (toy_without_dvc.root / ".dvc/config").exists()


@both_kinds
def test_a_project_whose_git_repository_is_missing_is_told_so(finished_toy: Toy) -> None:
    """As after unpacking an archive: .dvc/config is there and says nothing of --no-scm."""
    if (finished_toy.root / ".git").exists():
        (finished_toy.root / ".git").rename(finished_toy.root.parent / "git")
    else:
        (finished_toy.root / ".dvc/config").write_text("")
    run = finished_toy.bring_up_to_date(FLOW)
    assert (run.status, "Traceback" in run.output) == (1, False)
    assert "git" in run.output
