"""Provenance: which sources and which versions of libraries decide a result.

Checkpoints, graphs, the scan and DVC all ask here. What decides is the module's own code, every module of the project
that it imports, at once or later, and the versions of some libraries.

Code counts as its syntax tree: comments, docstrings and layout change nothing. The digest of a tree is the same on
every Python that Regraft runs on, so results are shared between them.
"""

import ast
import hashlib
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import TypeGuard

from regraft.core.files import fingerprint

ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("regraft", "tasks")
# It decides when something is computed again and never what, so it is no part of any result.
_NEVER = "regraft.core.provenance"

# Libraries that Pillow decodes with, and may take from outside: their names -> what Pillow calls them.
_DECODERS = {
    "libjpeg": "jpg",
    "libjpeg_turbo": "libjpeg_turbo",
    "openjpeg": "jpg_2000",
    "zlib": "zlib",
    "libtiff": "libtiff",
    "libwebp": "webp",
    "libavif": "avif",
}
# Import name -> libraries whose version decides bytes of results. tests/test_contract.py says why others decide none.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "tensorflow": ("tensorflow",),  # the arithmetic of training, on which every weight depends
    "keras": ("keras", "tensorflow", "h5py"),  # layers and optimizers, run by TensorFlow; h5py writes the .keras files
    "tf2onnx": ("tf2onnx", "onnx"),  # which ONNX nodes a Keras layer becomes
    "onnx": ("onnx",),  # how graphs are built, checked and cut; protobuf writes them the same in every version
    "onnxruntime": ("onnxruntime",),  # the arithmetic of features, probabilities and the int8 graph
    "numpy": ("numpy",),  # the arithmetic of heads, and random numbers
    "scipy": ("scipy",),  # the transforms, distances and solvers behind hashes, leaks and statistics
    "sklearn": ("scikit-learn", "scipy"),  # classifiers and metrics, with SciPy's solvers
    "PIL": ("pillow", *_DECODERS),  # decoding, resizing, colours
    "pi_heif": ("pi-heif",),  # decoding of HEIC, with the libheif and libde265 inside
    "imagehash": ("imagehash", "scipy", "pillow"),  # perceptual hashes, by which photos are near duplicates or not
    "pandas": ("pandas",),  # writes CSV, and its version into every Parquet file
    "pyarrow": ("pyarrow",),  # another one writes other bytes to Parquet and Arrow files
    "great_expectations": ("great-expectations",),  # which photos break an expectation
    "matplotlib": ("matplotlib", "pillow"),  # pictures only
    "jinja2": ("jinja2",),  # pages only
    "markupsafe": ("markupsafe",),  # pages only
}
_ALSO_CALLED = {"tensorflow": ("tensorflow", "tensorflow-cpu")}  # one of the two is installed


@dataclass(frozen=True, slots=True)
class Provenance:
    """What decides a result."""

    code: dict[str, str]  # name of a module -> digest of its syntax tree, 16 hexadecimal digits
    libraries: dict[str, str]  # name of a library -> its version

    @property
    def digest(self) -> str:
        """SHA-256 of everything in it, as 64 hexadecimal digits."""
        return fingerprint([self.code, self.libraries])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The project's sources and the installed libraries at one moment."""

    modules: dict[str, bytes]  # name -> text; a package stands for its `__init__`
    packages: frozenset[str]
    versions: dict[str, str]  # of every library in `LIBRARIES`


@dataclass(frozen=True, slots=True)
class _Module:
    digest: str
    imports: tuple[tuple[int, str, tuple[str, ...]], ...]  # level (dots), module, and names that are taken from it


def take_snapshot(root: Path = ROOT) -> Snapshot:
    """Return the sources below a project's root, and the libraries, as they are now."""
    modules, packages = {}, set()
    for folder in _PACKAGES:
        for path in (root / folder).rglob("[!.]*.py"):  # none of the hidden files that editors leave for a while
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            modules[name] = path.read_bytes()
            if parts[-1] == "__init__":
                packages.add(name)
                # The templates of a package decide what its modules write, so they count as a part of it.
                texts = [template.read_bytes() for template in sorted(path.parent.glob("templates/[!.]*"))]
                modules[name] += f"\ntemplates = {texts}".encode() if texts else b""
    return Snapshot(modules, frozenset(packages), installed_versions())


def installed_versions() -> dict[str, str]:
    """Return the version of every library in `LIBRARIES`, `none` where it is not installed."""
    libraries = {library for brought in LIBRARIES.values() for library in brought if library not in _DECODERS}
    return {name: _version(name) for name in sorted(libraries)} | _decoder_versions()


