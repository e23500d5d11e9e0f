"""The store against a plain dictionary, and against a kill at any moment."""

import hashlib
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from regraft.store import overview, upkeep
from regraft.store.namespace import Namespace, open_namespace
from regraft.store.shards import key_of
from regraft.store.uses import record_use

KEYS = [key_of(hashlib.sha256(bytes([number // 2])).hexdigest(), number % 2) for number in range(10)]
_some_rows = st.lists(st.integers(0, len(KEYS) - 1), min_size=1, max_size=6, unique=True)


def value(row: int) -> np.ndarray:
    return np.array([row, row + 0.5, -row, 7], np.float32)


class StoreMachine(RuleBasedStateMachine):
    """Any order of writing, damaging, merging and collecting; the model is a set of rows that must be there.

    A row holds one value for ever, so the rows that are certain to be there say everything: those in a sound shard.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.certain: dict[int, np.ndarray] = {}

    writers = Bundle("writers")

    def teardown(self) -> None:
        self.folder.cleanup()

    @property
    def root(self) -> Path:
        return Path(self.folder.name)

    def open(self) -> Namespace:
        return open_namespace(self.root, "features", {}, shape=(4,), dtype="float32")

    @initialize(target=writers)
    def first(self) -> Namespace:
        return self.open()

    @rule(target=writers)
    def another_writer(self) -> Namespace:
        return self.open()

    @rule(writer=writers, rows=_some_rows)
    def write(self, writer: Namespace, rows: list[int]) -> None:
        writer.append([KEYS[row] for row in rows], np.stack([value(row) for row in rows]), seconds=len(rows))
        writer.flush()
        self.certain.update({row: value(row) for row in rows})

    @rule(writer=writers)
    def refresh(self, writer: Namespace) -> None:
        writer.refresh()

    @rule(
        which=st.integers(0, 99),
        place=st.floats(0, 1, exclude_max=True),
        in_values=st.booleans(),
        flip=st.integers(1, 255),
    )
    def damage(self, which: int, place: float, in_values: bool, flip: int) -> None:
        # By content: names are random, and the same drawn numbers must mean the same event.
        paths = sorted(self.root.glob("features-*/*.arrow"), key=lambda path: path.read_bytes())
        if not paths:
            return
        path = paths[which % len(paths)]
        contents = bytearray(path.read_bytes())
        # The values are a small part of so small a shard, and so would rarely be hit.
        start, stop = map(int, path.stem.split("-")[1:3]) if in_values else (0, len(contents))
        contents[start + int(place * (stop - start))] ^= flip
        path.write_bytes(contents)
        # What only this shard holds may be lost now; what a sound one holds must not be.
        certain = set()
        for shard in self.sound_shards():
            certain |= {KEYS.index(key) for key in shard}
        self.certain = {row: value(row) for row in certain}

    def sound_shards(self) -> list[list[bytes]]:
        """The keys of every shard without damage, by a reader of its own: Arrow, and the checksums as documented."""
        import pyarrow as pa
        import xxhash

        found = []
        for path in self.root.glob("features-*/*.arrow"):
            contents = path.read_bytes()
            _, start, stop, seal = path.name.partition(".")[0].split("-")
            if xxhash.xxh3_64_hexdigest(contents[: int(start)] + contents[int(stop) :]) != seal:
                continue
            table = pa.ipc.open_file(contents).read_all().to_pydict()
            expected = [value(KEYS.index(key)).tolist() for key in table["key"]]
            if table["value"] == expected:
                found.append(table["key"])
        return found

    @rule()
    def compact(self) -> None:
        upkeep.compact(self.root, None)

    @rule(rows=_some_rows)
    def collect(self, rows: list[int]) -> None:
        record_use(self.root, "a" * 32, [self.open()], [KEYS[row] for row in rows], shared=None)
        upkeep.collect(self.root, None, {"a" * 32: "here"}, really=True)
        self.certain = {row: known for row, known in self.certain.items() if row in rows}

    @rule(writer=writers)
    def read_through_an_old_handle(self, writer: Namespace) -> None:
        self.is_right(writer)

    @invariant()
    def a_new_reader_finds_every_certain_row_and_no_wrong_value(self) -> None:
        reader = self.open()
        present = self.is_right(reader)
        assert self.certain.keys() <= present

    def is_right(self, reader: Namespace) -> set[int]:
        missing = set(reader.missing(KEYS))
        present = [row for row, key in enumerate(KEYS) if key not in missing]
        values = reader.read([KEYS[row] for row in present])
        assert all(np.array_equal(found, value(row)) for found, row in zip(values, present, strict=True))
        return set(present)


StoreMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
test_no_order_of_events_gives_a_wrong_value_or_loses_a_sound_row = StoreMachine.TestCase

WRITER = """
import hashlib, sys
from pathlib import Path
import numpy as np
from regraft.store.shards import key_of
from regraft.store.namespace import open_namespace
store = open_namespace(Path(sys.argv[1]), "features", {}, shape=(20000,), dtype="float32")
start = len(store)
print("ready", flush=True)
for number in range(start, start + 10_000):
    key = key_of(hashlib.sha256(str(number).encode()).hexdigest())
    store.append([key], np.full((1, 20000), number, np.float32), seconds=0)
    store.flush()
    print(number, flush=True)
"""


def test_a_writer_that_is_killed_at_any_moment_leaves_a_store_that_verifies(tmp_path, root):
    for milliseconds in (0, 2, 4, 8, 16):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        written = int(writer.stdout.readline())
        time.sleep(milliseconds / 1000)
        writer.send_signal(signal.SIGKILL)
        numbers = [int(line) for line in writer.communicate()[0].splitlines() if line.endswith(tuple("0123456789"))]
        written = max([written, *numbers])
        overview.verify(tmp_path, None)
        store = open_namespace(tmp_path, "features", {}, shape=(20000,), dtype="float32")
        keys = [key_of(hashlib.sha256(str(number).encode()).hexdigest()) for number in range(written + 1)]
        assert store.missing(keys) == []
        assert (store.read(keys) == np.arange(written + 1, dtype=np.float32)[:, None]).all()
    assert written >= 4
