"""Parquet files that others wrote, unpacked by a child process with limits of memory and processor time.

A few bytes of such a file unpack to gigabytes, and sizes in its footer may be wrong. So a child reads it with PyArrow,
some rows at a time, and sends them as an Arrow stream. Whatever becomes of the child, the parent has rows of ordinary
size or an error.

    python -m regraft.photos.foreign_parquet DESCRIPTOR     writes the schema; reads a JSON list of columns, writes rows
"""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from regraft.core.errors import InvalidData, printable
from regraft.core.files import most_unpacked, readable_bytes

_MEMORY = 2**30  # bytes that the child may take beside its libraries
_SECONDS, _BYTES_PER_SECOND = 60, 2**20  # of processor time: so many, and one more for each MiB of the file
_MOST_ROWS = 1_000_000  # and one more for each byte of the file
_ROWS, _BYTES = 4_096, 32 * 2**20  # of a batch; the second where the footer is right
_MOST_TEXT = 4_096  # bytes; no path of a file is longer
_SHOWN = 60  # letters of a column's name
_REFUSED, _DAMAGED = "refused", "damaged"
# Memory is counted as it is mapped, and other pools and arenas map far more than they use.
_ENVIRONMENT = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"}


class ForeignParquet:
    """A Parquet file of which nothing is believed; a context manager, since a child process stands behind it."""

    schema: pa.Schema

    def __init__(self, file: BinaryIO, shown: str) -> None:
        """Open a file.

        Args:
            file: open.
            shown: what messages call it.
        """
        self._file, self._shown = file, shown

    def __enter__(self) -> Self:
        """Start the child and read the schema.

        Raises:
            InvalidData: that takes more than a file of this size should.
            pa.ArrowException: it is no Parquet file, or cannot be read.
        """
        descriptor, root = self._file.fileno(), str(Path(__file__).parents[2])
        path = os.pathsep.join([root, *filter(None, sys.path)])
        self._errors = tempfile.TemporaryFile()
        self._child = subprocess.Popen(
            [sys.executable, "-m", __name__, str(descriptor)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            pass_fds=[descriptor],
            env=os.environ | _ENVIRONMENT | {"PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for the parent, which ends the child itself
        )
        try:
            with self._stream() as stream:
                self.schema = stream.schema
                stream.read_all()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()
        self._errors.close()

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of some columns; can be called once.

        Raises:
            InvalidData: the columns hold lists, or unpack to more than a file of this size should.
            pa.ArrowException: the file is damaged.
        """
        assert self._child.stdin
        try:
            self._child.stdin.write(json.dumps(list(columns)).encode() + b"\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise self._error() from None
        with self._stream() as stream:
            while True:
                try:
                    batch = stream.read_next_batch()
                except StopIteration:
                    break
                except (pa.ArrowException, OSError):  # the stream breaks off
                    raise self._error() from None
                yield batch
        if self._child.wait():
            raise self._error()

    def _stream(self) -> pa.RecordBatchStreamReader:
        try:
            return pa.ipc.open_stream(self._child.stdout)
        except (pa.ArrowException, OSError):
            raise self._error() from None

    def _error(self) -> Exception:
        """Return why the child has ended."""
        status = self._child.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").splitlines()
        try:
            kind, *words = json.loads(lines[-1])
        except (IndexError, ValueError, TypeError):
            how = signal.Signals(-status).name if status < 0 else f"status {status}"
            kind, words = _REFUSED, ["contents that can be unpacked", f"what ended the process that reads it ({how})"]
            if status == -signal.SIGXCPU:
                words[1] = "more, after a minute and a second for each MiB of the file"
        if kind == _DAMAGED:
            return pa.ArrowInvalid(words[0])
        return InvalidData(
            f"{self._shown} must have {words[0]}. Received: {words[1]}. Write it anew, for instance with pandas' "
            f"to_parquet; if somebody else wrote it, ask whether it is what it should be."
        )


def texts_of(column: pa.Array) -> list[str | None]:
    """Return the cells of a column of a batch as texts, equal ones as one object; numbers are written out."""
    encoded: Any = column.cast(pa.string()).dictionary_encode()
    texts = dict(enumerate(encoded.dictionary.to_pylist()))
    return [texts.get(place) for place in encoded.indices.to_pylist()]


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this kind holds texts, and no dictionary of them."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


class _Refused(Exception):
    """The file has more than its size explains; the arguments say what was expected and what was found."""


def _send_rows(table: pq.ParquetFile, size: int, columns: list[str], out: BinaryIO) -> None:
    """Write the rows of a file of `size` bytes as an Arrow stream."""
    for field in table.schema_arrow:
        if field.name in columns and _has_lists(field.type):
            name = printable(field.name[:_SHOWN])
            raise _Refused(f"texts, numbers or truth values in '{name}'", printable(str(field.type)))
    _check_rows(table.metadata.num_rows, size)
    rows = total = 0
    writer = None
    for group in range(table.metadata.num_row_groups):
        facts = table.metadata.row_group(group)
        at_once = max(1, min(_ROWS, _BYTES * facts.num_rows // max(1, facts.total_byte_size)))
        for batch in table.iter_batches(at_once, row_groups=[group], columns=columns, use_threads=False):
            plain = pa.record_batch([_plain(column) for column in batch.columns], names=batch.schema.names)
            rows, total = rows + len(plain), total + plain.nbytes
            _check_rows(rows, size)
            if total > (most := most_unpacked(size)):
                expected = f"at most {readable_bytes(most)} in all, since the file has {readable_bytes(size)}"
                raise _Refused(expected, "more")
            _check_texts(plain)
            writer = writer or pa.ipc.new_stream(out, plain.schema)
            writer.write_batch(plain)
    (writer or pa.ipc.new_stream(out, table.schema_arrow.empty_table().select(columns).schema)).close()


def _check_rows(rows: int, size: int) -> None:
    if rows > (most := _MOST_ROWS + size):
        raise _Refused(f"at most {most:,} rows, a million and one for each of its bytes", f"{rows:,} or more")


def _check_texts(batch: pa.RecordBatch) -> None:
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        longest = pc.max(pc.binary_length(column)).as_py() if is_text(column.type) else None
        if (longest or 0) > _MOST_TEXT:
            name = printable(name[:_SHOWN])
            raise _Refused(f"texts of at most {_MOST_TEXT:,} bytes in '{name}'", f"{longest:,}")


def _plain(column: pa.Array) -> pa.Array:
    """A dictionary of values would be sent again with every batch."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _has_lists(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(_has_lists(kind.field(place).type) for place in range(kind.num_fields))
    return pa.types.is_nested(kind)


def main() -> None:
    """Serve one file, whose descriptor is the argument; the last line on stderr says what is wrong with it."""
    file, out = os.fdopen(int(sys.argv[1]), "rb"), sys.stdout.buffer
    size = os.fstat(file.fileno()).st_size
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    memory, seconds = mapped + _MEMORY, _SECONDS + size // _BYTES_PER_SECOND
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    file.seek(0)
    try:
        table = pq.ParquetFile(file, buffer_size=2**20, pre_buffer=False)
        pa.ipc.new_stream(out, table.schema_arrow).close()
        out.flush()
        if asked := sys.stdin.readline():
            _send_rows(table, size, json.loads(asked), out)
            out.flush()
        return
    except _Refused as error:
        answer = [_REFUSED, *error.args]
    except MemoryError:
        answer = [_REFUSED, f"pages that unpack to less than {readable_bytes(_MEMORY)} at a time", "more"]
    except (pa.ArrowException, OSError, ValueError) as error:
        answer = [_DAMAGED, " ".join(str(error).split())]
    print(json.dumps(answer), file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
