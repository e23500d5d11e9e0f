"""What a receipt says of the machine that a run was on, and what it does not say."""

import platform
import re
import socket
from pathlib import Path


def without_machine(text: str) -> str:
    """Return a text for git: without paths, user and host of this machine."""
    host = re.escape(socket.gethostname())
    text = re.sub(rf" by (user \d+|\S+) on {host}(?!\w)", "", text)  # as `tasks.promote` names who decided
    text = re.sub(rf" on {host}(?!\w)", " on this machine", text)
    for path, sign in ((Path.cwd(), "."), (Path.home(), "~")):
        if path != Path(path.anchor):
            text = re.sub(rf"{re.escape(str(path))}(?=[/\s.,:;'\")]|$)", sign, text)
    return text


def instruction_set() -> str:
    """Return what decides the arithmetic of a processor: equal bytes are promised on equal ones only."""
    try:
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
    except OSError:
        flags = None
    kinds = sorted(flag for flag in (flags[1].split() if flags else []) if re.match(r"(avx|amx|fma|sse4)", flag))
    return " ".join([platform.machine(), *kinds])
