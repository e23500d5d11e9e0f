"""Run a command and write to a file what it took: python benchmarks/support/measured.py FILE COMMAND...

This is a process of its own because it is small: on Linux a process's peak memory is never below that of the one that
started it.
"""

import json
import os
import sys
import time


def main() -> None:
    """The command line."""
    file, *command = sys.argv[1:]
    started, start = time.time(), time.perf_counter()
    _, status, usage = os.wait4(os.posix_spawnp(command[0], command, os.environ), 0)
    took = {
        "status": os.waitstatus_to_exitcode(status),
        "started": started,
        "seconds": time.perf_counter() - start,
        "peak_memory_mb": usage.ru_maxrss * 1024 / 1e6,  # Linux counts in KiB
    }
    with open(file, "w") as output:  # noqa: PTH123 - pathlib would be a third of this process
        json.dump(took, output)


if __name__ == "__main__":
    main()
