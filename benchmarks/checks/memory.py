"""What photos take of the memory: bytes a pixel by format and kind of pixels, against what the budget counts.

    python -m benchmarks.checks.memory [FILE ...] [--side 4000] [--quick]

Each picture is noise of this side in one format. A process of its own opens it, decodes it and describes it as an
inspector does, then reads it as RGB as training does. Printed are the peaks beside what the process took before, as
address space (which is what an inspector's limit is about) and as resident memory, and their ratio to what
`regraft.photos.memory` counts: above 1.00 a good photo could be refused, and the exit status is 1. FILEs are measured
too: HEIC photos, which nothing here can write.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.support.projects import ROOT, describe_machine
from regraft.photos.inspectors import ENVIRONMENT

_MODES = ("RGB", "RGBA", "L", "LA", "P", "I;16", "CMYK")
_FORMATS = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "bmp": "BMP", "tiff": "TIFF", "webp": "WEBP"}
_SLACK = 64 * 2**20  # as in `regraft.photos.allowance`: tables of decoders, not pixels
_CHILD = """
import ctypes, json, os, sys
from io import BytesIO
from pathlib import Path
from PIL import Image
from regraft.photos.images import open_image, to_luma, to_rgb
from regraft.photos.memory import bytes_needed
from regraft.photos.statistics import describe
def now(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))
file = BytesIO()
Image.new("RGB", (9, 9)).save(file, "PNG")
with open_image(file) as image:
    describe(to_luma(image))
path = Path(sys.argv[1])
size, resident = now("VmSize"), now("VmRSS")
with open_image(path) as image:
    needed, pixels = bytes_needed(image, path.stat().st_size), image.width * image.height
    kind = f"{image.format} {image.mode}"
    describe(to_luma(image))
del image
ctypes.CDLL(None).malloc_trim(0)  # as an inspector does between two files
with open_image(path) as image:
    to_rgb(image)
peaks = now("VmPeak") - size, now("VmHWM") - resident
print(json.dumps([kind, pixels, needed, *peaks]))
"""


def measure(path: Path) -> dict[str, object]:
    """Measure one file."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _CHILD, str(path)],
        cwd=ROOT,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        check=True,
    )
    kind, pixels, needed, mapped, resident = json.loads(ended.stdout)
    return {
        "file": path.name,
        "kind": kind,
        "counted": round(needed / pixels, 1),
        "address_space": round(mapped / pixels, 1),
        "resident": round(resident / pixels, 1),
        "ratio": round(mapped / (needed + _SLACK), 2),
    }


def pictures(folder: Path, side: int) -> Iterator[Path]:
    """Write noise in every format and every kind of pixels that it knows."""
    tile = np.random.default_rng(0).integers(90, 166, (200, 200, 3), np.uint8)  # more would not fit Pillow's buffer
    noise = Image.fromarray(np.tile(tile, (side // 200 + 1, side // 200 + 1, 1))[:side, :side])
    for suffix, kind in _FORMATS.items():
        for mode in _MODES:
            path = folder / f"{mode.replace(';', '')}.{suffix}"
            try:
                (noise.convert("I").convert(mode) if mode == "I;16" else noise.convert(mode)).save(path, kind)
            except (OSError, ValueError):  # a format without these pixels
                continue
            yield path
            path.unlink()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Memory that photos take.")
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--side", type=int, default=4000, help="pixels of a side")
    parser.add_argument("--quick", action="store_true", help="2,000 pixels")
    arguments = parser.parse_args()
    side = 2000 if arguments.quick else arguments.side
    print(describe_machine())
    results = []
    with tempfile.TemporaryDirectory(prefix="regraft-memory-") as temporary:
        for path in chain(arguments.files, pictures(Path(temporary), side)):
            results.append(measure(path.resolve()))
            print(
                "{file:22} {kind:16} counted {counted:5}  space {address_space:5}  resident {resident:5}"
                "  ratio {ratio}".format(**results[-1]),
                flush=True,
            )
    print(json.dumps(results))
    if worst := [str(result["file"]) for result in results if float(str(result["ratio"])) > 1]:
        sys.exit(f"more than what is counted is taken by {', '.join(worst)}")


if __name__ == "__main__":
    main()
