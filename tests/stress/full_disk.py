"""A disk that is full while a stage writes its results: is a person told so, and does the next run end as ever?

    python -m tests.stress.full_disk

For each real stage, a small disk is mounted in place of the folder that its largest file goes to: what is there fits,
and half of that file. Exit status 1 if a run ends well, with a traceback or without a word about room, or if the run
after it, with room, does not give what an undisturbed one does.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.stress.killed_project import ALL_STAGES, KilledProject, make_project
from tests.stress.run_kills import RUNNERS
from tests.stress.surroundings import can_mount, mount, unmount


def problems(project: KilledProject) -> Iterator[str]:
    """Let the disk be full once for every stage and runner, and yield what is not as it should be."""
    project.succeed("flow")
    project.forget(["validate_data", "check_features"])  # what they compare with is in production now
    project.succeed("flow")
    expected = project.state()
    for stage in ALL_STAGES:
        largest = max(project.outputs([stage]), key=lambda path: path.stat().st_size)
        for runner in RUNNERS:
            size = largest.stat().st_size
            project.forget([stage])
            with small_disk(project.root / largest.relative_to(project.root).parts[0], size // 2):
                run = project.start(runner)
                status, output = run.wait(), run.output
            said = next((line for line in output.splitlines() if "stopped:" in line), "nothing")
            print(f"| {stage} | {runner} | {largest.name} | {size} | {status} | {said} |", flush=True)
            if not status or "Traceback" in output or "room" not in said:
                yield f"{runner}, {stage}, status {status}: {output[-1500:]}"
            project.succeed(runner)
            state = project.state()
            yield from (f"{runner}, {stage}: {name}" for name in expected if state[name] != expected[name])


@contextmanager
def small_disk(folder: Path, room: int) -> Iterator[None]:
    """Mount a disk with what a folder holds and so many bytes to spare; what is on it then comes back to the folder."""
    aside, filler = folder.with_name(f"{folder.name}.aside"), folder / ".filler"
    shutil.copytree(folder, aside)
    mount("-t", "tmpfs", "-o", "size=64m", "none", str(folder))
    try:
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        disk = os.statvfs(folder)
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, disk.f_bsize * (disk.f_bavail - room // disk.f_bsize))
        yield
        filler.unlink()
        shutil.rmtree(aside)
        shutil.copytree(folder, aside)
    finally:
        unmount(folder)
    shutil.rmtree(folder)
    aside.rename(folder)


def main() -> None:
    """The command line."""
    argparse.ArgumentParser(prog="python -m tests.stress.full_disk", description="A full disk.").parse_args()
    if not can_mount():
        print("skipped: mounting is not allowed")
        return
    print("| stage | runner | largest file | bytes | exit status | message |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="regraft-full-disk-") as temporary:
        found = list(problems(make_project(Path(temporary))))
    print(json.dumps({"problems": found}))
    if found:
        sys.exit(1)


if __name__ == "__main__":
    main()
