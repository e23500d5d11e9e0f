"""DVC's own files, as Regraft reads them: what dvc.lock says of each stage, the data's version, settings and cache.

dvc.lock and *.dvc may come from a pushed branch, so nothing in them leads out of the cache or out of the project.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from regraft.core.config import Params
from regraft.core.errors import InvalidData, MissingPhotos, RegraftError, printable
from tasks.code_record import RECORD

MD5 = re.compile(r"\w{1,64}(\.dir)?")  # nothing that leads to another folder
# By these DVC finds files that are not in its cache: of other stores, and of versions there. No stage here has any.
_NOT_OURS = {"etag", "checksum", "version_id", "cloud", "dataset"}


def read_locked(root: Path = Path()) -> dict[str, Any]:
    """Return the stages of dvc.lock by name; none where it is missing or damaged.

    Each has `reads` and `writes`, by path with `md5`, `size` in bytes and, of a folder, `files`. By name it has
    `settings`, `code` (digests) and `libraries` (versions).
    """
    try:
        return {name: _stage(facts) for name, facts in _part(root / "dvc.lock", "stages", {}).items()}
    except (AttributeError, KeyError, TypeError):  # YAML, and no dvc.lock
        return {}


def read_stages(root: Path = Path()) -> list[str]:
    """Return the names of the stages that dvc.yaml has, in its order; RegraftError if it is damaged, or has none."""
    if stages := list(_part(root / "dvc.yaml", "stages", {})):
        return stages
    raise RegraftError(
        "dvc.yaml cannot be read, or has no stage. Remove the marks of a conflict from it, or bring back git's version "
        "of it; `dvc stage list` says what is wrong."
    )


def data_version(params: Params, locked: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """Return `path`, `md5`, `size` in bytes and `files` of the data as DVC recorded it; None if it has not."""
    raw = params.paths.raw
    outs = _part(raw.with_name(f"{raw.name}.dvc"), "outs", [])
    if outs and isinstance(outs[0], dict):
        return {"path": raw.as_posix(), **_file(outs[0])}
    locked = read_locked() if locked is None else locked
    read = locked.get("validate_data", {}).get("reads", {}).get(raw.as_posix())
    return {"path": raw.as_posix(), **read} if read else None


@contextmanager
def saying_what_to_pull(raw: Path) -> Iterator[None]:
    """Where photos are missing that DVC has a record of, as in a fresh clone, say how DVC brings them."""
    try:
        yield
    except MissingPhotos as error:
        is_recorded = raw.with_name(f"{raw.name}.dvc").is_file()
        if not is_recorded and raw.as_posix() not in read_locked().get("validate_data", {}).get("reads", {}):
            raise
        raise InvalidData(f"{error} If this is a clone that has not pulled them yet: `dvc pull {raw}`.") from None


def check_whole(path: Path, key: str = "stages") -> None:
    """Raise RegraftError if a file of DVC's is damaged, has git's marks of a conflict, or leads outside.

    Args:
        path: of dvc.lock or a .dvc file; one that is not there is whole.
        key: what DVC writes into it.
    """
    if not (path.exists() or path.is_symlink()):
        return
    if not path.is_file():
        raise RegraftError(f"{path} must be a file that DVC wrote. Move away what is there, and run again.")
    contents = _parsed(path)
    outside = _outside(contents)
    # The start of a file may be YAML as well, but a whole one ends with a line break.
    if outside or not contents.get(key) or not path.read_bytes().endswith(b"\n"):
        found = f"a path that leads outside, {printable(outside[0])}" if outside else "a part of it, or something else"
        raise RegraftError(
            f"{path} is damaged: expected what DVC writes, found {found}. `git checkout {path}` brings back the one "
            f"that was committed last. If it was never committed, or git left a conflict in it, remove it and run "
            f"`regraft retrain`: what is known is not computed again."
        )


def dvc_config(root: Path = Path()) -> Any:
    """Return DVC's settings; RegraftError if it cannot read them."""
    from dvc.config import Config, ConfigError

    try:
        return Config(str(root / ".dvc"))
    except ConfigError as error:
        raise RegraftError(f"DVC cannot read its settings: {error}. Put that right, and run again.") from None


def cache_of(root: Path) -> Path:
    """Return where DVC keeps versions of files."""
    return Path(root, ".dvc", dvc_config(root)["cache"].get("dir") or "cache").resolve()


def photos_of(root: Path, md5: str) -> dict[str, str] | None:
    """Return the MD5 of every file of a data version by its name in the folder; None where the list is not there."""
    try:
        if not MD5.fullmatch(md5):  # what receipts and lists from elsewhere say becomes a path
            return None
        entries = json.loads(_object(cache_of(root), md5).read_text(encoding="utf-8"))
        photos = {str(entry["relpath"]): str(entry["md5"]) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return photos if all(map(MD5.fullmatch, photos.values())) else None


def missing_photos(root: Path, md5: str) -> list[str]:
    """Return the names of a data version's files that DVC's cache lacks; one empty name where it lacks the list."""
    cache = cache_of(root)
    if MD5.fullmatch(md5) and not md5.endswith(".dir"):  # a table of photos is a file
        return [] if _object(cache, md5).is_file() else [""]
    photos = photos_of(root, md5)
    return [""] if photos is None else sorted(name for name in photos if not _object(cache, photos[name]).is_file())


def file_in_cache(root: Path, md5: str) -> Path:
    """Return where DVC's cache has a version of a file, if it has it."""
    return _object(cache_of(root), md5)


def _object(cache: Path, md5: str) -> Path:
    return cache / "files" / "md5" / md5[:2] / md5[2:]


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


def _part(path: Path, key: str, otherwise: Any) -> Any:
    """Return a part of a YAML file of DVC's, or else what is given: a damaged one tells nothing, and DVC says why."""
    found = _parsed(path).get(key)
    return found if isinstance(found, type(otherwise)) else otherwise


def _parsed(path: Path) -> dict[str, Any]:
    try:
        contents = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (OSError, YAMLError, ValueError, RecursionError):  # ValueError: a number or a date that is none
        return {}
    return contents if isinstance(contents, dict) else {}


def _outside(value: Any) -> list[str]:
    """Return what DVC would read outside of its cache, by what stands for an MD5, or write outside of the project.

    DVC finds a file in its cache by the field that `hash` names, whatever that is. Here it is always an MD5.
    """
    if isinstance(value, list):
        return [found for each in value for found in _outside(each)]
    if not isinstance(value, dict):
        return []
    own = [str(value["md5"])] if not MD5.fullmatch(str(value.get("md5", "0" * 32))) else []
    own += [f"hash: {value['hash']}"] if value.get("hash", "md5") not in ("md5", "md5-dos2unix") else []
    own += [f"{name}: {value[name]}" for name in _NOT_OURS & value.keys()]
    for path in (Path(str(value.get(name, ""))) for name in ("relpath", "path")):
        own += [str(path)] if path.is_absolute() or ".." in path.parts else []
    return own + [found for name, each in value.items() if name != "params" for found in _outside(each)]
