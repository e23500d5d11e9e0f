"""Telling a registry, and remembering that it was told."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Literal

from regraft.addresses import without_addresses
from regraft.config import Params
from regraft.errors import RegraftError, safe_text
from regraft.files import fingerprint, write_text
from regraft.production.records import Records

_SECONDS = 600.0
_LONGEST = 500  # letters of what a registry says
# A server that does not answer is asked for a minute and not for five, unless the environment says otherwise.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}


def tell(params: Params, registry: Literal["mlflow", "gto"]) -> list[str]:
    """Let a registry know of the model in production, if params.yaml names one and it does not know already.

    Returns:
        Sentences for a person; those that begin with "Warning" say what could not be done.
    """
    settings = getattr(params.promote, registry)
    digest = Records(params.paths.production).digest if settings else None
    if digest is None:
        return []
    note, state = Path(".dvc", "tmp", "regraft", f"{registry}.told"), fingerprint([settings.model_dump(), digest])
    if note.is_file() and note.read_text(encoding="utf-8") == state:
        return []
    command = [sys.executable, "-m", f"tasks.registries.{registry}_registry"]
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            env=_PATIENCE | os.environ,
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        return [_warning(registry, str(error))]
    said = ended.stdout if ended.returncode == 0 else ended.stderr
    last = (said.strip().splitlines() or [f"exit status {ended.returncode}"])[-1]
    if ended.returncode:
        return [_warning(registry, last)]
    with suppress(RegraftError):  # no room: it is told once more, which changes nothing
        write_text(note, state)
    return [safe_text(last)[:_LONGEST]]


def _warning(registry: str, why: str) -> str:
    why = safe_text(without_addresses(why))[:_LONGEST]  # a message may quote an address, with its password
    return f"Warning: promote.{registry} was not done ({why}). Production is as it is; the next run tries again."
