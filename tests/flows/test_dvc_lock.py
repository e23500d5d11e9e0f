"""A dvc.lock that something else damaged: a run brings it back or says what to do, and believes no half of an entry."""

from collections.abc import Callable

import pytest

from tests.support.toy import COMMANDS, DVC, FLOW, PARAMS, STAGES, Toy

pytestmark = pytest.mark.flow

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda lock: b"",
    "half of it": lambda lock: lock[: len(lock) // 2],
    "cut off after a key": lambda lock: lock[: lock.rindex(b"outs:") + len(b"outs:\n")],
    "no text": lambda lock: bytes(range(256)),
    "another document": lambda lock: b"- a list\n",
    "a hash for a list": lambda lock: lock.replace(b"    outs:\n    - path: build/first.txt\n", b"    outs:\n", 1),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_dvc_lock_is_brought_back_from_the_copy_of_the_last_run(finished_toy: Toy, damage: str) -> None:
    results = finished_toy.results
    lock = finished_toy.root / "dvc.lock"
    lock.write_bytes(DAMAGES[damage](lock.read_bytes()))
    run = finished_toy.bring_up_to_date(FLOW)
    assert (run.status, finished_toy.results, finished_toy.runs) == (0, results, []), run.output
    assert "dvc.lock was damaged. It is as it was before" in run.output


def test_without_a_copy_results_come_from_dvcs_cache(finished_toy: Toy) -> None:
    results = finished_toy.results
    (finished_toy.root / ".dvc/tmp/regraft/dvc.lock").unlink()
    finished_toy.write("dvc.lock", "")
    run = finished_toy.bring_up_to_date(FLOW)
    assert (run.status, finished_toy.results, finished_toy.runs) == (0, results, []), run.output
    assert "dvc.lock was damaged. It was put aside" in run.output


def test_after_a_flow_brought_it_back_dvc_has_nothing_to_do(finished_toy: Toy) -> None:
    finished_toy.set_param(PARAMS["second"], 0.21)
    finished_toy.bring_up_to_date(DVC)
    finished_toy.forget_runs()
    finished_toy.write("dvc.lock", "")
    finished_toy.bring_up_to_date(FLOW)
    finished_toy.succeed("dvc", "repro")
    assert finished_toy.succeed("dvc", "status").output.strip() == "Data and pipelines are up to date."
    assert finished_toy.runs == []


CONFLICT = "<<<<<<< HEAD\n{0}=======\n{0}>>>>>>> other\n"


@pytest.mark.parametrize(
    ("file", "reads_it"),
    [("dvc.lock", "python in_process.py"), ("dvc.yaml", "python in_process.py"), ("data/raw.dvc", "python record.py")],
)
def test_marks_of_a_conflict_are_named_with_what_to_do(finished_toy: Toy, file: str, reads_it: str) -> None:
    finished_toy.succeed("dvc", "add", "--quiet", "data/raw")
    text = CONFLICT.format(finished_toy.read(file))
    finished_toy.write(file, text)
    finished_toy.write("record.py", RECORD)
    run = finished_toy.run(*reads_it.split())
    assert (run.status, "Traceback" in run.output, finished_toy.read(file)) == (1, False, text), run.output
    assert "conflict" in run.output
    assert file in run.output


def test_a_folder_in_place_of_dvc_lock_is_named_with_what_to_do(finished_toy: Toy) -> None:
    (finished_toy.root / "dvc.lock").unlink()
    (finished_toy.root / "dvc.lock").mkdir()
    run = finished_toy.bring_up_to_date(FLOW)
    assert (run.status, "Traceback" in run.output) == (1, False)
    assert "dvc.lock must be a file that DVC wrote. Move away what is there" in run.output


@pytest.mark.parametrize("text", ["", "outs:\n- md5: 0\n", "outs:\n", "nothing: [\n"])
def test_a_damaged_file_of_the_data_folder_is_written_anew(finished_toy: Toy, text: str) -> None:
    finished_toy.succeed("dvc", "add", "--quiet", "data/raw")
    before = finished_toy.read("data/raw.dvc")
    finished_toy.write("data/raw.dvc", text)
    run = finished_toy.succeed("python", "-c", RECORD)
    assert finished_toy.read("data/raw.dvc") == before
    assert "raw.dvc was damaged. It is written anew" in run.output


# For each third start of dvc.lock that ends with a line, what DVC thinks of it: nothing if it refuses to read it, else
# the stages that it takes to be up to date; and whether the project takes it for whole.
ASK = """
import json
from pathlib import Path
from dvc.exceptions import DvcException
from dvc.repo import Repo
from tasks.dvc_lock import _is_whole
lines, answers = Path("dvc.lock").read_text().splitlines(keepends=True), []
for count in range(1, len(lines) + 1, 3):
    Path("dvc.lock").write_text("".join(lines[:count]))
    try:
        changed = Repo().status()
        believed = [name for name in %r if name not in changed]
    except DvcException:
        believed = None
    answers.append((believed, _is_whole("".join(lines[:count]))))
print(json.dumps(answers))
"""


def test_of_a_dvc_lock_that_is_cut_off_no_half_entry_is_believed(finished_toy: Toy) -> None:
    lines = finished_toy.read("dvc.lock").splitlines()
    answers = finished_toy.succeed("python", "-c", ASK % STAGES).outcomes
    starts = {line.strip(" :"): number for number, line in enumerate(lines) if line[:2] == "  " and line[2] != " "}
    # The last that an entry says is the size of its output, which DVC does not need; the hash stands before it.
    hashed = {
        name: max(n for n, line in enumerate(lines) if "md5:" in line and _entry_at(starts, n) == name)
        for name in STAGES
    }
    assert len(answers) == len(lines[::3]) > 20
    for number, (believed, is_whole) in zip(range(0, len(lines), 3), answers, strict=True):
        assert (believed is not None) == is_whole, f"cut off after: {lines[number]}"
        for name in believed or []:
            assert number >= hashed[name], f"{name} is believed, cut off after: {lines[number]}"


def _entry_at(starts: dict[str, int], number: int) -> str:
    return max((start, name) for name, start in starts.items() if start <= number)[1]


RECORD = """
from pathlib import Path
from tasks.dvc_seam import record_data
from tasks.project import enter_project, readable_errors
with readable_errors("record"):
    print(record_data(enter_project(), Path("data/raw")))
"""


@pytest.mark.parametrize(("runner", "kilobytes"), [(DVC, 2), (FLOW, 1), (FLOW, 3)])
def test_a_full_disk_ends_a_run_with_words_and_loses_nothing(finished_toy: Toy, runner: str, kilobytes: int) -> None:
    """A limit on the size of files takes the place of the disk: the system refuses to write on."""
    results, params = finished_toy.results, finished_toy.read("params.yaml")
    lock = finished_toy.read("dvc.lock")
    finished_toy.set_param(PARAMS["second"], 0.21)
    run = finished_toy.run("bash", "-c", f"ulimit -f {kilobytes}; exec {' '.join(COMMANDS[runner])}")
    assert (run.status != 0, "Traceback" in run.output) == (True, False), run.output
    assert finished_toy.read("dvc.lock") == lock
    assert runner == DVC or "there is no room for" in run.output.lower()
    finished_toy.write("params.yaml", params)
    again = finished_toy.bring_up_to_date(runner)
    assert (again.status, finished_toy.results) == (0, results), again.output


def test_what_dvc_remembers_is_worked_out_anew_where_it_is_damaged(finished_toy: Toy) -> None:
    finished_toy.environment = finished_toy.environment | {"DVC_SITE_CACHE_DIR": ""}
    finished_toy.bring_up_to_date(FLOW)
    databases = [*finished_toy.root.glob(".dvc-site/repo/*/*/**/cache.db")]
    assert databases
    for path in databases:
        path.write_bytes(b"damaged" * 1000)
    run = finished_toy.bring_up_to_date(FLOW)
    assert (run.status, finished_toy.runs) == (0, []), run.output
