"""The names that Regraft gives to files and folders of a store: what has another name is somebody else's and stays.

A store may lie in a bucket beside other things, or somebody may name a home directory as its folder.
"""

import re
from dataclasses import dataclass

SENT = ".sent.arrow"  # how the names of shards end that lie in the shared root too
KEPT = ".kept.arrow"  # of shards with copies of rows that lie there: a cache
KEYS = ".keys"  # of files with everything but the values of a shard that lies only there
_SHARD = r"[0-9a-f]{16}-[0-9]{1,15}-[0-9]{1,15}-[0-9a-f]{16}"
_NAMESPACE = re.compile(r"[a-z_]{1,40}-[0-9a-f]{16}")
_SHARD_FILE = re.compile(rf"({_SHARD})(\.sent|\.kept)?\.arrow")
_KEYS = re.compile(rf"{_SHARD}\.keys")
_DAMAGED = re.compile(rf"{_SHARD}\.damaged")
_LEASE = re.compile(r"[\w.-]{1,255}-[0-9]{1,10}-[0-9a-f]{8}\.json")
_USE = re.compile(r"([0-9a-f]{32})(?:-([0-9a-f]{16})-([0-9a-f]{16}))?\.arrow")
_OWNER = re.compile(r"([0-9a-f]{16})\.owner")
_GRAPH = re.compile(r"[\w.-]+-[0-9a-f]{16}(\.int8)?\.(onnx|json|sha256)")  # sha256: of former versions
_FACTS_FOLDER = re.compile(r"facts/[0-9a-f]{16}")
_FACTS = re.compile(r"[0-9a-f]{32}\.(contents|versions)\.parquet")
# What `regraft.core.files.replacing` and `write_shard` leave when they are killed, and what `Remote` does.
# Without random digits: by former versions.
_TEMPORARY = re.compile(r"\.(?P<stem>.+)\.(?P<pid>[0-9]{1,10})(-[0-9a-f]{16})?\.tmp(?P<suffix>\.[a-z0-9]+)")
_SENT_HALF = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.tmp")
_RANDOM = re.compile(r"[0-9a-f]{16}\.arrow")  # a shard's name while it is written
DESCRIPTION = "namespace.json"
FACTS_USED = "used"  # an empty file beside facts, as old as their last use


@dataclass(frozen=True, slots=True)
class UseName:
    """What the name of a use record says."""

    name: str
    version: str  # MD5 of the features file
    owner: str | None  # None and no seal: written before records had owners
    seal: str | None


def is_namespace(folder: str) -> bool:
    """Whether a folder can be a namespace; its description has to fit as well."""
    return _NAMESPACE.fullmatch(folder) is not None


def is_shard(file: str) -> bool:
    """Whether a file of a namespace is a shard."""
    return _SHARD_FILE.fullmatch(file) is not None


def is_keys(file: str) -> bool:
    """Whether a file of a namespace holds everything but the values of a shard."""
    return _KEYS.fullmatch(file) is not None


def is_facts_folder(folder: str) -> bool:
    """Whether a folder, relative to the root, can hold what a decoder said of photos."""
    return _FACTS_FOLDER.fullmatch(folder) is not None


def is_facts(file: str) -> bool:
    """Whether a file of such a folder has facts."""
    return _FACTS.fullmatch(file) is not None


def is_lease(file: str) -> bool:
    """Whether a file in leases/ is one."""
    return _LEASE.fullmatch(file) is not None


def is_owner(file: str) -> bool:
    """Whether a file in uses/ says when a machine last used the store."""
    return _OWNER.fullmatch(file) is not None


def use_name(file: str) -> UseName | None:
    """Return what the name of a record in uses/ says, or None if it is none."""
    match = _USE.fullmatch(file)
    return UseName(file, *match.groups()) if match else None


def is_ours(folder: str, file: str) -> bool:
    """Whether Regraft gave a file its name, in a namespace or another folder of the store."""
    if folder == "uses":
        return use_name(file) is not None or is_owner(file)
    if folder == "leases":
        return is_lease(file)
    if folder == "graphs":
        return _GRAPH.fullmatch(file) is not None
    if is_facts_folder(folder):
        return is_facts(file) or file == FACTS_USED
    return is_namespace(folder) and (
        file == DESCRIPTION or any(pattern.fullmatch(file) for pattern in (_SHARD_FILE, _KEYS, _DAMAGED, _RANDOM))
    )


def is_set_aside(folder: str, file: str) -> bool:
    """Whether a file is a damaged shard that was set aside."""
    return is_namespace(folder) and _DAMAGED.fullmatch(file) is not None


def writer_of(folder: str, file: str) -> int | None:
    """Return the number of the process that is writing a file under a temporary name; None for all other files."""
    match = _TEMPORARY.fullmatch(file)
    return int(match["pid"]) if match and is_ours(folder, match["stem"] + match["suffix"]) else None


def is_half_sent(folder: str, file: str) -> bool:
    """Whether a file in the shared root is what was left of one that was being sent."""
    match = _SENT_HALF.fullmatch(file)
    return match is not None and is_ours(folder, match["name"])
