"""What a worker starts for a planned run, and the worker that dies meanwhile."""

import os

import pytest

from flows.planned_run import Lasting


def test_a_run_prints_on_when_the_worker_that_reads_it_is_gone() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as pipe:
        stream = Lasting(pipe)
        for _ in range(3):
            stream.write("a line\n")
            stream.flush()


def test_what_is_printed_arrives_as_long_as_somebody_reads() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as pipe, os.fdopen(reader) as end:
        stream = Lasting(pipe)
        print("a line", file=stream, flush=True)
        assert end.readline() == "a line\n"
        with pytest.raises(AttributeError):
            _ = stream.no_such_thing
