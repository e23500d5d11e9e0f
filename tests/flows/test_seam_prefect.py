"""The toy project's real Prefect flow, against a real server: what the UI shows, and what a person is told."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.support.prefect_server import Server, task_states
from tests.support.project import Command
from tests.support.toy import COMMANDS, DVC, FLOW, PARAMS, STAGES, Toy

pytestmark = pytest.mark.flow
CHAIN = ["python", "-m", "flows.chain"]


@dataclass(frozen=True)
class Story:
    """What was seen while one project lived through two flow runs."""

    new: dict[str, str]  # state of every task of the first run
    status: str  # what dvc said after it
    runs_of_dvc: list[str]  # and what it did
    later: dict[str, str]  # state of every task of a run after dvc computed something else and that was taken back


@pytest.fixture(scope="module")
def story(toys: Callable[..., Toy], kind: str, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Run the flow in a new project; ask dvc; change a param, run dvc, and take the change back; run the flow again."""
    toy = toys(kind).copy(tmp_path_factory.mktemp("toy"))
    new = _states_after_flow(toy, server)
    status = toy.succeed("dvc", "status").output
    toy.forget_runs()
    toy.succeed(*COMMANDS[DVC])
    runs = toy.runs
    params = toy.read("params.yaml")
    toy.set_param(PARAMS["second"], 0.21)
    toy.succeed(*COMMANDS[DVC])
    toy.write("params.yaml", params)
    return Story(new, status, runs, _states_after_flow(toy, server))


def test_tasks_whose_function_ran_are_named_so(story: Story) -> None:
    assert [story.new[stage] for stage in STAGES] == ["Ran", "Ran", "Ran"]


def test_tasks_with_nothing_to_do_are_named_so(story: Story) -> None:
    assert [story.later[task] for task in ("record_data", "first")] == ["Up to date", "Up to date"]


def test_tasks_whose_outputs_came_from_the_run_cache_are_named_so(story: Story) -> None:
    assert [story.later[task] for task in ("second", "third")] == ["Restored", "Restored"]


def test_prefect_does_not_cache_what_a_task_did_before_in_the_same_process(new_toy: Toy, server: Server) -> None:
    script = "from flows.chain import chain; chain()\nopen('data/raw/apple.txt', 'w').write('two apples'); chain()"
    new_toy.succeed("python", "-c", script, PREFECT_API_URL=server.api)
    assert "two apples" in new_toy.read("build/third.txt")


def test_an_error_of_a_stage_is_the_last_thing_that_the_person_reads_and_is_told_once(
    new_toy: Toy, server: Server
) -> None:
    new_toy.order("second", "fail", "put at least 10 images into each class.")
    run = new_toy.run(*CHAIN, PREFECT_API_URL=server.api)
    assert run.status == 1
    assert run.output.strip().split("\n")[-1] == "Failed: put at least 10 images into each class."
    assert (run.output.count("put at least 10 images"), "Traceback" in run.output) == (1, False), run.output


OTHERS = {"flow": CHAIN, "by hand": ["python", "-m", "tasks.second"]}
WAITS = {
    "flow": "Waiting for the run started by hand at",
    "by hand": "Waiting: stage second is running in another process",
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_flow_waits_while_another_process_works_and_says_for_whom(
    finished_toy: Toy, server: Server, other: str
) -> None:
    finished_toy.set_param(PARAMS["second"], 0.21)
    first = finished_toy.start_and_stop_in("second", *OTHERS[other], PREFECT_API_URL=server.api)
    second = finished_toy.start(*CHAIN, PREFECT_API_URL=server.api)
    second.wait_until(lambda: WAITS[other] in second.output, "it waits")
    finished_toy.withdraw("second", "wait")
    assert (first.status, second.status) == (0, 0), first.output + second.output
    assert second.output.count("Waiting") == 1


def test_a_flow_that_waited_in_vain_says_which_process_it_waited_for(new_toy: Toy) -> None:
    other = new_toy.start_and_stop_in("second", *COMMANDS[FLOW])
    new_toy.set_param("nights.wait_minutes", 0.01)
    run = new_toy.run(*CHAIN)
    assert run.status == 1
    assert f"PID {other.process.pid}" in run.output.rpartition("Failed:")[2], run.output


def test_params_that_are_edited_while_the_flow_waits_for_a_lock_are_used_by_the_next_run_at_the_latest(
    finished_toy: Toy, server: Server
) -> None:
    finished_toy.set_param(PARAMS["second"], 0.21)
    (finished_toy.root.parent / "edited").write_text(finished_toy.params_with(PARAMS["second"], 0.31))
    script = (
        "import shutil; from prefect import flow; from tasks import dvc_seam; from tasks.second import second\n"
        "open_repo = dvc_seam.open_repo\n"
        "def open_after_a_wait(root): shutil.copy('../edited', 'params.yaml'); return open_repo(root)\n"
        "dvc_seam.open_repo = open_after_a_wait\n"
        "flow(lambda: second(), name='one stage')()"
    )
    finished_toy.run("python", "-c", script, PREFECT_API_URL=server.api)
    finished_toy.succeed(*COMMANDS[DVC])
    assert "0.31" in finished_toy.read("build/second.txt")


def _states_after_flow(toy: Toy, server: Server) -> dict[str, str]:
    run: Command = toy.succeed(*CHAIN, PREFECT_API_URL=server.api)
    return task_states(server, run.stdout.split("flow run ")[1].split()[0])
