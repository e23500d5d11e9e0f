"""Look into the store: `python -m regraft.store list`."""

import argparse
import json
from pathlib import Path

from regraft.files import read_json, readable_bytes


def _list(root: Path) -> None:
    for description in sorted(root.glob("*/namespace.json")):
        shards = list(description.parent.glob("*.arrow"))
        size = sum(shard.stat().st_size for shard in shards)
        facts = json.dumps({key: value for key, value in read_json(description).items() if key != "kind"})
        print(f"{description.parent.name:30} {len(shards):5} shards {readable_bytes(size):>10}  {facts}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m regraft.store", description="Look into the store.")
    parser.add_argument("command", choices=["list"])
    parser.add_argument("--root", type=Path, default=Path("build/store"))
    arguments = parser.parse_args()
    _list(arguments.root)
