"""The plain `dvc` command: its files are replaced at once, its pickles lie in the project, no foreign command runs."""

import importlib.util
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.safe_dvc import _replacing
from tests.support.toy import COMMANDS, DVC, FLOW, Toy

pytestmark = pytest.mark.flow
each_runner = pytest.mark.parametrize("runner", [DVC, FLOW])
each_two_runners = pytest.mark.parametrize(("killed", "runner"), [(DVC, FLOW), (FLOW, DVC)])

# Python runs this file by its name when it starts. The n-th time that DVC writes the file, it stops halfway.
STOP_HALFWAY = """
import io, os, time
from pathlib import Path
from ruamel.yaml import YAML

dump, left = YAML.dump, int(os.environ["NTH"])

def dump_half(self, data, stream):
    global left
    if os.environ["FILE"] not in str(getattr(stream, "name", "")) or (left := left - 1):
        return dump(self, data, stream)
    text = io.StringIO()
    dump(self, data, text)
    stream.write(text.getvalue()[:len(text.getvalue()) // 2])
    stream.flush()
    Path("halfway").touch()
    time.sleep(60)

YAML.dump = dump_half
"""


def kill_halfway(toy: Toy, file: str, nth: int, *command: str) -> None:
    """Start a command and kill it when it has written half of a file for the n-th time."""
    folder = toy.root.parent / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(STOP_HALFWAY)
    run = toy.start(*command, PYTHONPATH=str(folder), FILE=file, NTH=str(nth))
    run.wait_until((toy.root / "halfway").exists, f"{file} is half written")
    run.kill()
    (toy.root / "halfway").unlink()


def without_site_cache(toy: Toy) -> dict[str, str]:
    """Return the environment of a person, who does not say where DVC is to keep its pickles."""
    return {name: value for name, value in toy.environment.items() if name != "DVC_SITE_CACHE_DIR"}


def test_the_environment_has_what_changes_dvc() -> None:
    assert importlib.util.find_spec("regraft_dvc"), "run `make setup`, or `pip install --no-deps -e .`"


def test_a_link_at_the_name_that_is_written_to_first_is_removed_and_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("mine")
    (tmp_path / "dvc.lock.tmp").symlink_to(tmp_path / "outside")
    with _replacing(tmp_path / "dvc.lock", {}) as file:
        file.write("new")
    assert [(tmp_path / name).read_text() for name in ("outside", "dvc.lock")] == ["mine", "new"]
    assert not (tmp_path / "dvc.lock").is_symlink()


@each_two_runners
def test_after_a_kill_while_dvc_lock_is_written_the_next_run_gives_the_same_result(
    toys: Callable[..., Toy], new_toy: Toy, kind: str, killed: str, runner: str
) -> None:
    kill_halfway(new_toy, "dvc.lock", 2, *COMMANDS[killed])
    run = new_toy.bring_up_to_date(runner)
    assert (run.status, new_toy.results) == (0, toys(kind, DVC).results), run.output


def test_after_a_kill_while_the_file_of_the_data_folder_is_written_the_next_run_works(finished_toy: Toy) -> None:
    finished_toy.succeed("dvc", "add", "--quiet", "data/raw")
    finished_toy.write("data/raw/durian.txt", "one durian")
    kill_halfway(finished_toy, "raw.dvc", 1, *COMMANDS[DVC])
    run = finished_toy.bring_up_to_date(FLOW)
    assert (run.status, "durian" in finished_toy.read("build/first.txt")) == (0, True), run.output


def test_the_table_of_running_commands_is_replaced_at_once(new_toy: Toy) -> None:
    script = (
        "import json, os; from pathlib import Path; import dvc.rwlock; from dvc.fs import localfs\n"
        "from tasks.safe_dvc import make_safe; make_safe(); make_safe()\n"
        "table = Path('.dvc/tmp/rwlock'); table.parent.mkdir(exist_ok=True); table.write_text('{}')\n"
        "def half(lock, file): file.write('{'); file.flush(); raise OSError(28, table.read_text())\n"
        "dvc.rwlock.json.dump = half\n"
        "try:\n"
        "    with dvc.rwlock.rwlock('.dvc/tmp', localfs, 'a command', [], ['/a'], False): pass\n"
        "except OSError as error: print(error.strerror, table.read_text(), sorted(os.listdir('.dvc/tmp')))\n"
    )
    assert new_toy.succeed("python", "-c", script).stdout == "{} {} ['btime', 'rwlock', 'rwlock.lock']\n"


