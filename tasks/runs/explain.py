"""Why each stage of a run ran or did not, and what changed since the run before: from two receipts, in plain words."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from regraft.core.addresses import shown_path
from regraft.core.config import Params
from regraft.core.errors import Damaged, printable, safe_text
from regraft.core.files import reading
from tasks.dvc_cache import photos_of
from tasks.runs.receipts import DONE, find_run, is_of_stage, last_run, read_receipt, runs_with_receipt

_NAMED = 5  # of many names in a sentence
_LINES, _LETTERS = 400, 2000  # that are told of a run, and of each line
_CODE = "record_code"


def explain(params: Params, wanted: str | None = None) -> str:
    """Return what there is to say of a run.

    Args:
        params: all settings.
        wanted: the run, as in `tasks.runs.receipts.find_run`; None is the last one, which may have had nothing to do.

    Raises:
        RegraftError: there is no such run, or its receipt is damaged.
    """
    last = last_run() if wanted is None else None
    if last and last["run"] in runs_with_receipt(params.paths.receipts):
        wanted = last["run"]  # by its name it may not be the last, where the clock was set back
    run = find_run(params, wanted)
    if last and last["run"] > run:
        is_quiet = all(step["outcome"] == "Up to date" for step in last["stages"] if is_of_stage(step))
        why = f"It had nothing to do: nothing has changed since run {run}." if is_quiet else "It has no receipt."
        return safe_text(f"{_head(last)}\n{why} `regraft explain {run}` tells of the run before.")
    now = read_receipt(params, run)
    before = _before(params, now)
    with reading(params.paths.receipts / f"{run}.json", "a receipt, and one before it"):
        lines = [_head(now), "", *_since(now, before), "", *_stages(now, before)]
    return _limited(safe_text("\n".join(lines)))


def _limited(text: str) -> str:
    """Return a text as long as that of any run: a receipt may come from a pushed branch."""
    lines = [line if len(line) <= _LETTERS else f"{line[:_LETTERS]} ..." for line in text.split("\n")]
    more = [f"... and {len(lines) - _LINES} more lines"] if len(lines) > _LINES else []
    return "\n".join([*lines[:_LINES], *more])


def changes(now: dict[str, Any], before: dict[str, Any]) -> list[tuple[str, str]]:
    """Return in what two receipts differ, as pairs of a topic and a sentence."""
    found = [("photos", sentence) for sentence in _photos(before.get("data"), now.get("data"))]
    settings = _settings(before.get("params", {}), now.get("params", {}))
    found += [("settings", sentence) for sentence in settings]
    code = [_merged(receipt, "code") for receipt in (before, now)]
    if modules := _names_that_differ(*code):
        found.append(("code", f"{_several(modules)} changed"))
    versions = before.get("versions", {}), now.get("versions", {})
    found += [("libraries", sentence) for sentence in _versions(*versions)]
    if before.get("production") != now.get("production"):
        old, new = ((receipt.get("production") or "no model")[:12] for receipt in (before, now))
        found.append(("production", f"{old} -> {new}"))
    return found


def reasons(stage: str, now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """Return why a stage was not up to date, from what dvc.lock said of it before and after; empty if that is equal."""
    old, new = before["locked"].get(stage), now["locked"].get(stage)
    if new is None:
        return []
    if old is None:
        return ["it had not run before"]
    read = [{path: file["md5"] for path, file in each["reads"].items()} for each in (old, new)]
    paths = _names_that_differ(*read)
    said = [f"{_several(paths)} changed"] if paths else []
    said += _settings(old["settings"], new["settings"])
    if modules := _names_that_differ(old["code"], new["code"]):
        said.append(f"code changed: {_several(modules)}")
    return said + _versions(old["libraries"], new["libraries"])


def _head(run: dict[str, Any]) -> str:
    by = f", started by {run['started_by']}" if run.get("started_by") else ""
    return f"Run {run['run']}, {run['started'][:16].replace('T', ' ')} UTC{by}: {run['name']}\n{run['words']}"


def _before(params: Params, now: dict[str, Any]) -> dict[str, Any] | None:
    """Return the receipt before one; None for the first, and where that one is not there any more, or damaged."""
    try:
        return read_receipt(params, str(now["previous"])) if now.get("previous") else None
    except (FileNotFoundError, Damaged):
        return None


def _since(now: dict[str, Any], before: dict[str, Any] | None) -> list[str]:
    if before is None:
        return ["There is no receipt of a run before this one to compare with."]
    rows = [f"  {topic:11} {sentence}" for topic, sentence in changes(now, before)]
    return [f"Since run {before['run']} ({before['name']}):", *(rows or ["  nothing has changed"])]


def _stages(now: dict[str, Any], before: dict[str, Any] | None) -> list[str]:
    """Return a line per step: what became of it, how long it took, and why."""
    lines = ["Stages:"]
    for step in now["stages"]:
        line = f"  {step['name']:15} {step['outcome']:12} {step['seconds']:8.1f} s   {_why(step, now, before)}"
        lines.append(line.rstrip())
    reached = {step["name"] for step in now["stages"]}
    names = [step["name"] for step in (before or now)["stages"] if is_of_stage(step) and step["name"] not in reached]
    return lines + [f"  {name:15} not reached" for name in names]


def _why(step: dict[str, Any], now: dict[str, Any], before: dict[str, Any] | None) -> str:
    name, outcome = step["name"], step["outcome"]
    if outcome not in DONE:
        if not is_of_stage(step):
            return ""
        said = "; ".join(reasons(name, _as_wanted(name, now), now)) or "it had not run before"
        return f"begun because {said}" if name in now["locked"] else "it had not run before"
    if outcome == "Up to date":
        return "nothing that it reads has changed" if is_of_stage(step) else ""
    if outcome == "Recorded":
        return "the photos are not as they were recorded last"
    because = reasons(name, now, before) if before else ["no earlier receipt"]
    if name == _CODE and before:
        because += _versions(before.get("versions", {}), now.get("versions", {}))
    said = "; ".join(because) or "its outputs were not as dvc.lock says: removed, or changed"
    return f"{said} (taken from DVC's cache: it ran on just this before)" if outcome == "Restored" else said


def _as_wanted(stage: str, receipt: dict[str, Any]) -> dict[str, Any]:
    """Return a receipt in which a stage that did not end well has what it was to read.

    dvc.lock says what it read when it ended well.
    """
    locked = receipt["locked"].get(stage)
    if locked is None:
        return receipt
    written = {path: file for each in receipt["locked"].values() for path, file in each["writes"].items()}
    if data := receipt.get("data"):
        written[data["path"]] = data
    settings = _flat(receipt.get("params", {}))
    named = _flat(locked["settings"])
    wanted = locked | {
        "reads": {path: written.get(path, file) for path, file in locked["reads"].items()},
        "settings": {name: settings.get(name, value) for name, value in named.items()},
    }
    return receipt | {"locked": receipt["locked"] | {stage: wanted}}


def _photos(before: dict[str, Any] | None, now: dict[str, Any] | None) -> list[str]:
    if not now or (before and before["md5"] == now["md5"]):
        return []
    total = f"{now.get('files', 1)} files now"
    old, new = (each and photos_of(Path(), each["md5"]) for each in (before, now))
    if old is None or new is None:
        earlier = f", {before.get('files', 1)} before" if before else ""
        return [f"changed: {total}{earlier}; DVC's cache does not have both lists of names"]
    return [f"{_difference(old, new)}; {total}"]


def _difference(old: dict[str, str], new: dict[str, str]) -> str:
    """Return what became of the files of a folder, given as content by name."""
    added, gone = new.keys() - old.keys(), old.keys() - new.keys()
    # A file that moved, to another label for instance, is neither added nor gone.
    left = Counter(old[name] for name in gone)
    moved = set()
    for name in sorted(added):
        if left[new[name]] > 0:
            left[new[name]] -= 1
            moved.add(name)
    came = Counter(new[name] for name in moved)
    for name in sorted(gone):
        if came[old[name]] > 0:
            came[old[name]] -= 1
            gone = gone - {name}
    other = {name for name in old.keys() & new.keys() if old[name] != new[name]}
    kinds = {"added": added - moved, "gone": gone, "renamed or moved": moved, "with other content": other}
    said = [f"{len(names)} {what} ({_several(sorted(names))})" for what, names in kinds.items() if names]
    return ", ".join(said)


def _several(names: list[str]) -> str:
    """Return the first few of many names, which may be those of photos."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(printable, names[:_NAMED])) + more


def _settings(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return what changed of settings as `name old -> new`."""
    old, new = _flat(before), _flat(now)
    return [f"{name} {_told(old, name)} -> {_told(new, name)}" for name in _names_that_differ(old, new)]


def _told(values: dict[str, Any], name: str) -> str:
    if name not in values:
        return "(not there)"
    value = shown_path(Path(values[name])) if name.startswith("paths.") else values[name]
    return printable(json.dumps(value, ensure_ascii=False))


def _versions(before: dict[str, str], now: dict[str, str]) -> list[str]:
    return [
        f"{name} {before.get(name, 'unused')} -> {now.get(name, 'unused')}" for name in _names_that_differ(before, now)
    ]


def _flat(settings: dict[str, Any], section: str = "") -> dict[str, Any]:
    """Return settings by their full names; of a list of one value, which params.yaml may leave out, the value."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{section}{key}"
        if isinstance(value, dict):
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = value[0] if isinstance(value, list) and len(value) == 1 else value
    return flat


def _merged(receipt: dict[str, Any], part: str) -> dict[str, Any]:
    """Return a part of what dvc.lock said of all stages; modules are by stage, since each may have run at its time."""
    return {name: value for each in receipt["locked"].values() for name, value in each[part].items()}


def _names_that_differ(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
