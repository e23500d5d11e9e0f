"""Why each stage of a run ran or did not, and what changed since the run before: from two receipts, in plain words.

A receipt has what dvc.lock says of each stage, so the reasons are those by which DVC decided.
"""

import json
from pathlib import Path
from typing import Any

from regraft.core.addresses import shown_path
from regraft.core.config import Params
from regraft.core.errors import Damaged, printable, safe_text
from regraft.core.files import reading
from tasks.dvc_files import photos_of
from tasks.runs.receipts import DONE, find_run, is_of_stage, last_run, read_receipt, runs_with_receipt

_NAMED = 5  # of many names in a sentence
_LINES, _LETTERS = 400, 2000  # of a text and of its lines: a receipt may come from a pushed branch
_SETTLED = {
    "Up to date": "nothing that it reads has changed",
    "Recorded": "the photos are not as they were recorded last",
    "Failed": "what it read then is in no record, since it did not end well",
    "Stopped": "what it read then is in no record, since it did not end well",
}


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
    try:
        before = read_receipt(params, str(now.get("previous")))
    except (FileNotFoundError, Damaged):  # the first run, or the one before is not there any more
        before = None
    with reading(params.paths.receipts / f"{run}.json", "a receipt, and one before it"):
        text = safe_text("\n".join([_head(now), "", *_since(now, before), "", "Stages:", *_stages(now, before)]))
    lines = [line if len(line) <= _LETTERS else f"{line[:_LETTERS]} ..." for line in text.split("\n")]
    more = [f"... and {len(lines) - _LINES} more lines"] if len(lines) > _LINES else []
    return "\n".join([*lines[:_LINES], *more])


def reasons(stage: str, now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """Return why a stage was not up to date, from what dvc.lock said of it before and after; empty if that is equal."""
    old, new = before["locked"].get(stage), now["locked"].get(stage)
    if new is None:
        return []
    if old is None:
        return ["it had not run before"]
    read = [{path: file["md5"] for path, file in each["reads"].items()} for each in (old, new)]
    said = [f"{_several(paths)} changed"] if (paths := _differing(*read)) else []
    said += _changes(old["settings"], new["settings"])
    if modules := _differing(old["code"], new["code"]):
        said.append(f"code changed: {_several(modules)}")
    return said + _changes(old["libraries"], new["libraries"])


def _head(run: dict[str, Any]) -> str:
    by = f", started by {run['started_by']}" if run.get("started_by") else ""
    return (
        f"Run {run['run']}, {run['started'][:16].replace('T', ' ')} UTC{by}: {printable(run['name'])}\n{run['words']}"
    )


def _since(now: dict[str, Any], before: dict[str, Any] | None) -> list[str]:
    if before is None:
        return ["There is no receipt of a run before this one to compare with."]
    found = [f"  photos      {_photos(before.get('data'), now['data'])}"] if now.get("data") else []
    found += [f"  settings    {change}" for change in _changes(before.get("params", {}), now.get("params", {}))]
    found += [f"  libraries   {change}" for change in _changes(before.get("versions", {}), now.get("versions", {}))]
    return [f"Since run {before['run']} ({before['name']}):", *found]


def _stages(now: dict[str, Any], before: dict[str, Any] | None) -> list[str]:
    """Return a line per step: what became of it, how long it took, and why."""
    lines = []
    for step in now["stages"]:
        why = _why(step["name"], step["outcome"], now, before) if is_of_stage(step) else ""
        lines.append(f"  {printable(step['name']):15} {step['outcome']:12} {step['seconds']:8.1f} s   {why}".rstrip())
    reached = {step["name"] for step in now["stages"]}
    names = [step["name"] for step in (before or now)["stages"] if is_of_stage(step) and step["name"] not in reached]
    return lines + [f"  {name:15} not reached" for name in names]


def _why(name: str, outcome: str, now: dict[str, Any], before: dict[str, Any] | None) -> str:
    if outcome in _SETTLED or outcome not in DONE:
        return _SETTLED.get(outcome, "")
    because = reasons(name, now, before) if before else ["no earlier receipt"]
    if name == "record_code" and before:  # what is installed is in none of its files
        because += _changes(before.get("versions", {}), now.get("versions", {}))
    said = "; ".join(because) or "its outputs were not as dvc.lock says: removed, or changed"
    return f"{said} (taken from DVC's cache: it ran on just this before)" if outcome == "Restored" else said


def _photos(before: dict[str, Any] | None, now: dict[str, Any]) -> str:
    """Return what became of the files of the data folder."""
    count = f"{now.get('files', 1)} files"
    if before and before["md5"] == now["md5"]:
        return f"{count}, as before"
    old, new = (each and photos_of(Path(), each["md5"]) for each in (before, now))
    if old is None or new is None:
        earlier = f" after {before.get('files', 1)}" if before else ""
        return f"{count}{earlier}; DVC's cache does not have both lists of names"
    changed = [name for name in old.keys() & new.keys() if old[name] != new[name]]
    kinds = {"added": new.keys() - old.keys(), "gone": old.keys() - new.keys(), "with other content": changed}
    said = [f"{len(names)} {what} ({_several(sorted(names))})" for what, names in kinds.items() if names]
    return f"{', '.join(said)}; {count} now"


def _several(names: list[str]) -> str:
    """Return the first few of many names, which may be those of photos."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(printable, names[:_NAMED])) + more


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return what changed of settings or versions, as `name old -> new`."""
    old, new = _flat(before), _flat(now)
    return [f"{name} {_told(old, name)} -> {_told(new, name)}" for name in _differing(old, new)]


def _told(values: dict[str, Any], name: str) -> str:
    if name not in values:
        return "(not there)"
    value = shown_path(Path(values[name])) if name.startswith("paths.") else values[name]
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _flat(settings: dict[str, Any], section: str = "") -> dict[str, Any]:
    """Return settings by their full names; of a list of one value, which params.yaml may leave out, the value."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{section}{key}.")
        else:
            flat[f"{section}{key}"] = value[0] if isinstance(value, list) and len(value) == 1 else value
    return flat


def _differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