@each_runner
def test_dvc_keeps_its_pickles_in_the_project_where_its_owner_alone_may_read_and_write(
    finished_toy: Toy, runner: str, tmp_path: Path
) -> None:
    shared = Path("/var/tmp/dvc/repo")
    before = set(shared.glob("*"))
    (tmp_path / "tmp").mkdir()
    finished_toy.environment = without_site_cache(finished_toy) | {"TMPDIR": str(tmp_path / "tmp")}
    assert finished_toy.run("dvc", "status", folder="data").status == 0
    assert finished_toy.bring_up_to_date(runner).status == 0
    assert set(shared.glob("*")) == before
    assert list((tmp_path / "tmp").iterdir()) == []
    assert list((finished_toy.root / ".dvc-site" / "repo").iterdir()) != []
    assert stat.S_IMODE((finished_toy.root / ".dvc-site").stat().st_mode) == 0o700
    assert not (finished_toy.root / "data" / ".dvc-site").exists()
    assert ".dvc-site" not in finished_toy.succeed("git", "status", "--short").output


def test_the_config_of_the_project_names_the_same_folder_for_a_dvc_of_another_environment(
    new_toy: Toy, root: Path
) -> None:
    new_toy.environment = without_site_cache(new_toy)
    new_toy.write(".dvc/config", (root / ".dvc" / "config").read_text())
    unchanged = "import sys; sys.orig_argv = []; from dvc.cli import main; main(['status', '--quiet'])"
    new_toy.run("python", "-I", "-c", unchanged)
    assert list((new_toy.root / ".dvc-site" / "repo").iterdir()) != []


FOREIGN = {
    "dvc.yaml": "stages:\n  evil:\n    cmd: touch ../../../pwned\n    outs: [new.txt]\n",
    "evil.dvc": "cmd: touch ../../../pwned\nouts:\n- path: new.txt\n",
}


@pytest.mark.parametrize(("name", "folder"), list(zip(FOREIGN, ["data", "data/raw/class"], strict=True)))
def test_dvc_runs_no_command_that_a_file_below_the_root_names(finished_toy: Toy, name: str, folder: str) -> None:
    finished_toy.write(f"{folder}/{name}", FOREIGN[name].replace("../../../pwned", str(finished_toy.root / "pwned")))
    for command in (["dvc", "repro"], ["dvc", "repro", "--all-pipelines"], ["dvc", "repro", "first"]):
        finished_toy.run(*command)
        assert not (finished_toy.root / "pwned").exists()
        finished_toy.write("params.yaml", finished_toy.read("params.yaml") + "\n")


def test_nothing_below_the_root_hides_a_photo_from_dvc(finished_toy: Toy) -> None:
    for hiding in (".dvcignore", "class/.dvcignore", ".dvc/config"):
        finished_toy.write(f"data/raw/{hiding}", "*\n" if "ignore" in hiding else "")
    (finished_toy.root / "data/raw/class/.dvc").mkdir()
    finished_toy.succeed("dvc", "commit", "--force", "--quiet")
    finished_toy.write("data/raw/class/durian.txt", "one durian")
    assert "data/raw" in finished_toy.succeed("dvc", "status").output


def test_a_data_folder_whose_own_file_is_hidden_from_dvc_is_told_with_the_line_that_helps(new_toy: Toy) -> None:
    (new_toy.root / "a/b").mkdir(parents=True)
    (new_toy.root / "data/raw").rename(new_toy.root / "a/b/photos")
    script = (
        "from pathlib import Path; from tasks.dvc_seam import record_data; from tasks.project import *\n"
        "with readable_errors('record'): print(record_data(enter_project(), Path('a/b/photos')))"
    )
    run = new_toy.run("python", "-c", script)
    assert (run.status, "Put the line !/a/b/photos.dvc at its end" in run.output) == (1, True), run.output
    new_toy.write(".dvcignore", new_toy.read(".dvcignore") + "!/a/b/photos.dvc\n")
    assert new_toy.succeed("python", "-c", script).stdout.split("\n")[-2] == "Recorded"
