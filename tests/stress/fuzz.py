"""Broken files by the thousand: does validation survive them, and does it let one through that cannot be decoded?

    python -m tests.stress.fuzz [DIR] [--files 10000] [--seed 0]

DIR holds labelled photos; without it, those of tests/data. They are encoded in eleven formats, and each file is
damaged in one to three ways: bits flipped, bytes overwritten, parts cut out, doubled or taken from another file,
numbers in the header replaced, the end cut off, the name changed. Then the manifest is built over all of them, and
every file that it accepts is decoded as in training, by another function in this process. A decoder that crashed or
hit the time limit shows in the reasons: that is what it has a process of its own for. Exit status 1 if a file has no
verdict, a refused one has no reason, or an accepted one cannot be decoded.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from regraft.params_file import load_params
from regraft.photos.decoder import DecodeLimits
from regraft.photos.images import Threads, load_rgb
from regraft.photos.manifest import build_manifest
from tests.support.machine import describe_machine
from tests.support.photos import REAL_PHOTOS
from tests.support.pipeline import ROOT

_SOURCES, _SIDE = 64, 120  # photos, and pixels of their longer side: mutations have to hit what matters
_ENCODINGS: dict[str, dict[str, Any]] = {
    "jpg": {"format": "JPEG", "quality": 85},
    "progressive.jpg": {"format": "JPEG", "quality": 85, "progressive": True},
    "png": {"format": "PNG"},
    "gif": {"format": "GIF"},
    "bmp": {"format": "BMP"},
    "tif": {"format": "TIFF"},
    "lzw.tif": {"format": "TIFF", "compression": "tiff_lzw"},
    "webp": {"format": "WEBP", "quality": 80},
    "avif": {"format": "AVIF", "speed": 10},
    "jp2": {"format": "JPEG2000"},
    "ppm": {"format": "PPM"},
}
Mutation = Callable[[bytes, np.random.Generator, bytes], bytes]


def _flip_bits(contents: bytes, random: np.random.Generator, _: bytes) -> bytes:
    values = np.frombuffer(contents, np.uint8).copy()
    for position in random.integers(0, len(values), random.integers(1, 64)):
        values[position] ^= 1 << random.integers(8)
    return values.tobytes()


def _overwrite(contents: bytes, random: np.random.Generator, _: bytes) -> bytes:
    start, end = _part(contents, random)
    return contents[:start] + random.bytes(end - start) + contents[end:]


def _cut_out(contents: bytes, random: np.random.Generator, _: bytes) -> bytes:
    start, end = _part(contents, random)
    return contents[:start] + contents[end:]


def _double(contents: bytes, random: np.random.Generator, _: bytes) -> bytes:
    start, end = _part(contents, random)
    return contents[:end] + contents[start:]


def _splice(contents: bytes, random: np.random.Generator, other: bytes) -> bytes:
    position = random.integers(1, max(2, min(len(contents), len(other))))
    return contents[:position] + other[position:]


def _change_header(contents: bytes, random: np.random.Generator, _: bytes) -> bytes:
    position = int(random.integers(0, min(600, len(contents))))
    number = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", random.bytes(4), random.bytes(1)]
    value = number[random.integers(len(number))]
    return contents[:position] + value + contents[position + len(value) :]


def _truncate(contents: bytes, random: np.random.Generator, _: bytes) -> bytes:
    return contents[: random.integers(0, len(contents))]


_MUTATIONS: list[Mutation] = [_flip_bits, _overwrite, _cut_out, _double, _splice, _change_header, _truncate]


def _part(contents: bytes, random: np.random.Generator) -> tuple[int, int]:
    start = int(random.integers(0, len(contents)))
    return start, min(len(contents), start + int(random.integers(1, 400)))


def measure(photos: Path, *, files: int, seed: int) -> dict[str, Any]:
    """Damage, validate, and decode what was accepted; `problems` must stay empty."""
    with tempfile.TemporaryDirectory(prefix="regraft-fuzz-") as temporary:
        raw = Path(temporary, "raw")
        formats = _write(raw, _encoded(photos), files, np.random.default_rng(seed))
        start = time.perf_counter()
        manifest = _manifest(raw)
        seconds = time.perf_counter() - start
        accepted, reasons = manifest[manifest.verdict == "use"], manifest.reason.fillna("")
        undecodable = [what for what in Threads(0).map(lambda path: _problem(raw, path), accepted.path) if what]
        return {
            "files": len(manifest),
            "formats": formats,
            "seconds": round(seconds, 1),
            "verdicts": manifest.verdict.value_counts().to_dict(),
            "crashes": int(reasons.str.contains("crashed on it").sum()),
            "over_the_time_limit": int(reasons.str.contains("takes longer than").sum()),
            "undecodable_accepted": len(undecodable),
            "problems": [*_broken_promises(manifest, files), *undecodable[:20]],
            "reasons": Counter(reason.split(":")[0] for reason in reasons if reason).most_common(12),
            "peak_memory_of_an_inspector_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
        }


def _manifest(raw: Path) -> pd.DataFrame:
    """Validate a folder with the project's own limits."""
    settings = load_params(ROOT / "params.yaml").validate_data
    limits = DecodeLimits(settings.max_pixels, settings.max_seconds)
    return build_manifest(raw, limits=limits, threads=Threads(0))[1]