def provenance_of(*modules: str, snapshot: Snapshot | None = None, without: Collection[str] = ()) -> Provenance:
    """Return what decides the results of modules.

    Args:
        modules: names, for instance `regraft.photos.scan`.
        snapshot: from `take_snapshot`; None takes one of this project now.
        without: names of modules that decide no byte; what only they import decides nothing either.

    Raises:
        ValueError: there is no module of this name.
    """
    snapshot = snapshot or take_snapshot()
    if missing := [name for name in modules if name not in snapshot.modules]:
        raise ValueError(f"expected modules of the project. Received: {', '.join(missing)}.")
    code: dict[str, str] = {}
    libraries: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in code or name in without or name == _NEVER:
            continue
        module = _parsed(snapshot.modules[name])
        code[name] = module.digest
        waiting += _with_parents([name], snapshot)
        for level, target, names in module.imports:
            target = _absolute(level, target, name, snapshot)
            libraries.update(LIBRARIES.get(target.split(".")[0], ()))
            waiting += _with_parents(_followed(target, names, snapshot), snapshot)
    return Provenance(dict(sorted(code.items())), {name: snapshot.versions[name] for name in sorted(libraries)})


def _version(library: str) -> str:
    for distribution in _ALSO_CALLED.get(library, (library,)):
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(distribution)
    return "none"


@cache
def _decoder_versions() -> dict[str, str]:
    try:
        from PIL import features
    except ImportError:
        return dict.fromkeys(_DECODERS, "none")
    return {name: features.version(called) or "none" for name, called in _DECODERS.items()}


def _with_parents(names: Iterable[str], snapshot: Snapshot) -> list[str]:
    """Return modules with the packages around them: importing a.b.c runs a/__init__.py and a/b/__init__.py too."""
    every = {name.rsplit(".", up)[0] for name in names for up in range(name.count(".") + 1)}
    return [name for name in every if name in snapshot.modules]


def _absolute(level: int, target: str, importer: str, snapshot: Snapshot) -> str:
    """Return the name that an import means in the module `importer`: `level` is its number of leading dots."""
    if not level:
        return target
    parts = importer.split(".")
    up = level - 1 if importer in snapshot.packages else level
    return ".".join([*parts[: len(parts) - up], *([target] if target else [])])


def _followed(target: str, names: tuple[str, ...], snapshot: Snapshot) -> list[str]:
    """Return the modules that an import runs: `import target`, or `from target import names`."""
    inside = [f"{target}.{name}" for name in names if f"{target}.{name}" in snapshot.modules]
    return inside if names and len(inside) == len(names) else [target, *inside]


@lru_cache(maxsize=1000)
def _parsed(text: bytes) -> _Module:
    parts: list[str] = []
    imports: list[tuple[int, str, tuple[str, ...]]] = []
    try:
        _describe(ast.parse(text), parts, imports)
    except (SyntaxError, ValueError):  # somebody is editing it; Python says so when it is imported
        parts = [text.hex()]
    return _Module(hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16], tuple(imports))


def _describe(node: ast.AST, parts: list[str], imports: list[tuple[int, str, tuple[str, ...]]]) -> None:
    """Append what a node is to `parts`, and what it imports to `imports`.

    By hand, because `ast.dump` and `ast.unparse` give other text in another Python. Empty fields are left out: a newer
    Python has more of them.
    """
    parts.append(type(node).__name__)
    imports += _imports(node)
    for field in node._fields:
        value = getattr(node, field, None)
        if value is None or value == [] or field == "ctx":
            continue
        parts.append(field)
        for item in value if isinstance(value, list) else (value,):
            if not isinstance(item, ast.AST):
                parts.append(f"{type(item).__name__} {item!a}")
            elif _is_type_checking(item):
                for statement in item.orelse:
                    _describe(statement, parts, imports)
            elif not _is_empty(item, node):
                _describe(item, parts, imports)
    parts.append("end")


def _imports(node: ast.AST) -> list[tuple[int, str, tuple[str, ...]]]:
    match node:
        case ast.Import():
            return [(0, alias.name, ()) for alias in node.names]
        case ast.ImportFrom():
            return [(node.level, node.module or "", tuple(alias.name for alias in node.names))]
        case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(name)), *_]):
            return [(0, name, ())]
    return []


def _is_empty(node: ast.AST, parent: ast.AST) -> bool:
    """Whether a node is a docstring, or the nothing that Python 3.12 puts at the end of some format specifications."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return isinstance(parent, ast.JoinedStr) and isinstance(node, ast.Constant) and node.value == ""


def _is_type_checking(node: ast.AST) -> TypeGuard[ast.If]:
    """Whether a statement is for type checkers only and never runs."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
