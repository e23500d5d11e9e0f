"""What dvc.lock says, as receipts keep it: of each stage what it read, what it wrote, its settings and its code."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from regraft.core.config import Params
from regraft.core.errors import RegraftError
from tasks.code_record import RECORD


def read_locked() -> dict[str, Any]:
    """Return the stages of dvc.lock in the current folder, by name; none where it is missing or damaged.

    Each has `reads` and `writes`, by path with `md5`, `size` in bytes and, of a folder, `files`. By name it has
    `settings`, `code` (digests) and `libraries` (versions).
    """
    try:
        return {name: _stage(facts) for name, facts in _read(Path("dvc.lock"), "stages", {}).items()}
    except (AttributeError, KeyError, TypeError):  # YAML, and no dvc.lock
        return {}


def read_stages() -> set[str]:
    """Return the names of the stages that dvc.yaml has; RegraftError if it is missing or damaged, or has none."""
    if stages := set(_read(Path("dvc.yaml"), "stages", {})):
        return stages
    raise RegraftError(
        "dvc.yaml cannot be read, or has no stage. Remove the marks of a conflict from it, or bring back git's version "
        "of it; `dvc stage list` says what is wrong."
    )


def data_version(params: Params, locked: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """Return `path`, `md5`, `size` in bytes and `files` of the data as DVC recorded it; None if it has not."""
    raw = params.paths.raw
    outs = _read(raw.with_name(f"{raw.name}.dvc"), "outs", [])
    if outs and isinstance(outs[0], dict):
        return {"path": raw.as_posix(), **_file(outs[0])}
    locked = read_locked() if locked is None else locked
    read = locked.get("validate_data", {}).get("reads", {}).get(raw.as_posix())
    return {"path": raw.as_posix(), **read} if read else None


def _stage(facts: dict[str, Any]) -> dict[str, Any]:
    params = facts.get("params", {})
    decides = [each or {} for each in params.get(RECORD.as_posix(), {}).values()]
    return {
        "reads": {dep["path"]: _file(dep) for dep in facts.get("deps", [])},
        "writes": {out["path"]: _file(out) for out in facts.get("outs", [])},
        "settings": params.get("params.yaml", {}),
        "code": {module: digest for each in decides for module, digest in each.get("code", {}).items()},
        "libraries": {name: version for each in decides for name, version in each.get("libraries", {}).items()},
    }


def _file(entry: dict[str, Any]) -> dict[str, Any]:
    files = {"files": entry["nfiles"]} if "nfiles" in entry else {}
    return {"md5": entry.get("md5"), "size": entry.get("size"), **files}


def _read(path: Path, key: str, otherwise: Any) -> Any:
    """Return a part of a YAML file of DVC's, or else what is given: a damaged one tells nothing, and DVC says why."""
    try:
        found = YAML(typ="safe").load(path.read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, YAMLError, KeyError, TypeError):
        return otherwise
    return found if isinstance(found, type(otherwise)) else otherwise
