"""Files of frozen graphs: each lies beside a seal, here and where machines share them.

<backbone>-<what decides its bytes>.onnx    the graph
<the same>.json                             its SHA-256, how closely it follows Keras, and a seal of both
<backbone>-<the same without libraries>.json    in the shared place only: which graph a machine takes that has not
                                            the libraries to convert one, and so cannot know what decides its bytes
"""

import hashlib
import importlib.util
import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import onnx

from regraft.backbones.agreement import Agreement
from regraft.files import DAMAGE, fingerprint, write_bytes, writing

Build = Callable[[], tuple[onnx.ModelProto, Agreement | None]]
_GRAPH = re.compile(r"[\w.-]+-[0-9a-f]{16}\.onnx")


class SharedFiles(Protocol):
    """Small files by name, in a place that machines share: `regraft.store.remote.Remote`."""

    def read(self, name: str) -> bytes | None: ...
    def write(self, name: str, contents: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class StoredGraphs:
    """The graphs in a folder, and in the shared place."""

    folder: Path
    shared: SharedFiles | None

    def get(self, name: str, build: Build, *, alias: str = "") -> tuple[bytes, Agreement | None]:
        """Return a graph and its agreement, and make sure that they are here; all that follows uses these bytes.

        Args:
            name: of the file.
            build: makes what is nowhere.
            alias: the name without ending under which a machine that cannot build it looks for it; "" for none.
        """
        path = self.folder / name
        text, contents = read_file(path.with_suffix(".json")), read_file(path)
        found = _sound(contents, text)
        if found is None and self.shared is not None:
            text, contents = self._shared(path.with_suffix(".json").name), self._shared(name)
            found = _sound(contents, text)
            if found:
                self._keep(path, *found)
        if found is None:
            graph, agreement = build()
            found = graph.SerializeToString(deterministic=True), agreement
            self._keep(path, *found)
        if self.shared is not None:
            self._share(path, *found, alias)
        return found

    def named_by(self, alias: str) -> str | None:
        """Return the name of the graph that another machine converted, or None."""
        contents = self._shared(f"{alias}.json")
        with suppress(*DAMAGE):
            name = json.loads(contents or b"")["graph"]
            return name if _GRAPH.fullmatch(name) else None
        return None

    def _keep(self, path: Path, contents: bytes, agreement: Agreement | None) -> None:
        with writing(path.parent, len(contents)):
            write_bytes(path, contents)
            write_bytes(path.with_suffix(".json"), _sealed(contents, agreement))  # last: without it a graph is none

    def _share(self, path: Path, contents: bytes, agreement: Agreement | None, alias: str) -> None:
        seal, sealed = path.with_suffix(".json").name, _sealed(contents, agreement)
        if self.shared is not None and self._shared(seal) != sealed:
            self.shared.write(f"graphs/{path.name}", contents)
            self.shared.write(f"graphs/{seal}", sealed)
            if alias and can_convert():
                self.shared.write(f"graphs/{alias}.json", json.dumps({"graph": path.name}).encode())

    def _shared(self, name: str) -> bytes | None:
        return self.shared.read(f"graphs/{name}") if self.shared is not None else None


def can_convert() -> bool:
    """Whether the libraries are installed that convert a graph from Keras."""
    return all(importlib.util.find_spec(name) for name in ("tensorflow", "keras", "tf2onnx"))


def read_file(path: Path) -> bytes | None:
    """Return a file's bytes, or None if there is no such file or one may not read it."""
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError:
        return None


def _sound(contents: bytes | None, text: bytes | None) -> tuple[bytes, Agreement | None] | None:
    """Return a graph and its agreement if they are those that were sealed."""
    if contents is not None and text is not None:
        with suppress(*DAMAGE):
            found = json.loads(text)["agreement"]
            agreement = found and Agreement(**found)
            if text == _sealed(contents, agreement):
                return contents, agreement
    return None


def _sealed(contents: bytes, agreement: Agreement | None) -> bytes:
    facts = {"sha256": hashlib.sha256(contents).hexdigest(), "agreement": agreement and asdict(agreement)}
    return json.dumps({**facts, "seal": fingerprint(facts)}).encode()
