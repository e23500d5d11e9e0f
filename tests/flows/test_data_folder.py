"""What must not lie in the data folder is named before DVC waits for it, runs it, or leaves photos out for it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.toy import FLOW, Toy

pytestmark = pytest.mark.flow
START = "from pathlib import Path; from tasks.project import readable_errors\nwith readable_errors('x'): "
RECORD = START + "from tasks.dvc_seam import record_data; print(record_data(Path.cwd(), Path('data/raw')))"
ASK = START + "from tasks.up_to_date import nothing_to_do; print(nothing_to_do(Path.cwd(), promote=False))"


def with_commands(path: Path) -> None:
    path.write_text("stages:\n  evil:\n    cmd: touch ../../obeyed\n    outs: [x]\n")


def folder_of_dvc(path: Path) -> None:
    path.mkdir()
    (path.parent / "photo.txt").write_text("hidden from DVC")


HOSTILE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a pipe": ("pipe", os.mkfifo),
    "a pipe as a file of DVC": ("x.dvc", os.mkfifo),
    "a link to an endless device": ("zero", lambda path: path.symlink_to("/dev/zero")),
    "a link to nothing": ("link", lambda path: path.symlink_to("gone")),
    "a name that is no text": (os.fsdecode(b"\xe9.png"), Path.touch),
    "commands": ("dvc.yaml", with_commands),
    "a folder of DVC": (".dvc", folder_of_dvc),
    "a list of what DVC ignores": (".dvcignore", lambda path: path.write_text("*\n")),
}


@pytest.fixture(scope="module")
def recorded_toy(toys: Callable[..., Toy], tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """A project in which the data is recorded; to be copied, not changed."""
    toy = toys("git", FLOW).copy(tmp_path_factory.mktemp("toy"))
    toy.succeed("dvc", "add", "--quiet", "data/raw")
    return toy


@pytest.mark.parametrize("what", HOSTILE)
def test_it_is_named_and_neither_waited_for_nor_obeyed(recorded_toy: Toy, what: str, tmp_path: Path) -> None:
    toy = recorded_toy.copy(tmp_path)
    name, make = HOSTILE[what]
    folder = toy.root / "data/raw/new"
    folder.mkdir()
    make(folder / name)
    for ask in (RECORD, ASK):
        command = toy.run("python", "-c", ask)
        assert command.status == 1, command.output
        assert f"(1): new/{ascii(name)[1:-1]}" in command.output
        assert "Traceback" not in command.output
        assert not (toy.root / "obeyed").exists()
