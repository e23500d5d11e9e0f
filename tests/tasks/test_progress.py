"""How far a stage is, as a person sees it on a terminal and in a log."""

import io
import re
import sys
from collections.abc import Callable

import pytest

from tasks.progress import Progress, terminal_progress


class Clock:
    """Time that passes when a test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of everything that is counted."""
    clock = Clock()
    monkeypatch.setattr("tasks.progress.time.monotonic", clock)
    return clock


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def seen(count: Callable[[Progress], None], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what stays on the screen: each line as it was drawn last."""
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)  # here and not in a fixture: pytest sets it again before the test
    with terminal_progress("stage") as progress:
        count(progress)
    lines = [line.split("\r")[-1] for line in screen.getvalue().split("\n")]
    assert lines.pop() == ""
    return lines


def test_a_log_gets_a_line_every_ten_seconds_and_one_at_the_end(clock: Clock, capsys: pytest.CaptureFixture) -> None:
    with terminal_progress("cache_features") as progress:
        report = progress("views")
        for second in range(26):
            clock.now = 100.0 + second
            report(200 + 4 * second, 300)
    assert capsys.readouterr().err.splitlines() == [
        "cache_features: 240 of 300 views (80%), 4.0 a second, 0:00:15 left",
        "cache_features: 280 of 300 views (93%), 4.0 a second, 0:00:05 left",
        "cache_features: 300 of 300 views (100%), 4.0 a second",
    ]


def test_several_things_have_a_bar_each_and_no_empty_lines_between(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(progress: Progress) -> None:
        for what, epochs in (("sweep", 3), ("winner", 2), ("10%", 3)):  # training of the winner stops early
            report = progress(f"{what} epochs")
            for epoch in range(epochs):
                report(epoch + 1, 3)

    lines = seen(count, monkeypatch)
    assert [re.findall(r"^stage: .* (\d/3) \[", line) for line in lines] == [["3/3"], ["2/3"], ["3/3"]]