def _broken_promises(manifest: pd.DataFrame, files: int) -> Iterator[str]:
    """What is wrong with the verdicts as such."""
    if len(manifest) != files:
        yield f"expected a verdict on each of {files} files, found {len(manifest)}"
    without_reason = manifest[(manifest.verdict != "use") & manifest.reason.isna()]
    yield from (f"{path} is refused without a reason" for path in without_reason.path[:20])


def _encoded(photos: Path) -> dict[str, list[bytes]]:
    """Sources from everywhere in a folder, in every format."""
    manifest = _manifest(photos)
    usable = manifest[manifest.verdict == "use"].path
    encoded: dict[str, list[bytes]] = {suffix: [] for suffix in _ENCODINGS}
    for path in usable[:: max(1, len(usable) // _SOURCES)][:_SOURCES]:
        image = Image.fromarray(load_rgb(photos / path))
        image.thumbnail((_SIDE, _SIDE))
        for suffix, options in _ENCODINGS.items():
            file = BytesIO()
            image.save(file, **options)
            encoded[suffix].append(file.getvalue())
    return encoded


def _write(raw: Path, encoded: dict[str, list[bytes]], files: int, random: np.random.Generator) -> dict[str, int]:
    """Write damaged files into ten class folders; return how many of each format."""
    written: Counter[str] = Counter()
    suffixes = list(encoded)
    for number in range(files):
        suffix, other = (suffixes[index] for index in random.integers(len(suffixes), size=2))
        contents, second = (encoded[name][random.integers(len(encoded[name]))] for name in (suffix, other))
        for _ in range(random.integers(1, 4)):
            if contents:
                contents = _MUTATIONS[random.integers(len(_MUTATIONS))](contents, random, second)
        name = suffix if random.random() < 0.9 else other
        path = raw / f"class-{number % 10}" / f"{number:06}.{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)
        written[suffix] += 1
    return dict(written)


def _problem(raw: Path, path: str) -> str | None:
    """What goes wrong when an accepted file is read as in training."""
    try:
        rgb = load_rgb(raw / path)
    except Exception as error:  # whatever it is, a run would have ended with it
        return f"{path} was accepted: {type(error).__name__}: {error}"
    if rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3 and rgb.size:
        return None
    return f"{path} was accepted: {rgb.dtype} of shape {rgb.shape}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.fuzz", description="Validation on damaged files.")
    parser.add_argument("photos", type=Path, nargs="?", default=REAL_PHOTOS, help="a folder of labelled photos")
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if not arguments.photos.is_dir():
        sys.exit(f"there is no folder {arguments.photos}")
    result = measure(arguments.photos, files=arguments.files, seed=arguments.seed)
    print(describe_machine())
    print(f"{result['files']} damaged files in {result['seconds']} s: {result['verdicts']}")
    for reason, count in result["reasons"]:
        print(f"  {count:6}  {reason}")
    print(
        f"crashes {result['crashes']}, over the time limit {result['over_the_time_limit']}, accepted and not decodable "
        f"{result['undecodable_accepted']}"
    )
    print(json.dumps(result))
    if result["problems"]:
        sys.exit(f"{len(result['problems'])} problem(s): {'; '.join(result['problems'])}")


if __name__ == "__main__":
    main()
