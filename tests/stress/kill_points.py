"""Where a planned run stands still, so that something can be killed just then; copied into a project under test.

`flows/planned_run.py` of that project imports this first. The first process that finds orders, `hold.json`, takes them.
`where` is `start` (before the frame), a step, `after <step>`, or `end` (receipt, history, server), and `change` says
before which change of a disk, counted from there, it stands still; 0 is at once. Then `held.json` says where it really
is, and of which order. The process goes on to the next order when that file is gone.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from step_hook import before_each  # type: ignore[import-not-found] - a copy of tests.support.step_hook beside this file

import flows.after_run
import tasks.step

FOLDER = Path(".dvc", "tmp", "regraft-held")


class Hold:
    """The orders that this process follows, one after the other."""

    def __init__(self, orders: list[dict[str, Any]]) -> None:
        self._orders, self._done, self._now, self._has_come = orders, 0, "", False

    def enter(self, where: str) -> None:
        """Say where the run is now."""
        self._now = where
        if self._orders and where == self._orders[0]["where"]:
            self._has_come = True
            if not self._orders[0]["change"]:
                self._stand_still()

    def count(self) -> None:
        """Before a change of a disk."""
        if self._has_come and self._orders:
            self._orders[0]["change"] -= 1
            if self._orders[0]["change"] <= 0:
                self._stand_still()

    def _stand_still(self) -> None:
        self._orders, self._has_come = self._orders[1:], False
        held = FOLDER / "held.json"
        held.with_suffix(".new").write_text(json.dumps({"pid": os.getpid(), "where": self._now, "order": self._done}))
        self._done += 1
        held.with_suffix(".new").rename(held)
        while held.exists():
            time.sleep(0.01)


def _take_orders() -> list[dict[str, Any]]:
    taken = FOLDER / f"{os.getpid()}.json"
    try:
        (FOLDER / "hold.json").rename(taken)
    except OSError:
        return []
    return json.loads(taken.read_text())


def _follow(hold: Hold) -> None:
    step, after_run = tasks.step.step, flows.after_run.after_run

    def told_step(name: str, function: Callable[[], Any]) -> Any:
        hold.enter(name)
        outcome = step(name, function)
        hold.enter(f"after {name}")
        return outcome

    def told_after_run(*arguments: Any, **named: Any) -> None:
        hold.enter("end")
        after_run(*arguments, **named)

    tasks.step.step, flows.after_run.after_run = told_step, told_after_run
    hold.enter("start")
    before_each(hold.count)


if found := _take_orders():
    _follow(Hold(found))
