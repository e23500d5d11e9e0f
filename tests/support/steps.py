"""Real kills at every step (`tests.support.step_hook`): a function in a process that ends or stops itself there.

The processes are forked from one that has imported what they need, and are ready in milliseconds.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import psutil

from tests.support.step_hook import strike_at

SIGSTOP = signal.SIGSTOP
_PATIENCE_SECONDS = 60
_context = multiprocessing.get_context("forkserver")
# Nothing of tests/: the first of these processes is started in whatever folder, where another `tests` may be found.
_context.set_forkserver_preload(["tasks.promote", "filelock", "psutil"])


class Stepping:
    """One call of a function in a process of its own."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, at: int = 0, how: int = signal.SIGKILL) -> None:
        """Start it.

        Args:
            function: a function of a module.
            arguments: for it.
            at: the step before which the signal is sent, from 1; 0 is none.
            how: SIGKILL or SIGSTOP.
        """
        self._answer, sender = _context.Pipe(duplex=False)
        self.process = _context.Process(target=_work, args=(sender, at, how, function, arguments))
        self.process.start()
        sender.close()

    def steps(self) -> int:
        """Wait until it has ended well, and return how many steps that took."""
        self.process.join(_PATIENCE_SECONDS)
        assert self.process.exitcode == 0, f"exit status {self.process.exitcode}"
        return self._answer.recv()

    def is_killed(self) -> bool:
        """Wait for its end; False if it ended well because it has fewer steps than that."""
        self.process.join(_PATIENCE_SECONDS)
        assert self.process.exitcode in (0, -signal.SIGKILL), f"exit status {self.process.exitcode}"
        return self.process.exitcode != 0

    def wait_until_stopped(self) -> None:
        """Return as soon as it has stopped itself."""
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while psutil.Process(self.process.pid).status() != psutil.STATUS_STOPPED:
            assert self.process.is_alive(), "it ended before that step"
            assert time.monotonic() < give_up, "it did not stop"
            time.sleep(0.005)

    def go_on(self) -> None:
        """Let it go on after it stopped."""
        assert self.process.pid
        os.kill(self.process.pid, signal.SIGCONT)

    def end(self) -> None:
        """Kill it if it still runs."""
        self.process.kill()
        self.process.join()


def _work(sender: Any, at: int, how: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    steps = strike_at(at, lambda: os.kill(os.getpid(), how))
    function(*arguments)
    sender.send(steps())
