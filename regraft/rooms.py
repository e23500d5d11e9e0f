"""The door of a room: what its `__init__.pyi` lists is loaded from its module when it is first asked for.

As `lazy_loader.attach_stub`, by the standard library alone: whoever serves a model installs what it needs and no more.
"""

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

Door = tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]


def open_door(room: str, init: str) -> Door:
    """Return `__getattr__`, `__dir__` and `__all__` of a room.

    Args:
        room: its `__name__`.
        init: its `__file__`; beside it lies a stub of lines such as `from .images import load_rgb as load_rgb`.
    """
    stub = ast.parse(Path(init).with_name("__init__.pyi").read_text(encoding="utf-8"))
    homes = {
        alias.name: f"{room}.{node.module}"
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return load, lambda: sorted(homes), sorted(homes)
