"""Nights of a worker that keeps nothing: each is a fresh clone in an empty home, and all state lies in a bucket.

    python -m benchmarks.stateless DIR [--photos 300] [--more 10] [--set NAME=VALUE ...] [--quick]

DIR is a folder of labelled photos. Some of them go to an S3 server (moto) on this machine, and stay there: data/raw is
a table of their addresses. The same bucket is DVC's remote, the shared store and production; a bare git repository
takes the branch of the nights. The first worker founds production. Its clone and its home are deleted, more photos
join, and another one makes the second night; a third one finds that production does not answer. `bytes_fetched` is all
that the second worker was sent by the bucket, `fetched_of` what of it was photos, DVC's, the store's and production's;
`known_photos_fetched` are those that were fetched although they were there the night before, `of_which` by split.
`forward_passes` are those of photos that were known, those of new ones stand beside them. The last line is one JSON
object.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.stateless_worker import BUCKET, DVC, GIT, Bucket, Worker
from regraft.files import read_json, sha256_of
from regraft.photos.dataset import read_dataset
from tests.support.faulty_s3 import faulty_s3
from tests.support.machine import describe_machine
from tests.support.photos import usable_photos
from tests.support.pipeline import HEAD_ONLY, ROOT, temporary_project

_STATE = [
    f"paths.production={BUCKET}/production",
    f"machine.shared_store={BUCKET}/store",
    "nights.push=origin",
    "nights.branch=nights",
]
_QUICK = [*HEAD_ONLY, "cache_features.views=0"]
_ENDED = (0, 2)  # the second: the gate did not promote


def measure(photos: Path, count: int, more: int, settings: list[str]) -> dict[str, Any]:
    """Play the three nights, and return what the second one took."""
    sources = usable_photos(photos)
    if len(sources) < count + more:
        sys.exit(f"{photos} must have at least {count + more} usable photos. Received: {len(sources)}.")
    with tempfile.TemporaryDirectory(prefix="regraft-stateless-") as temporary, faulty_s3() as (proxy, environment):
        bucket, folder = Bucket(proxy, environment), Path(temporary)
        origin = _make_origin(folder, [*_STATE, *settings])
        bucket.put(sources.head(count))
        print("The first worker founds production.", flush=True)
        seconds, founded = _first_night(Worker(origin, folder / "first", bucket))
        bucket.put(sources.iloc[count : count + more])
        owner = Worker(origin, folder / "owner", bucket)
        owner.list_photos("More photos")
        owner.end()
        print("A second worker, after the first was deleted.", flush=True)
        second = _second_night(Worker(origin, folder / "second", bucket), founded)
        proxy.closed = "/faulty/production"
        print("A third one, to which production does not answer.", flush=True)
        unreachable = _unreachable_night(Worker(origin, folder / "third", bucket))
    return {**second, "new_photos": more, "known_photos": count, "first_seconds": seconds, "unreachable": unreachable}


def _make_origin(folder: Path, settings: list[str]) -> Path:
    """Make a bare git repository with the project's source and settings."""
    origin = folder / "origin.git"
    subprocess.run([*GIT, "init", "--quiet", "--bare", "--initial-branch=main", str(origin)], check=True)
    with temporary_project(settings) as project:
        (project.root / "data/raw/.gitignore").unlink(missing_ok=True)
        identity = ["-c", "user.name=a person", "-c", "user.email=person@example.org"]
        remote = [*DVC, "remote", "add", "--quiet", "--default", "bucket", f"{BUCKET}/dvc"]
        for command in (
            remote,
            ["git", "add", "--all"],
            ["git", *identity, "commit", "--quiet", "-m", "The project"],
            ["git", "push", "--quiet", str(origin), "HEAD:main"],
        ):
            subprocess.run(command, cwd=project.root, env=project.environment, check=True)
    return origin


def _first_night(worker: Worker) -> tuple[float, str]:
    """List the photos, train, found production; return the seconds of the run and the model in production."""
    worker.list_photos("The photos")
    start = time.perf_counter()
    worker.regraft("retrain", "--commit", accepted=(0, 1, 2))
    seconds = time.perf_counter() - start
    worker.regraft("promote", "--first")
    founded = sha256_of(worker.root / "models/model.onnx")
    worker.regraft("retrain", "--commit", accepted=_ENDED)
    worker.end()
    return round(seconds, 1), founded


