"""Small Parquet files that unpack to gigabytes: each is refused by name, in little time and memory."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regraft.core.errors import InvalidData
from regraft.photos.foreign_parquet import ForeignParquet
from regraft.photos.labels_file import read_labels
from tests.support import parquet_bombs
from tests.support.parquet_bombs import Bomb

MOST = 300_000  # kB that a child may take beyond its modules; the pages alone of some have more
SECONDS = 60
# A child, since the largest memory of a process never falls; with a limit, so that no test takes the machine's. Its
# `ru_maxrss` would begin with the memory of the process that started it.
READ = """
import resource, sys
from pathlib import Path
from regraft.converters.conversion import convert
from regraft.converters.listing import Wanted
from regraft.core.errors import InvalidData
from regraft.photos.incoming import find_incoming
from regraft.photos.labels_file import read_labels
from regraft.converters import exports
resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
path = Path(sys.argv[2])
read = {
    "labels": lambda: read_labels(path.parent, path.name),
    "incoming": lambda: find_incoming(path),
    "photos": lambda: convert(str(path), path.parent / "out" / "labels.csv", Wanted()),
}[sys.argv[1]]
def most():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
before = most()
try:
    read()
    print("it was read")
except InvalidData as error:
    print(error)
print(most() - before)
"""


def read_in_a_child(what: str, path: Path) -> tuple[str, int]:
    """Return what is said of a file, and the kB that reading it took."""
    done = subprocess.run([sys.executable, "-c", READ, what, str(path)], capture_output=True, text=True,
                          timeout=SECONDS, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    *words, kilobytes = done.stdout.splitlines()
    return "\n".join(words), int(kilobytes)


@pytest.mark.parametrize(
    ("what", "bomb"), [("incoming", parquet_bombs.pages_of_zeros), *(("labels", bomb) for bomb in parquet_bombs.LABELS)]
)
def test_a_table_that_unpacks_to_gigabytes_is_refused_in_little_memory(what: str, bomb: Bomb, tmp_path: Path) -> None:
    bomb(path := tmp_path / "labels.parquet")
    assert path.stat().st_size < 2**20
    words, kilobytes = read_in_a_child(what, path)
    if what == "labels" and bomb is parquet_bombs.a_text_that_a_dictionary_repeats:
        assert words.startswith(f"{path} has at least 1000 line(s) to fix: ")
    else:
        assert words.startswith(f"{path} must have ")
        assert "Write it anew" in words
    assert kilobytes < MOST


@pytest.mark.parametrize("bomb", parquet_bombs.PHOTOS)
def test_photos_that_unpack_to_gigabytes_are_refused_in_little_memory(bomb: Bomb, tmp_path: Path) -> None:
    bomb(path := tmp_path / "a.parquet")
    assert path.stat().st_size < 2**20
    words, kilobytes = read_in_a_child("photos", path)
    assert words.startswith(f"{path} must have ")
    assert "Write it anew" in words
    assert kilobytes < MOST
    assert not list(tmp_path.glob("out/*"))


def ordinary(rows: int = 9_000) -> pa.Table:
    random = np.random.default_rng(0)
    return pa.table(
        {
            "path": [f"train/cat/{number:07}.png" for number in range(rows)],
            "label": pa.array([None if number % 7 else "cat" for number in range(rows)]),
            "number": random.integers(0, 99, rows),
            "image": [{"bytes": random.bytes(number % 50), "path": None} for number in range(rows)],
        }
    )


@pytest.mark.parametrize("options", [{}, {"compression": "zstd", "use_dictionary": False, "data_page_version": "2.0"}])
def test_an_ordinary_file_is_read_as_it_is(options: dict[str, Any], tmp_path: Path) -> None:
    table = ordinary()
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=4_000, data_page_size=100, **options)
    with (tmp_path / "a.parquet").open("rb") as file, ForeignParquet(file, "a.parquet") as foreign:
        batches = list(foreign.batches(table.schema.names))
    assert [row for batch in batches for row in batch.to_pylist()] == table.to_pylist()


def test_a_damaged_file_is_an_error_of_its_own_kind(tmp_path: Path) -> None:
    table = ordinary(200).select(["path", "label", "number"])
    pq.write_table(table, tmp_path / "good.parquet", data_page_size=100, write_batch_size=20)
    good, random = (tmp_path / "good.parquet").read_bytes(), np.random.default_rng(0)
    for _ in range(20):
        damaged = bytearray(good)
        for place in random.integers(4, len(good), 3):
            damaged[place] = random.integers(256)
        (tmp_path / "labels.parquet").write_bytes(damaged)
        with suppress(InvalidData):
            read_labels(tmp_path, "labels.parquet")
