"""The processor of this machine: what figures of speed were measured on."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

# Instructions that multiply 8-bit numbers and add up in 32 bits, as Linux calls them. Without any of them int8 graphs
# gain less, and sums of 8-bit weights may overflow.
_INT8 = {"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"}


@dataclass(frozen=True, slots=True)
class Processor:
    """What is known of it."""

    name: str
    cores: int  # that this process may use
    int8: list[str] | None  # instructions for int8; None where the system does not say

    def __str__(self) -> str:
        """Return it in one line."""
        if self.int8 is None:
            instructions = "instructions for int8 not known"
        else:
            instructions = f"int8 by {', '.join(self.int8)}" if self.int8 else "no instructions for int8 (VNNI)"
        return f"{self.name}, {self.cores} core{'s' if self.cores > 1 else ''}, {instructions}"


def this_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Processor:
    """Return what this machine says of its processor; on Linux `cpuinfo` says more than Python."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    cores = len(allowed) or os.cpu_count() or 1
    name = platform.processor() or platform.machine()
    if not cpuinfo.exists():
        return Processor(name, cores, None)
    facts = [line.partition(":") for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()]
    said = {key.strip().lower(): value.strip() for key, _, value in facts}
    words = set(said.get("flags", said.get("features", "")).split())
    return Processor(said.get("model name", name), cores, sorted(_INT8 & words))
