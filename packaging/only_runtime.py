"""Removes from this environment what Regraft does not need at run time: for an image, not for a developer's machine.

python packaging/only_runtime.py EXTRA...     keeps what Regraft and these of its extras need, and pip
"""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_KEPT = ("pip",)


def needed(root: str, extras: tuple[str, ...]) -> set[str]:
    """Return the names of all installed packages that one of them needs, itself included."""
    found: set[tuple[str, str]] = set()
    waiting = [(root, extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in found:
            continue
        try:
            requires = distribution(name).requires or []
        except PackageNotFoundError:
            continue  # for another Python or platform
        found.add((name, extra))
        for requirement in map(Requirement, requires):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                other = canonicalize_name(requirement.name)
                waiting += [(other, each) for each in ("", *requirement.extras)]
    return {name for name, _ in found}


if __name__ == "__main__":
    installed = {canonicalize_name(each.metadata["Name"]) for each in distributions()}
    surplus = sorted(installed - needed("regraft", tuple(sys.argv[1:])) - set(_KEPT))
    subprocess.run([sys.executable, "-m", "pip", "uninstall", "--yes", "--quiet", *surplus], check=True)
    print(f"Removed {len(surplus)} of {len(installed)} packages.")
