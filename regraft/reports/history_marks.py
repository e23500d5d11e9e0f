"""The marks of verdicts: a shape and a colour each, for the chart, its legend and the table."""

from collections.abc import Callable

# By the name of the state of a run: classes of its mark in the style sheet (`history_style`), what draws it, and words.
_Drawn = tuple[str, Callable[[float, float, float], str], str]
_MARKS: dict[str, _Drawn] = {}
NAMES = (
    "Promoted",
    "Promoted with warnings",
    "Undecided",
    "Waiting for approval",
    "Not approved",
    "Refused",
    "Failed",
    "Crashed",
    "Cancelled",
    "Already in production",
    "Nothing new",
    "Completed",
)  # in the order of the legend


def mark(name: str, x: float, y: float, radius: float) -> str:
    """Return the mark of a verdict as SVG; a name that nobody knows has that of a run without news."""
    colour, draw, _ = _MARKS.get(name, _OTHER)
    return f'<g class="mark {colour}">{draw(x, y, radius)}</g>'


def colour_of(name: str) -> str:
    """Return the class of the style sheet that a verdict is coloured by."""
    return _MARKS.get(name, _OTHER)[0]


def shape_of(name: str) -> str:
    """Return what the mark of a verdict looks like, in words."""
    return _MARKS.get(name, _OTHER)[2]


def icon(name: str) -> str:
    """Return the mark of a verdict as a small picture of its own, for a line of text."""
    return f'<svg class="icon" viewBox="0 0 16 16" aria-hidden="true">{mark(name, 8, 8, 6)}</svg>'


def _polygon(x: float, y: float, radius: float, *corners: tuple[float, float]) -> str:
    points = " ".join(f"{x + dx * radius:.1f},{y + dy * radius:.1f}" for dx, dy in corners)
    return f'<polygon points="{points}"/>'


def _circle(x: float, y: float, radius: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{0.9 * radius:.1f}"/>'


def _dot(x: float, y: float, radius: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{0.4 * radius:.1f}"/>'


def _ring(x: float, y: float, radius: float) -> str:
    return _circle(x, y, radius) + f'<circle class="core" cx="{x:.1f}" cy="{y:.1f}" r="{0.4 * radius:.1f}"/>'


def _square(x: float, y: float, radius: float) -> str:
    return _polygon(x, y, 0.8 * radius, (-1, -1), (1, -1), (1, 1), (-1, 1))


def _diamond(x: float, y: float, radius: float) -> str:
    return _polygon(x, y, 1.1 * radius, (0, -1), (1, 0), (0, 1), (-1, 0))


def _triangle(x: float, y: float, radius: float) -> str:
    return _polygon(x, y, 1.05 * radius, (-1, -0.8), (1, -0.8), (0, 0.95))


def _cross(x: float, y: float, radius: float) -> str:
    far = 0.8 * radius
    side = f"{2 * far:.1f}"
    return f'<path d="M{x - far:.1f} {y - far:.1f}l{side} {side}m0 -{side}l-{side} {side}"/>'


def _bolt(x: float, y: float, radius: float) -> str:
    return _polygon(x, y, 1.15 * radius, (0.3, -1), (-0.7, 0.2), (-0.1, 0.2), (-0.3, 1), (0.7, -0.2), (0.1, -0.2))


_OTHER: _Drawn = ("quiet", _dot, "grey dot")
_MARKS |= {
    "Promoted": ("good", _circle, "green circle"),
    "Promoted with warnings": ("warned", _ring, "green ring"),
    "Undecided": ("wait", _diamond, "brown diamond"),
    "Waiting for approval": ("open wait", _square, "brown frame"),
    "Not approved": ("open quiet", _diamond, "grey diamond"),
    "Refused": ("refused", _triangle, "violet triangle"),
    "Failed": ("line bad", _cross, "red cross"),
    "Crashed": ("bad", _bolt, "red bolt"),
    "Cancelled": ("open quiet", _square, "grey frame"),
}
