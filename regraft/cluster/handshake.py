"""What decides the values that a worker computes, and in what two of them differ.

A worker says it of itself, in plain strings: it may have other sources, which know no class of these.
"""

import platform

from regraft.core.errors import some
from regraft.core.processor import instruction_set
from regraft.core.provenance import LIBRARIES, provenance_of, take_snapshot

Facts = dict[str, dict[str, str]]  # kind -> name -> version or digest

# Import names of the libraries that a worker computes with; those that convert or train decide nothing there.
_COMPUTING = ("PIL", "pi_heif", "numpy", "imagehash", "onnx", "onnxruntime")
_KINDS = {"sources": "sources that differ", "libraries": "libraries", "processor": "processor"}


def facts_of(*modules: str) -> Facts:
    """Return the sources, libraries and instructions of the processor that decide what modules compute here."""
    snapshot = take_snapshot()
    libraries = {library for name in _COMPUTING for library in LIBRARIES[name]}
    return {
        "sources": provenance_of(*modules, snapshot=snapshot).code,
        "libraries": {name: snapshot.versions[name] for name in sorted(libraries)},
        "processor": {"architecture": platform.machine(), "instructions": instruction_set(integers=True)},
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
