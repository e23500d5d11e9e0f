"""What the gate leaves beside production, each written under its lock: verdicts and candidates; and who asked it."""

import os
import pwd
import socket
from datetime import UTC, datetime

from regraft.core.config import Params
from regraft.core.files import finite, write_json
from regraft.production.candidates import Candidates
from regraft.production.change_log import Origin
from regraft.production.exclusive import exclusive, repeated
from regraft.production.gate.verdict import FILE, Verdict
from regraft.production.lock import PATIENCE_SECONDS
from regraft.production.mirror import refreshed
from regraft.production.training_data import Reference
from regraft.production.verdict_log import FILE as VERDICTS
from regraft.production.verdict_log import Look, append_look, sketch_of


def operator() -> str:
    """Return who runs this process and where, as the log of production names it."""
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # in a container a user may have no name
        name = f"user {os.geteuid()}"
    return f" by {name} on {socket.gethostname()}"


def candidates_of(params: Params) -> Candidates:
    """Return the candidates, with those that lie at the address of production."""
    refreshed(params.paths.production)
    return Candidates(params.paths.candidates)


@repeated
def keep_as_candidate(params: Params, verdict: Verdict, digest: str, reference: Reference | None) -> None:
    """Keep models/model.onnx, which was not let in, so that a person can promote it."""
    with exclusive(params.paths.production, "keeping a candidate", patience=PATIENCE_SECONDS):
        Candidates(params.paths.candidates).add(
            params.paths.onnx, digest, verdict.words, reference=reference, keep=params.promote.keep
        )


@repeated
def remove_candidate(params: Params, digest: str) -> None:
    """Remove a candidate that is in production by now, if it was one."""
    with exclusive(params.paths.production, "removing a candidate", patience=PATIENCE_SECONDS):
        Candidates(params.paths.candidates).remove(digest)


def record_verdict(params: Params, verdict: Verdict, test_digests: list[str], origin: Origin, base: str | None) -> None:
    """Write what the gate said: reports/gate.json for people, and a line that counts looks at these test photos.

    Like production, both are state and no output of DVC.
    """
    at, about = datetime.now(UTC).isoformat(timespec="seconds"), verdict.figures["about"]
    said = {"at": at, "name": verdict.name, "is_accepted": verdict.is_accepted, "words": verdict.words}
    write_json(params.paths.reports / FILE, finite({**said, **verdict.figures}))
    compared = verdict.figures.get("comparison") or {"n": 0, "b": 0, "c": 0}
    ids = (about["model"], about["champion"], compared["n"], compared["b"], compared["c"])
    against = {about["champion"]: compared, **verdict.figures.get("anchors", {})}
    changes = {digest: found["d"] for digest, found in against.items() if found["n"]}
    look = Look(at, verdict.name, *ids, sketch_of(test_digests), origin, base, changes)
    _add_look(params, look)


@repeated
def _add_look(params: Params, look: Look) -> None:
    with exclusive(params.paths.production, "writing down a verdict", patience=PATIENCE_SECONDS):
        append_look(params.paths.production / VERDICTS, look)