def _second_night(worker: Worker, founded: str) -> dict[str, Any]:
    """Retrain with more photos, and return what that took."""
    proxy = worker.bucket.proxy
    before, start = len(proxy.fetched), time.perf_counter()
    worker.pull()
    pulled = time.perf_counter() - start
    dataset = read_dataset(worker.root / "build/dataset.parquet", worker.root / "data/raw").rows
    known = set(dataset.digest)
    status = worker.regraft("retrain", "--commit", accepted=_ENDED)
    seconds = time.perf_counter() - start
    fetched = proxy.fetched[before:]
    features = read_json(worker.root / "reports/features.json")
    validation = read_json(worker.root / "reports/validation.json")
    rows = read_dataset(worker.root / "build/dataset.parquet", worker.root / "data/raw").rows
    new = rows[~rows.digest.isin(known)]
    again = rows[rows.digest.isin(known) & rows.path.isin({f"s3:/{path}" for path, _ in fetched})]
    of_new = int((new.split == "train").sum()) * features["views"] + int((new.split != "train").sum())
    verdict = worker.verdict()
    worker.end()
    return {
        "forward_passes": features["computed"] - of_new,
        "forward_passes_of_new_photos": of_new,
        "photos_decoded": validation["photos_decoded"],
        "photos_fetched": validation["photos_fetched"],
        "known_photos_fetched": len(again),
        "of_which": again.split.value_counts().to_dict(),
        "bytes_fetched": sum(size for _, size in fetched),
        "fetched_of": _by_folder(fetched),
        "seconds": round(seconds, 1),
        "pull_seconds": round(pulled, 1),
        "verdict": verdict["name"],
        "words": verdict["words"],
        "champion_compared": verdict["about"]["champion"] == founded,
        "status": status,
    }


def _by_folder(fetched: list[tuple[str, int]]) -> dict[str, int]:
    """Return the bytes of answers by the bucket's folder."""
    sizes: Counter[str] = Counter()
    for path, size in fetched:
        sizes["/".join(path.split("/")[2:3]) or "listings"] += size
    return dict(sizes)


def _unreachable_night(worker: Worker) -> dict[str, Any]:
    """Retrain while production does not answer, and return how that ended."""
    worker.pull()
    start = time.perf_counter()
    status = worker.regraft("retrain", "--commit", accepted=(0, 1, 2))
    seconds = time.perf_counter() - start
    said = [line for line in worker.printed.splitlines() if "production" in line.lower()]
    printed = worker.printed
    worker.end()
    is_failed = status == 1 and not re.search("First model|^Promoted", printed, re.M)
    return {
        "verdict": "Failed" if is_failed else "not Failed",
        "status": status,
        "seconds": round(seconds, 1),
        "said": said[-1][:300] if said else "",
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stateless", description="Nights that keep nothing.")
    parser.add_argument("photos", type=Path, help="a folder of labelled photos in any of the three layouts")
    parser.add_argument("--photos", dest="count", type=int, default=300, help="of the first night")
    parser.add_argument("--more", type=int, default=10, help="photos that join before the second")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of params.yaml")
    parser.add_argument("--quick", action="store_true", help="100 photos, 3 more, the head alone, no views")
    arguments = parser.parse_args()
    if not arguments.photos.is_dir():
        sys.exit(f"there is no folder {arguments.photos}")
    count, more, settings = arguments.count, arguments.more, arguments.set
    if arguments.quick:
        count, more, settings = 100, 3, [*_QUICK, *settings]
    print(describe_machine(), flush=True)
    os.chdir(ROOT)
    result = measure(arguments.photos.resolve(), count, more, settings)
    print(
        f"{result['known_photos']} known and {result['new_photos']} new photos: {result['forward_passes']} forward "
        f"passes of known ones, {result['photos_decoded']} decoded to be validated, {result['known_photos_fetched']} "
        f"known ones fetched, {result['bytes_fetched'] / 1e6:.1f} MB in all, {result['seconds']} s (the first night "
        f"{result['first_seconds']} s): {result['verdict']}. Without production: {result['unreachable']['verdict']} "
        f"after {result['unreachable']['seconds']} s."
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
