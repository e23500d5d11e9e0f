"""What a run makes of a converted export, and what it takes to list a large bucket.

    python -m benchmarks.converters PHOTOS EXPORT ...       exports of the same photos by other tools
    python -m benchmarks.converters --listing 1000000       objects in a bucket

The first trains a head on the folder PHOTOS itself and then on the table of each export (`regraft table`), and compares
accuracy and model. The exports are made by the tools' own libraries: tests/data/converters/make_exports.py. One that
holds no photos, a JSON file, takes those of PHOTOS. The second asks a server of its own that makes up the listing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from regraft.files import read_json, sha256_of
from tests.support.machine import describe_machine
from tests.support.pipeline import HEAD_ONLY, REGRAFT, ROOT, STAGES, run, run_stage, stages_folder

_PAGE = 1000  # objects
_CLASSES = 100


def train(raw: Path, project: Path, settings: list[str]) -> dict[str, Any]:
    """Run all stages on a data folder; return what came out."""
    stages_folder(project, raw, [*HEAD_ONLY, *settings])
    for stage in STAGES:
        run_stage(stage, project, log=project / f"{stage}.log")
    test = read_json(project / "reports" / "metrics.json")["test"]
    counts = read_json(project / "reports" / "dataset.json")
    return {
        "photos": counts["images"],
        "classes": len(counts["classes"]),
        "accuracy": test["accuracy"],
        "test_photos": test["images"],
        "model": sha256_of(project / "models" / "model.onnx")[:12],
    }


def compare(photos: Path, exports: list[Path], settings: list[str]) -> dict[str, Any]:
    """Train on a folder and on the tables of exports of it."""
    with tempfile.TemporaryDirectory(prefix="regraft-converters-") as temporary:
        results = {"the folder itself": train(photos, Path(temporary, "folder"), settings)}
        for number, export in enumerate(exports):
            raw = Path(temporary, f"raw-{number}")
            arguments = ["table", str(export.resolve()), "--out", str(raw / "labels.csv")]
            if export.suffix == ".json":
                arguments += ["--photos", str(photos.resolve())]
            run([*REGRAFT, *arguments], ROOT, os.environ | {}, log=Path(temporary, "table.log"))
            results[str(export)] = train(raw, Path(temporary, f"project-{number}"), settings)
        return results


def list_bucket(objects: int) -> dict[str, Any]:
    """Write the table of a bucket with so many objects, in a process of its own; return seconds and peak memory."""
    with tempfile.TemporaryDirectory(prefix="regraft-listing-") as temporary, _server(objects) as address:
        environment = os.environ | {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        environment |= {"AWS_DEFAULT_REGION": "us-east-1"}
        out = Path(temporary, "labels.parquet")
        ended = run([*REGRAFT, "table", "s3://bucket/photos", "--out", str(out)], ROOT, environment)
        return {
            "objects": objects,
            "seconds": round(ended.seconds, 1),
            "peak_memory_mb": round(ended.peak_memory_mb),
            "table_mb": round(out.stat().st_size / 1e6, 1),
        }


@contextmanager
def _server(objects: int) -> Iterator[str]:
    """Start a process that speaks as much S3 as a listing needs."""
    command = [sys.executable, "-m", "benchmarks.converters", "--serve", str(objects)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        yield process.stdout.readline().strip()
        process.terminate()


def serve(objects: int) -> None:
    """Answer list_objects_v2 of a bucket that is never there: photos/class-NN/NNNNNNN.jpg."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = parse_qs(urlsplit(self.path).query)
            body = (
                _folders() if "delimiter" in asked else _page(int(asked.get("continuation-token", ["0"])[0]), objects)
            )
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/xml")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    threading.Thread(target=server.serve_forever).start()


def _folders() -> bytes:
    found = "".join(f"<CommonPrefixes><Prefix>photos/class-{number:02}/</Prefix></CommonPrefixes>"
                    for number in range(_CLASSES))  # fmt: skip
    return _answer(found, "")


def _page(start: int, objects: int) -> bytes:
    end = min(start + _PAGE, objects)
    each = -(-objects // _CLASSES)
    found = "".join(
        f"<Contents><Key>photos/class-{number // each:02}/{number:07}.jpg</Key><LastModified>2026-11-26T00:00:00.000Z"
        f"</LastModified><ETag>&quot;{number:032x}&quot;</ETag><Size>150000</Size><StorageClass>STANDARD</StorageClass>"
        f"</Contents>"
        for number in range(start, end)
    )
    more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < objects else ""
    return _answer(found, more)


def _answer(found: str, more: str) -> bytes:
    is_truncated = "true" if more else "false"
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<IsTruncated>{is_truncated}</IsTruncated>{more}{found}</ListBucketResult>"
    ).encode()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.converters", description="Runs on converted exports; listing of a large bucket."
    )
    parser.add_argument("photos", type=Path, nargs="?", help="a folder of labelled photos")
    parser.add_argument("exports", type=Path, nargs="*", help="folders or files that other tools wrote of them")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--listing", type=int, metavar="OBJECTS", help="list a bucket of so many instead")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    print(describe_machine())
    if arguments.listing:
        result = list_bucket(arguments.listing)
    else:
        result = compare(arguments.photos, arguments.exports, arguments.settings)
        for name, figures in result.items():
            print(f"{name:60} {json.dumps(figures)}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
