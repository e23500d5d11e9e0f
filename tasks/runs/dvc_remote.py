"""DVC's remote: what a run made goes there, and what a run starts from comes from there."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from regraft.core.addresses import without_addresses
from regraft.core.config import Params
from regraft.core.errors import RegraftError, safe_text
from regraft.core.files import fingerprint, sha256_of, write_text
from tasks.runs.snapshots import files_of_run

_PUSHED = Path(".dvc", "tmp", "regraft", "pushed")  # says what DVC's remote has all of
_LONGEST = 500  # letters of what DVC says


def push_data(params: Params) -> list[str]:
    """Push data, outputs and DVC's run cache, if there is a remote.

    Returns:
        Sentences for a person; one that begins with `Warning` says that the remote lacks something.
    """
    from dvc.config import ConfigError

    try:
        config = _config()
    except ConfigError as error:
        return [f"Warning: nothing was pushed: {safe_text(str(error))}"]
    if not config["remote"]:
        return []
    remotes = [sorted((name, str(facts.get("url"))) for name, facts in config["remote"].items()), config["core"]]
    state = fingerprint([str(remotes), [sha256_of(path) for path in files_of_run(params) if path.is_file()]])
    if _PUSHED.is_file() and _PUSHED.read_text(encoding="utf-8") == state:  # a second is too long for nothing
        return []
    if why := _dvc(params, "push", "--run-cache"):
        return [
            f"Warning: nothing was pushed to DVC's remote ({why}). The next run with --commit, or `dvc push`, does it."
        ]
    with suppress(RegraftError):  # no room: the next run pushes again
        write_text(_PUSHED, state)
    return ["Pushed data, results and the run cache to DVC's remote."]


def has_remote() -> bool:
    """Whether DVC has a remote; False where its settings cannot be read."""
    from dvc.config import ConfigError

    try:
        return bool(_config()["remote"])
    except ConfigError:
        return False


def pull_data(params: Params, targets: list[str]) -> None:
    """Fetch some outputs and DVC's run cache, and put the outputs where they belong.

    Args:
        params: all settings.
        targets: stages, paths of outputs, or .dvc files.

    Raises:
        RegraftError: there is no remote, or it lacks something; nothing may go on from half of it.
    """
    from dvc.config import ConfigError

    try:
        config = _config()
    except ConfigError as error:
        raise RegraftError(f"DVC cannot read its settings: {error}. Put that right, and run again.") from None
    if not config["remote"]:
        raise RegraftError(
            "DVC has no remote to pull from. `dvc remote add --default NAME s3://bucket/folder` sets one."
        )
    if why := _dvc(params, "pull", "--run-cache", *targets):
        raise RegraftError(
            f"not all could be pulled from DVC's remote ({why}). `dvc push` where these files are, or `dvc pull` here "
            "says more. Without them a run would place photos anew, so none should start."
        )


def _config() -> Any:
    from dvc.config import Config

    return Config(".dvc")


def _dvc(params: Params, *arguments: str) -> str:
    """Run a command of DVC's, and return why it failed, without addresses; nothing if it did not."""
    command = [sys.executable, "-m", "dvc", *arguments]
    limit = 3600 * params.nights.stage_hours
    try:
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit)
    except (subprocess.TimeoutExpired, OSError) as error:
        return _told(str(error))
    if not ended.returncode:
        return ""
    lines = ended.stderr.splitlines()
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines[-1:]
    return _told(" ".join(errors)) or f"exit status {ended.returncode}"


def _told(why: str) -> str:
    return safe_text(without_addresses(why))[:_LONGEST]  # a message may quote the remote's address, with its password
