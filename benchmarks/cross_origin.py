"""What other web pages get from a Prefect server: its own (`prefect server start`) and that of `regraft ui`.

    python -m benchmarks.cross_origin

Starts both with an empty database, sends each the requests of tests/support/cross_origin.py, and prints the statuses,
before and after. 2xx and 101 are obeyed, 4xx refused. Exits with 1 if ours obeys anything.
"""

import sys
import tempfile
from pathlib import Path

from tests.support.cross_origin import REQUESTS, statuses
from tests.support.prefect_server import running_server
from tests.support.project import clean_environment


def measure(folder: Path) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]]:
    """Return the statuses of Prefect's own server and of ours, by sender and request."""
    found = []
    for guarded in (False, True):
        place = folder / ("ours" if guarded else "plain")
        place.mkdir()
        with running_server(place, clean_environment(place / "home"), guarded=guarded) as server:
            found.append(statuses(server.port))
    return found[0], found[1]


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = measure(Path(folder))
    for sender in before:
        print(f"\n{sender}")
        for request in REQUESTS:
            print(f"    {request.name:38} {before[sender][request.name]:>5} {after[sender][request.name]:>5}")
    obeyed = [status for found in after.values() for status in found.values() if status not in (401, 403)]
    total = sum(status < 400 for found in before.values() for status in found.values())
    print(f"\nobeyed: {total} of {len(before) * len(REQUESTS)} before, {len(obeyed)} now")
    sys.exit(1 if obeyed else 0)


if __name__ == "__main__":
    main()
