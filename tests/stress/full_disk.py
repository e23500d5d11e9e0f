"""A disk that is full while a stage writes its results: is a person told so, and does the next run end as ever?

    python -m tests.stress.full_disk

A limit on the size of files takes the place of the disk: the system refuses to write on, to whatever library. It is
half of the largest file that the stage writes. Exit status 1 if a run ends well, with a traceback or without a word
about room, or if the run after it does not give what an undisturbed one does.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.stress.killed_project import ALL_STAGES, LARGEST_FILE, KilledProject, make_project
from tests.stress.run_kills import RUNNERS


def problems(project: KilledProject) -> Iterator[str]:
    """Let the disk be full once for every stage and runner, and yield what is not as it should be."""
    for stages in (ALL_STAGES, ["validate_data", "check_features"]):  # once more what compares with production
        if project.lock.exists():
            project.forget(stages)
        project.succeed("flow")
    expected = project.state()
    for stage in ALL_STAGES:
        largest = max(path.stat().st_size for path in project.outputs([stage])) // 2
        for runner in RUNNERS:
            project.forget([stage])
            run = project.start(runner, **{LARGEST_FILE: str(largest)})
            status, output = run.wait(), run.output
            said = next((line for line in output.splitlines() if "stopped:" in line), "nothing")
            print(f"| {stage} | {runner} | {largest} | {status} | {said} |", flush=True)
            if not status or "Traceback" in output or "room" not in said:
                yield f"{runner}, {stage}, status {status}: {output[-1500:]}"
            project.succeed(runner)
            yield from (
                f"{runner}, {stage}: {name}" for name, value in project.state().items() if expected[name] != value
            )


def main() -> None:
    """The command line."""
    argparse.ArgumentParser(prog="python -m tests.stress.full_disk", description="A full disk.").parse_args()
    print("| stage | runner | bytes that fit | exit status | message |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="regraft-full-disk-") as temporary:
        found = list(problems(make_project(Path(temporary))))
    print(json.dumps({"problems": found}))
    if found:
        sys.exit(1)


if __name__ == "__main__":
    main()
