"""What a page is made of before it becomes Markdown or HTML: text, charts and photos."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing."""

    title: str  # for whoever cannot see it
    png: bytes


@dataclass(frozen=True, slots=True)
class Tile:
    """A thumbnail, and what is said of it."""

    pixels: np.ndarray  # uint8 RGB, shape (height, width, 3)
    caption: str
    beside: tuple[np.ndarray, ...] = ()  # further pictures of the same photo, of the same shape


@dataclass(frozen=True, slots=True)
class Photos:
    """Thumbnails: one group without a name, or a row per named group."""

    title: str  # for whoever cannot see them
    groups: list[tuple[str, list[Tile]]]


# Text is Markdown; its headings start at the second level, and names in it have gone through `markdown.cell`.
Block: TypeAlias = str | Chart | Photos


@dataclass(frozen=True, slots=True)
class Page:
    """What one stage found out, or a part of it."""

    key: str  # lower-case letters, digits and dashes: an artifact's key in Prefect, an anchor in HTML
    title: str
    blocks: list[Block]
