"""What of the processor decides the last bits of a result: the widest instructions that ONNX Runtime's kernels use.

MLAS, its arithmetic, asks the processor and takes the kernels for it (onnxruntime/core/mlas/lib/platform.cpp). Those of
another width may add in another order. So features of two such machines differ in their last bits, and must not be
taken for each other.
"""

import os
import platform
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
# What floating-point kernels there are, the best first, and the flags that each needs.
_FLOAT = (("AVX-512", {"avx512f"}), ("AVX2", {"avx2", "fma"}), ("AVX", {"avx"}), ("SVE", {"sve"}), ("NEON", {"asimd"}))
# What kernels for 8-bit integers use beside.
_INTEGER = (
    ("AMX", {"amx_int8", "amx_tile"}),
    ("VNNI", {"avx512_vnni"}),
    ("VNNI", {"avx_vnni"}),
    ("I8MM", {"i8mm"}),
    ("DOT", {"asimddp"}),
)


# Instructions that multiply 8-bit numbers and add up in 32 bits, as Linux calls them. Without any of them int8 graphs
# gain less.
_INT8 = {"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"}


@dataclass(frozen=True, slots=True)
class Processor:
    """The processor that figures of speed were measured on."""

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


def this_processor() -> Processor:
    """Return what this machine says of its processor."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    cores, text, flags = len(allowed) or os.cpu_count() or 1, _cpu_info(), _flags()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    name = found[1].strip() if found else platform.processor() or platform.machine()
    return Processor(name, cores, sorted(_INT8 & flags) if text else None)


@cache
def instruction_set(*, integers: bool) -> str:
    """Return the instructions that decide results here, for instance `AVX-512 VNNI`.

    Args:
        integers: whether 8-bit integers are multiplied too, as in int8 graphs.
    """
    flags = _flags()
    names = [next((name for name, needed in _FLOAT if needed <= flags), platform.machine() or "unknown")]
    if integers:
        names += [name for name, needed in _INTEGER if needed <= flags][:1]
    return " ".join(names)


def _flags() -> set[str]:
    """Return what the first processor can do, in Linux' words; nothing where that is not known."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", _cpu_info(), re.M)
    return set(found[1].split()) if found else set()


def _cpu_info() -> str:
    try:
        return _CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
