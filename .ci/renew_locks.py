"""Renew the lock files: what pip installs, every version, every file by its SHA-256. `make renew-locks` calls this.

    python .ci/renew_locks.py                what pyproject.toml asks for now; other versions stay
    python .ci/renew_locks.py --upgrade      the newest versions that pyproject.toml allows

requirements.lock is what `make setup` installs, for each Python and platform. locks/ has what an extra adds to that
(dev: what `make test` installs), and what builds packages that come as source only.
"""

import os
import re
import ssl
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
BY_DEFAULT = ("demo", "s3", "cluster")
BUILD = "build"  # no extra


def main() -> None:
    """Write every lock file."""
    options = sys.argv[1:]
    if set(options) - {"--upgrade"}:
        sys.exit(f"expected nothing or --upgrade. Received: {' '.join(options)}.\n{__doc__}")
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = [argument for extra in BY_DEFAULT for argument in ("--extra", extra)]
    # Without --upgrade uv prefers the versions that are in the file already.
    _compile("pyproject.toml", *extras, *options, "--output-file", str(LOCK))
    LOCK.write_text(every_spelling(LOCK.read_text()))
    default = entries(LOCK.read_text())
    added = pyproject["project"]["optional-dependencies"] | {BUILD: pyproject["build-system"]["requires"]}
    for name in sorted(set(added) - set(BY_DEFAULT)):
        path = ROOT / "locks" / f"{name}.lock"
        output = ["--output-file", str(path)]
        _compile("-", "--constraint", str(LOCK), *options, *output, asked="\n".join(added[name]))
        found = entries(every_spelling(path.read_text()))
        path.write_text("".join(entry for key, entry in found.items() if name == BUILD or key not in default))


def entries(text: str) -> dict[str, str]:
    """Return the entries of a lock file, with their hashes, by name and version."""
    return {entry.split()[0]: entry for entry in re.findall(r"^\S.*\n(?: .*\n)*", text, re.M)}


def every_spelling(text: str) -> str:
    """Return a lock file with each package that has extras pinned under every name that others ask for it by.

    To pip 23 `name`, `name[a]` and `name[a,b]` are three packages, and whichever is not pinned is refused.
    """
    spelt = []
    for entry in entries(text).values():
        name, extras, rest = re.fullmatch(r"([^\[=]+)(?:\[(.+?)\])?(==.*)", entry, re.S).groups()  # type: ignore[union-attr]
        extras = (extras or "").replace(" ", "")
        both = [extras] if "," in extras else []
        spelt += [f"{name}[{some}]{rest}" if some else f"{name}{rest}" for some in ["", *extras.split(","), *both]]
    return "".join(dict.fromkeys(spelt))


def _compile(source: str, *options: str, asked: str | None = None) -> None:
    """Resolve requirements: one file for all platforms, with hashes and without an index's address."""
    command = [sys.executable, "-m", "uv", "pip", "compile", source, "--universal", "--python-version", "3.11"]
    command += [
        "--no-strip-extras",
        "--generate-hashes",
        "--no-annotate",
        "--no-header",
        "--no-emit-index-url",
        "--quiet",
        *options,
    ]
    certificates = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    environment = {**os.environ, **({"SSL_CERT_FILE": certificates} if certificates else {})}
    subprocess.run(command, cwd=ROOT, input=asked, env=environment, check=True, stdout=subprocess.DEVNULL, text=True)


if __name__ == "__main__":
    main()
