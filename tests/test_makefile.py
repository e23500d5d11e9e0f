"""`make setup` builds the environment when the content of a lock or of pyproject.toml changed, and only then."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

FILES = ["requirements.lock", "locks/build.lock", "pyproject.toml"]


@pytest.fixture
def folder(tmp_path: Path, root: Path) -> Path:
    """A project whose environment was set up."""
    for name in ("Makefile", "locks/dev.lock", *FILES):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(root / name, tmp_path / name)
    (tmp_path / ".venv").mkdir()
    (touch,) = [line for line in setup(tmp_path).splitlines() if line.startswith("touch ")]
    (tmp_path / touch.split()[1]).touch()
    return tmp_path


def setup(folder: Path) -> str:
    """What `make setup` would do."""
    command = ["make", "--no-print-directory", "--dry-run", "setup"]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def test_an_environment_that_was_set_up_is_left_as_it_is(folder: Path) -> None:
    assert "venv" not in setup(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_file_with_another_time_rebuilds_nothing(folder: Path, name: str) -> None:
    os.utime(folder / name, (2e9, 2e9))
    assert "venv" not in setup(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_file_with_another_content_rebuilds_the_environment(folder: Path, name: str) -> None:
    (folder / name).write_text((folder / name).read_text() + "# changed\n")
    assert "-m venv --clear .venv" in setup(folder)


def test_nothing_is_downloaded_whose_digest_is_not_in_a_lock_file(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("# changed\n")
    installs = [line.partition(" install ")[2] for line in setup(folder).splitlines() if " pip install " in line]
    assert installs
    for options in installs:
        assert {"--require-hashes", "--no-deps"} & set(options.split())
        assert "--no-build-isolation" in options  # else pip downloads what builds a package, of any version


def test_tests_install_what_they_need_and_the_demo_does_not(folder: Path) -> None:
    def installs(verb: str) -> list[str]:
        command = ["make", "--no-print-directory", "--dry-run", verb]
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        return [line for line in done.stdout.splitlines() if "dev.lock" in line and " install " in line]

    assert (len(installs("test")), installs("demo")) == (1, [])


def test_the_make_file_starts_the_guarded_server(folder: Path) -> None:
    command = ["make", "--no-print-directory", "--dry-run", "ui"]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "regraft serve --only server"
