"""What a shard must look like inside, before any of it is used: exactly what `write_shard` writes.

A checksum says that nobody changed a file since it was written, not that it was written well.
"""

import math
import mmap
import struct
from typing import Any

import numpy as np
import pyarrow as pa

KEY_BYTES = 34  # 32 of the digest, 2 of the view


def schema_of(shape: tuple[int, ...], dtype: np.dtype) -> pa.Schema:
    """Return the columns of a shard whose values have this shape and dtype."""
    value = pa.list_(pa.from_numpy_dtype(dtype), math.prod(shape))
    columns = {"key": pa.binary(KEY_BYTES), "checksum": pa.uint64(), "seconds": pa.float32(), "value": value}
    return pa.schema(list(columns.items()))


def read_columns(
    contents: mmap.mmap, shape: tuple[int, ...], dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return copies of the keys, checksums and seconds of a shard, so that its file can be closed.

    Raises:
        ValueError: it is not exactly what `write_shard` writes for this shape and dtype.
    """
    try:
        # A file is a stream between two marks. The list of batches at its end is not believed.
        messages = pa.ipc.MessageReader.open_stream(pa.py_buffer(contents).slice(8))
        schema = pa.ipc.read_schema(messages.read_next_message())
        message = messages.read_next_message()
        if not schema.equals(schema_of(shape, dtype)) or _is_compressed(message) or any(True for _ in messages):
            raise ValueError("not a shard of this namespace")
        batch = pa.ipc.read_record_batch(message, schema)
        batch.validate(full=True)
        if any(column.null_count or column.offset for column in batch.columns):
            raise ValueError("rows without values")
        keys, checksums, seconds = (
            np.frombuffer(column.buffers()[1], kind, len(batch)).copy()
            for column, kind in zip(batch.columns[:3], (f"S{KEY_BYTES}", np.uint64, np.float32), strict=True)
        )
    except (pa.ArrowException, struct.error, StopIteration, EOFError, TypeError, OSError, MemoryError) as error:
        raise ValueError("damaged") from error
    if not (np.isfinite(seconds) & (seconds >= 0)).all():
        raise ValueError("times that are none")
    return keys, checksums, seconds


def _is_compressed(message: Any) -> bool:
    """Whether a batch is compressed: a few bytes of it could become more than memory holds.

    Arrow has no call that says so without unpacking. A message starts with a flatbuffer; its third field is a batch,
    whose fourth one is there if it is compressed.
    """
    header = memoryview(message.metadata)
    batch = _field(header, struct.unpack_from("<I", header, 0)[0], 2)
    return batch is None or _field(header, batch, 3) is not None


def _field(header: memoryview, table: int, number: int) -> int | None:
    """Return where a field of a flatbuffer's table points to, or None if the table does not have it."""
    layout = table - struct.unpack_from("<i", header, table)[0]
    size = struct.unpack_from("<H", header, layout)[0]
    entry = 4 + 2 * number
    offset = struct.unpack_from("<H", header, layout + entry)[0] if entry < size else 0
    return table + offset + struct.unpack_from("<I", header, table + offset)[0] if offset else None
