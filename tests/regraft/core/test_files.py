import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from regraft.core.csv_files import read_csv
from regraft.core.errors import RegraftError
from regraft.core.files import read_json, sha256_of, write_json, write_text
from regraft.core.sealed import read_arrays, read_table, write_arrays, write_table


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that says `old`, alone in its folder."""
    path = tmp_path / "folder" / "report.txt"
    write_text(path, "old")
    return path


def test_a_kill_while_writing_leaves_the_old_file(path, root):
    program = f"""
import os
from pathlib import Path
from regraft.core.files import replacing
with replacing(Path({str(path)!r})) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), {int(signal.SIGKILL)})
"""
    killed = subprocess.run([sys.executable, "-c", program], cwd=root, check=False)
    assert (killed.returncode, path.read_text()) == (-signal.SIGKILL, "old")


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_is_replaced_and_its_target_stays(path, link):
    # DVC may link outputs into its cache; writing through the link would damage the cache.
    linked = path.with_name("linked.txt")
    link(path, linked)
    write_text(linked, "new")
    assert (path.read_text(), linked.read_text()) == ("old", "new")


def test_links_at_names_that_can_be_guessed_lead_nothing_out_of_the_folder(path, tmp_path):
    # A folder of exported photos may bring such links along.
    outside = tmp_path / "outside.txt"
    outside.write_text("mine")
    for pid in range(os.getpid() - 5, os.getpid() + 5):
        path.with_name(f".report.{pid}.tmp.txt").symlink_to(outside)
    write_text(path, "new")
    assert (path.read_text(), outside.read_text()) == ("new", "mine")


READERS = [read_json, sha256_of, read_table, read_arrays, lambda path: read_csv(path, {"a": str})]


@pytest.mark.parametrize("read", READERS)
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "report")
    with pytest.raises((RegraftError, OSError), match=r"named pipe|no regular file"):
        within(2, lambda: read(tmp_path / "report"))


def within(seconds, act):
    """Do something; TimeoutError if it takes longer."""
    before = signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("it was waited for")))
    signal.alarm(seconds)
    try:
        return act()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("value", [math.nan])
def test_json_refuses_what_other_languages_cannot_read(path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"share": value})
    assert path.read_text() == "old"


WRITERS = {
    "json": lambda path: write_json(path, {"a": "x" * 200_000}),
    "parquet": lambda path: write_table(path, pd.DataFrame({"a": np.random.default_rng(0).random(50_000)})),
    "npz": lambda path: write_arrays(path, {"a": np.random.default_rng(0).random(50_000)}),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_the_old_one(path, kind):
    # A limit on the size of files is a full disk to whoever writes; Python ignores the signal that comes with it.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(RegraftError, match=r"There is no room in .*folder for report\.txt .*Free some"):
            WRITERS[kind](path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "reports").write_text("")
    with pytest.raises(RegraftError, match=r"reports cannot be written to \(.*report\.json belongs there"):
        write_json(tmp_path / "reports" / "report.json", {})
