"""The files of a fuzzing run: good ones in all formats and sizes, damaged ones, foreign ones and bombs."""

from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from regraft.photos.images import load_rgb
from tests.support import bombs
from tests.support.mutations import (
    ENCODINGS,
    HEIC,
    choose_mode,
    damage,
    encode,
    foreign_files,
    in_mode,
    large_files,
)

_SOUND, _SOURCES, _PARTS = 50, 64, 200  # photos that are sound, are drawn from, and that parts of files come from
_LARGE_SHARE, _MEDIUM_SHARE, _FOREIGN_SHARE, _HEIC_SHARE = 0.004, 0.05, 0.03, 0.06
_UNDAMAGED_SHARE, _MISNAMED_SHARE = 1 / 6, 0.1
_BOMBS = [
    *(("png", partial(bombs.png, 10_900, height, bits=16, colour=0), "use") for height in range(10_897, 10_901)),
    ("ico", partial(bombs.icon, 8000), "quarantine"),
    ("tif", partial(bombs.tiled_tiff, 11_000), "quarantine"),
    ("png", partial(bombs.png_with_exif_of_many_numbers, 4_000_000), "quarantine"),
]
Chosen = tuple[str, bytes, str]  # suffix, contents, and the verdict that is promised; an empty one for damaged files


def choose_files(photos: Path, files: int, most: int, random: np.random.Generator) -> Iterator[Chosen]:
    """Yield the files of a run.

    Args:
        photos: a folder of JPEG photos that they are made of.
        files: how many.
        most: pixels of the largest image that may be used.
        random: decides everything else.
    """
    sources = [Image.fromarray(load_rgb(path)) for path in sorted(photos.rglob("*.jp*g"))[:_SOURCES]]
    large = large_files(random, min(28, max(1, int(files * _LARGE_SHARE))))
    parts = [_small(sources, random, 150)[1] for _ in range(_PARTS)]
    for number in range(files):
        if number < _SOUND:
            yield "jpg", encode(_part(sources, random, 60, 120), "jpg") or b"", "use"
        elif number < _SOUND + len(_BOMBS):
            suffix, make, verdict = _BOMBS[number - _SOUND]
            yield suffix, make(), verdict
        else:
            suffix, contents, verdict = _undamaged(sources, large, random, most)
            if suffix not in foreign_files() and random.random() > _UNDAMAGED_SHARE:
                contents, verdict = damage(contents, random, parts[random.integers(_PARTS)]), ""
            if verdict != "quarantine" and random.random() < _MISNAMED_SHARE:
                suffix = [*ENCODINGS][number % len(ENCODINGS)]
            yield suffix, contents, verdict


def _undamaged(
    sources: list[Image.Image], large: list[tuple[str, bytes]], random: np.random.Generator, most: int
) -> Chosen:
    kind = random.random()
    if kind < _LARGE_SHARE:
        suffix, contents = large[random.integers(len(large))]
        with Image.open(BytesIO(contents)) as image:
            return suffix, contents, "use" if image.width * image.height <= most else "quarantine"
    kind -= _LARGE_SHARE
    if kind < _FOREIGN_SHARE:
        suffix = [*foreign_files()][random.integers(len(foreign_files()))]
        return suffix, foreign_files()[suffix], "quarantine"
    if kind - _FOREIGN_SHARE < _HEIC_SHARE:
        return "heic", HEIC.read_bytes(), "use"
    return *_small(sources, random, 1000 if random.random() < _MEDIUM_SHARE else 150), "use"


def _small(sources: list[Image.Image], random: np.random.Generator, most: int) -> tuple[str, bytes]:
    while True:
        suffix = [*ENCODINGS][random.integers(len(ENCODINGS))]
        contents = encode(in_mode(_part(sources, random, 1, most), choose_mode(random)), suffix)
        if contents:
            return suffix, contents


def _part(sources: list[Image.Image], random: np.random.Generator, least: int, most: int) -> Image.Image:
    """A random part of a photo, of any size and shape."""
    source = sources[random.integers(len(sources))]
    size = np.exp(random.uniform(np.log(least), np.log(most + 1), 2)).astype(int)
    left, top = (float(random.uniform(0, length / 2)) for length in source.size)
    box = left, top, left + source.width / 2, top + source.height / 2
    return source.resize((int(size[0]), int(size[1])), Image.Resampling.BILINEAR, box=box)
