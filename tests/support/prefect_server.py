"""What the tests ask a Prefect server of their own about flow runs, as the UI shows them."""

from dataclasses import dataclass

from benchmarks.server import Server


@dataclass(frozen=True)
class FlowRun:
    """What the UI shows of a flow run that has ended."""

    state: str
    task_states: dict[str, str]


def task_states(server: Server, flow_run: str) -> dict[str, str]:
    """Return the name of the state of every task of a flow run, given its id."""
    return {task.name: task.outcome for task in server.tasks_of(flow_run)}


def last_flow_run(server: Server) -> FlowRun:
    """Return the flow run that started last, when its end is known."""
    run = server.last_flow_run()
    return FlowRun(run["state"]["name"], task_states(server, run["id"]))
