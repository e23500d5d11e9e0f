"""What of the processor decides the last bits of a result: the widest instructions that ONNX Runtime's kernels use.

MLAS, its arithmetic, asks the processor and takes the kernels for it (onnxruntime/core/mlas/lib/platform.cpp). Those of
another width may add in another order. So features of two such machines differ in their last bits, and must not be
taken for each other.
"""

import platform
import re
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
    """Return what the first processor can do, in Linux' words; nothing where there is no such file."""
    try:
        text = _CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.M)
    return set(found[1].split()) if found else set()
