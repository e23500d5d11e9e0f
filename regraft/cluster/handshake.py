"""What decides the values that a worker computes, and in what two of them differ.

A worker says it of itself, in plain strings: it may have other sources, which know no class of these.
"""

import platform
from pathlib import Path

from regraft.errors import some
from regraft.provenance import LIBRARIES, provenance_of, take_snapshot

Facts = dict[str, dict[str, str]]  # kind -> name -> version or digest

# Import names of the libraries that a worker computes with; those that convert or train decide nothing there.
_COMPUTING = ("PIL", "pi_heif", "numpy", "onnx", "onnxruntime")
# By these instructions ONNX Runtime and NumPy choose their kernels, as Linux names them.
_INSTRUCTIONS = {
    *("sse4_1", "avx", "avx2", "fma", "f16c", "avx_vnni"),
    *("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
}
_KINDS = {"sources": "sources that differ", "libraries": "libraries", "processor": "processor"}


def facts_of(module: str) -> Facts:
    """Return the sources, libraries and instructions of the processor that decide what a module computes here."""
    snapshot = take_snapshot()
    libraries = {library for name in _COMPUTING for library in LIBRARIES[name]}
    return {
        "sources": provenance_of(module, snapshot=snapshot).code,
        "libraries": {name: snapshot.versions[name] for name in sorted(libraries)},
        "processor": {"architecture": platform.machine(), "instructions": " ".join(sorted(_instructions()))},
    }


def differences(expected: Facts, received: Facts) -> str:
    """Say in what a worker differs from what is expected; empty where it does not."""
    found = []
    for kind, words in _KINDS.items():
        ours, theirs = expected[kind], received.get(kind, {})
        names = [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
        if kind == "sources":
            texts = names
        else:
            texts = [f"{name}: expected {ours.get(name)}, received {theirs.get(name)}" for name in names]
        if texts:
            found.append(f"{words}: {some(texts)}")
    return ". ".join(found)


def _instructions() -> set[str]:
    """Return the instructions of this processor that decide which kernels run; none where the system has no list."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return set()
    flags = next((line for line in lines if line.partition(":")[0].strip() in ("flags", "Features")), "")
    return _INSTRUCTIONS & set(flags.partition(":")[2].split())
