"""Lies beside the installed packages, and has tasks/safe_dvc.py change DVC when a `dvc` command starts."""

import importlib.util
from pathlib import Path


def start() -> None:
    """Run the file; not as a module of `tasks`, a name that the project in which DVC is started may have as well."""
    package = importlib.util.find_spec("tasks")
    path = Path(package.origin if package and package.origin else "").with_name("safe_dvc.py")
    if path.exists() and (spec := importlib.util.spec_from_file_location("regraft_safe_dvc", path)) and spec.loader:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.make_safe()
