"""From figures to places: the panels of the chart of the history, their scales and what is written beside them."""

import math
from dataclasses import dataclass

_DURATIONS = [unit * count for unit in (1, 60, 3600) for count in (1, 2, 5, 10, 15, 30)]  # seconds


@dataclass(frozen=True, slots=True)
class Scale:
    """Figures from `low` to `high`, drawn from `bottom` up to `top`, in pixels."""

    low: float
    high: float
    top: float
    bottom: float

    def __call__(self, value: float) -> float:
        """Return where a figure is drawn; one outside is drawn at the edge."""
        share = (min(max(value, self.low), self.high) - self.low) / ((self.high - self.low) or 1.0)
        return self.bottom - share * (self.bottom - self.top)


@dataclass(frozen=True, slots=True)
class Panel:
    """A part of the chart, in pixels."""

    top: float
    height: float
    left: float
    right: float

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.top + self.height

    def scale(self, low: float, high: float) -> Scale:
        """Return a scale that fills it."""
        return Scale(low, high, self.top, self.bottom)

    def title(self, text: str) -> str:
        """Return what it shows, above its right end, where a narrow screen begins."""
        return f'<text class="title" x="{self.right:.1f}" y="{self.top - 8:.1f}" text-anchor="end">{text}</text>'

    def label(self, y: float, text: str) -> str:
        """Return a word at its right edge."""
        return f'<text x="{self.right + 6:.1f}" y="{y + 4:.1f}">{text}</text>'

    def grid(self, y: float, text: str) -> str:
        """Return a line across it, and the figure that it stands for."""
        ends = f'x1="{self.left:.1f}" x2="{self.right:.1f}" y1="{y:.1f}" y2="{y:.1f}"'
        return f'<line class="grid" {ends}/>{self.label(y, text)}'


def steps(low: float, high: float, count: int) -> list[float]:
    """Return round figures within a range, about `count` of them: 1, 2 or 5 times a power of ten apart."""
    span = high - low
    if not span > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if span / step <= count + 0.5)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def time_steps(high: float) -> list[float]:
    """Return no duration, and the largest round one within a range of seconds."""
    return [0.0, *[duration for duration in _DURATIONS if duration <= high][-1:]]


def readable_seconds(seconds: float) -> str:
    """Return a duration as a scale has it: 90 -> 1.5 min."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 3600 else f"{seconds / 3600:.3g} h"
