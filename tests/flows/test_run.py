"""The frame around every flow: how runs end, with a server, without one, and with one that is lost in the middle."""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from regraft.production.run_history import read_rows
from tests.support.answering import answering
from tests.support.prefect_server import Server, free_port, running_server
from tests.support.project import Command
from tests.support.toy import Toy

pytestmark = pytest.mark.flow
CHAIN = ["python", "-m", "flows.chain"]


def history(toy: Toy) -> list[tuple[str, str]]:
    """The names and sentences of all runs."""
    return [(row.name, row.reason) for row in read_rows(toy.root / "models" / "production")]


def living(toy: Toy) -> list[str]:
    """What is left of runs that nobody has told of."""
    return [path.name for path in (toy.root / ".dvc/tmp/regraft/runs").glob("*.json")]


@dataclass(frozen=True, slots=True)
class Stopped:
    """A run without a server that was stopped by a signal, as it was seen before and after."""

    commands: list[str]  # of all processes that it had started
    number: signal.Signals
    run: Command
    history: list[tuple[str, str]]
    living: list[str]


@pytest.fixture(scope="module", params=[signal.SIGINT, signal.SIGTERM])
def stopped(
    request: pytest.FixtureRequest, toys: Callable[..., Toy], kind: str, tmp_path_factory: pytest.TempPathFactory
) -> Stopped:
    """Stop a run in the middle of a stage, by each signal."""
    folder = tmp_path_factory.mktemp("stopped")
    toy = toys(kind).copy(folder)
    run = toy.start_and_stop_in("second", *CHAIN, PREFECT_HOME=str(folder / "prefect"))
    commands = [" ".join(child.cmdline()) for child in psutil.Process(run.process.pid).children(recursive=True)]
    run.process.send_signal(request.param)
    assert run.status is not None
    commands += [path.name for path in (folder / "prefect").glob("*.db")]
    return Stopped(commands, request.param, run, history(toy), living(toy))


def test_a_run_that_is_stopped_says_where_in_one_line(stopped: Stopped) -> None:
    last = stopped.run.output.strip().splitlines()[-1]
    assert (last, "Traceback" in stopped.run.output) == ("Cancelled: Stopped in second. Run again to go on.", False)


def test_a_run_that_is_stopped_has_the_exit_status_that_a_shell_expects(stopped: Stopped) -> None:
    assert stopped.run.status == 128 + stopped.number


def test_a_run_that_is_stopped_has_its_line_of_history_and_is_not_taken_for_dead(stopped: Stopped) -> None:
    assert stopped.history == [("Cancelled", "Stopped in second. Run again to go on.")]
    assert stopped.living == []


def test_where_there_is_no_server_none_is_started(stopped: Stopped) -> None:
    assert [command for command in stopped.commands if "server" in command or command.endswith(".db")] == []


def test_a_run_that_is_stopped_is_no_crash_to_a_server_or_a_person(new_toy: Toy, server: Server) -> None:
    run = new_toy.start_and_stop_in("second", *CHAIN, PREFECT_API_URL=server.api)
    run.process.send_signal(signal.SIGINT)
    assert run.status == 128 + signal.SIGINT
    assert server.last_flow_run()["state"]["name"] == "Cancelled"
    assert ("Crash detected" in run.output, "Cancelled: Stopped in second" in run.output) == (False, True), run.output


def test_a_run_that_was_killed_is_told_of_by_the_next_one_which_goes_on(new_toy: Toy) -> None:
    new_toy.start_and_stop_in("second", *CHAIN).kill()
    new_toy.withdraw("second", "wait")
    run = new_toy.succeed(*CHAIN)
    assert "first: Up to date" in run.output
    assert ([name for name, _ in history(new_toy)], living(new_toy)) == (["Crashed", "Completed"], [])


def test_a_defect_is_a_failure_with_its_traceback_and_leaves_its_line_of_history(new_toy: Toy) -> None:
    new_toy.write("tasks/second.py", new_toy.read("tasks/second.py").replace("obey(", "1 / 0; obey("))
    run = new_toy.run(*CHAIN)
    assert (run.status, "Traceback" in run.output) == (1, True)
    assert run.output.count("Failed: ZeroDivisionError: division by zero. That is no message of Regraft's own") == 1
    assert [name for name, _ in history(new_toy)] == ["Failed"]


def test_a_file_that_may_not_be_written_is_a_failure_in_words(new_toy: Toy) -> None:
    refused = "raise PermissionError(13, 'Permission denied', 'models/head.npz'); obey("
    new_toy.write("tasks/second.py", new_toy.read("tasks/second.py").replace("obey(", refused))
    run = new_toy.run(*CHAIN)
    assert (run.status, "Traceback" in run.output) == (1, False), run.output
    assert "Failed: models/head.npz cannot be written or read (Permission denied). Make it" in run.output


def test_a_server_that_lets_nobody_in_keeps_no_run_from_its_work(new_toy: Toy) -> None:
    with answering({"GET health": (200, True)}) as server:  # all else it does not know
        run = new_toy.run(*CHAIN, PREFECT_API_URL=server.url, PREFECT_CLIENT_MAX_RETRIES="0")
    assert (run.status, "The Prefect server does not follow this run" in run.output) == (0, True), run.output
    assert ("third: Ran" in run.output, "Traceback" in run.output) == (True, False), run.output
    assert [name for name, _ in history(new_toy)] == ["Completed"]


def test_a_run_ends_well_though_the_server_is_killed_and_the_next_run_tells_it(new_toy: Toy, tmp_path: Path) -> None:
    port, home = free_port(), {"PREFECT_HOME": str(tmp_path / "prefect")}
    with running_server(tmp_path, new_toy.environment | home, port=port) as server:
        run = new_toy.start_and_stop_in("second", *CHAIN, PREFECT_API_URL=server.api)
        (begun,) = server.post("flow_runs/filter", {})
    new_toy.withdraw("second", "wait")
    assert (run.status, "Traceback" in run.output) == (0, False), run.output
    assert "The Prefect server does not answer. What it was not told of this run, the next run tells it." in run.output
    assert [name for name, _ in history(new_toy)] == ["Completed"]
    (kept,) = living(new_toy)
    with running_server(tmp_path, new_toy.environment | home, port=port) as server:
        assert server.ask("GET", f"flow_runs/{begun['id']}")["state"]["name"] == "Running"
        new_toy.succeed(*CHAIN, PREFECT_API_URL=server.api)
        told = server.ask("GET", f"flow_runs/{begun['id']}")
    assert (told["state"]["name"], told["state"]["message"]) == ("Completed", "every stage is up to date")
    assert told["name"].endswith("completed")
    assert kept not in living(new_toy)
