"""After the stages, outside of DVC: which model services use. Production is state and not a result.

What the gate leaves beside production, verdicts and candidates, is written under the lock of production.
"""

import os
import pwd
import socket
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from regraft.core.addresses import shown_path
from regraft.core.config import Params
from regraft.core.errors import InputsChanged, RegraftError
from regraft.core.files import finite, sha256_of, write_json
from regraft.export.calibration import as_learnt
from regraft.export.classifier import OnnxClassifier, open_said, probabilities_of
from regraft.photos.dataset import Dataset, read_dataset
from regraft.photos.elsewhere import elsewhere_of
from regraft.photos.images import Threads
from regraft.photos.left_out import Today, left_out_of, without
from regraft.photos.manifest import read_manifest
from regraft.photos.sample import JUDGED, with_sample
from regraft.production.exclusive import PATIENCE_SECONDS, exclusive, expect_founded, found, refreshed, repeated
from regraft.production.gate.judge import Former, Gate
from regraft.production.gate.verdict import (
    FILE,
    WAITS,
    Verdict,
    of_sample,
    refuse_damaged,
    refuse_rolled_back,
    wait_after_rollback,
    with_evidence,
)
from regraft.production.logs import Look, Origin, count_looks, recent_changes, sketch_of, verdict_log
from regraft.production.new_photos import judge_production
from regraft.production.records import load_former
from regraft.production.registry import Candidates, Change, Grounds, Production
from regraft.production.training_data import Reference
from regraft.store.leases import store_in_use
from tasks.base_renewal import base_of_model
from tasks.progress import Progress
from tasks.run_warnings import warnings_of_run
from tasks.runs.origins import look_of_candidate, origin_of_export
from tasks.trained_on import reference_of_model
from tasks.up_to_date import about_of

_CHANGED = (
    "production changed while the new model was compared with it. Nothing was promoted. Run `regraft promote` again: "
    "it compares with what is there now."
)
_ALREADY = Verdict("Already in production", True, "This very file is in production already.")


def challenge(params: Params, progress: Progress) -> Verdict:
    """Judge models/model.onnx on today's test photos, and let it replace the model in production or not.

    A model that is not promoted becomes a candidate. If this very file is in production already, the verdict says so.
    """
    paths, distance = params.paths, params.validate_data.max_hash_distance
    production = Production(paths.production)
    expect_founded(paths.production)
    champion = production.digest
    is_there = paths.onnx.exists() and sha256_of(paths.onnx) == champion
    if is_there and not paths.dataset.exists():
        return _ALREADY
    challenger = None if is_there else OnnxClassifier(paths.onnx, is_own=False)
    if not paths.dataset.exists():  # DVC removes an output before it is made anew, and a run may have been killed there
        raise RegraftError(f"there is no {paths.dataset} to compare models on. Run `regraft retrain` first.")
    dataset = read_dataset(paths.dataset, paths.raw, elsewhere_of(params))
    judged = with_sample(dataset, "test", JUDGED)
    used, base = _used(params), base_of_model(params)
    if base:  # found out anew: a run may have ended between these photos and what `choose_base` writes of them
        left_out = left_out_of(base, Today.of(dataset, used, distance))
        dataset, judged = without(dataset, left_out), without(judged, left_out)

    def infer(classifier: OnnxClassifier, photos: Dataset) -> np.ndarray:
        threads = Threads(params.machine.workers, progress(f"photos ({classifier.digest[:12]})"))
        stored = open_said(paths.store, classifier, shared=params.machine.shared_store)
        return probabilities_of(classifier, photos, threads, stored=stored)

    def learnt(classifier: OnnxClassifier, photos: Dataset) -> np.ndarray:
        return as_learnt(infer(classifier, photos), classifier.metadata)

    with store_in_use(paths.store, params.machine.shared_store):
        evidence = judge_production(Production(paths.production), dataset, used, learnt)
        verdict = _ALREADY
        if challenger:
            gate = Gate(challenger, paths.onnx, judged, used, params.promote, infer, distance)
            verdict = _judge(params, production, gate, champion)
    tested = judged.of("test").rows.digest.tolist()
    verdict = of_sample(verdict, len(tested), len(dataset.of("test")))
    if evidence:
        verdict = with_evidence(verdict, evidence)
    if challenger is None:
        return verdict
    # The verdict on another model, or on other test photos, says nothing about this one.
    about = about_of(params, challenger.digest, champion)
    verdict = replace(verdict, figures={"about": about, **verdict.figures})
    origin = origin_of_export(params, verdict.name)
    reference = reference_of_model(params)  # before the verdict is recorded: one that is recorded is carried out
    _record(params, verdict, tested, origin, base.name if base else None)
    if verdict.is_accepted:
        _promote(params, paths.onnx, verdict.words, Grounds(challenger.digest, champion, origin=origin), reference)
    else:
        _keep_as_candidate(params, verdict, challenger.digest, reference)
    return verdict


def approve(params: Params, candidate: str, reason: str) -> Change:
    """Promote a candidate that the gate did not refuse, if production is still the model that it was compared with.

    The anchor stays where it is: a person who follows the gate chooses by the same test photos as the gate does.

    Args:
        params: all settings.
        candidate: the beginning of its SHA-256.
        reason: why, for the log; may be empty.
    """
    candidates = _candidates(params)
    path = candidates.find(candidate)
    digest = path.stem
    by_force = f"`regraft promote --force REASON --candidate {digest[:12]}` promotes it all the same"
    look = look_of_candidate(params, digest)
    gate = candidates.words_of(digest)
    if look is None or look.name == "Refused":
        lost = "The gate's words on it are lost."
        raise RegraftError(f"the gate did not leave {digest[:12]} to a person: {gate or lost} {by_force}.")
    now = Production(params.paths.production).digest
    if now != look.champion:
        was, there = (each[:12] if each else "no model" for each in (look.champion, now))
        raise InputsChanged(f"{digest[:12]} was compared with {was}, and {there} is in production now. {by_force}.")
    words = f"Approved by {operator()}: {reason.strip() or 'no reason given'}. {gate.removeprefix(WAITS)}"
    grounds = Grounds(digest, now, approved_by=operator(), origin=look.origin)
    return _promote(params, path, words, grounds, candidates.reference_of(digest))


def force(params: Params, reason: str, candidate: str | None = None) -> Change:
    """Put a model into production without asking the gate; it must name classes, no more. It is the anchor then.

    Args:
        params: all settings.
        reason: why, for the log.
        candidate: the beginning of the SHA-256 of a candidate; None for models/model.onnx.
    """
    if not reason.strip():
        raise RegraftError("a promotion by hand needs a reason, for the log: `regraft promote --force REASON`.")
    candidates = _candidates(params)
    path = candidates.find(candidate) if candidate else params.paths.onnx
    digest = OnnxClassifier(path, is_own=False).digest
    reference = candidates.reference_of(digest) if candidate else reference_of_model(params, may_lack=True)
    words = f"Promoted by hand by {operator()}, without the gate: {reason.strip()}"
    look = look_of_candidate(params, digest) if candidate else None
    origin = look.origin if look else None if candidate else origin_of_export(params)
    return _promote(params, path, words, Grounds(digest, None, True, operator(), origin), reference)


def set_anchor(params: Params, named: str) -> Change:
    """Make the model in production the anchor, or an earlier one by the beginning of its SHA-256."""
    beginning = None if named == "production" else named
    return Production(params.paths.production).set_anchor(beginning, by=f" by {operator()}")


def found_production(params: Params) -> None:
    """Begin production at its address; RegraftError if there is production already, or it is a folder."""
    found(params.paths.production, patience=PATIENCE_SECONDS)


def rollback(params: Params, to: str | None = None) -> Change:
    """Restore the previous model in production, or a named one, or a sound copy in place of a damaged one."""
    return Production(params.paths.production).rollback(by=f" by {operator()}", to=to)


def history(params: Params) -> tuple[list[Change], str]:
    """Return the changes of production, oldest first, and a sentence on a problem there now; empty if there is none."""
    production = Production(params.paths.production)
    problem, damaged = production.standing().problem, production.log.read()[1]
    wrong = [f"{problem} `regraft promote --rollback` puts the last sound model back."] if problem else []
    if damaged:
        wrong.append(f"{damaged} lines of {shown_path(production.log.path)} cannot be read, and are not shown.")
    return production.history(), " ".join(wrong)


def told(change: Change) -> str:
    """Return a change as a line for a person."""
    origin = change.origin
    made = [f"photos {origin.data[:12]}" if origin and origin.data else ""]
    made += [f"git {origin.revision[:12]}" if origin and origin.revision else ""]
    of = f"  ({', '.join(filter(None, made))})" if any(made) else ""
    return f"{change.at}  {change.action:11}  {change.sha256[:12]}  {change.words}{of}"


def candidates_told(params: Params) -> list[str]:
    """Return a line per candidate, the newest first."""
    candidates = _candidates(params)
    return [f"{digest[:12]}  {candidates.words_of(digest)}" for digest in candidates.digests()]


def operator() -> str:
    """Return who runs this process and where, as in the log of production."""
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # in a container a user may have no name
        name = f"user {os.geteuid()}"
    return f"{name} on {socket.gethostname()}"


def _judge(params: Params, production: Production, gate: Gate, expected: str | None) -> Verdict:
    """Ask the gate; `expected` is the model that was in production when the new one was first looked at."""
    refreshed(production.folder)
    standing, challenger = production.standing(), gate.challenger.digest
    if standing.problem:
        return refuse_damaged(standing.problem)
    if standing.digest != expected:
        raise InputsChanged(_CHANGED)
    if rolled_back := production.rolled_back(challenger):
        return refuse_rolled_back(rolled_back)
    champion, anchors, warnings = None, [], warnings_of_run(params)
    looks, sketch = verdict_log(production.folder).read()[0], sketch_of(gate.test.rows.digest.tolist())
    recent = {digest: recent_changes(looks, sketch, digest, challenger) for digest in production.anchors()}
    if standing.digest:
        classifier, problem = load_former(production.model)
        if classifier is None:
            return refuse_damaged(problem)
        if classifier.digest != expected:
            raise InputsChanged(_CHANGED)
        champion = _former(production, classifier, recent)
        others = [digest for digest in recent if digest != production.digest]
        kept = [load_former(production.version_of(digest))[0] for digest in others if production.is_kept(digest)]
        anchors = [_former(production, classifier, recent) for classifier in kept if classifier]
        if len(others) == len(recent) and not anchors:
            lost = ", ".join(each[:12] for each in others)
            warnings = [f"No anchor is kept any more ({lost}).", *warnings]
    before = count_looks(looks, sketch, challenger)
    verdict = gate.verdict(champion, anchors, warnings=warnings, looks=before)
    since = production.waits_since()
    return wait_after_rollback(verdict, since, challenger) if since else verdict


def _former(production: Production, classifier: OnnxClassifier, recent: dict[str, tuple[float, ...]]) -> Former:
    digest = classifier.digest
    return Former(classifier, production.reference_of(digest), production.was_chosen(digest), recent.get(digest))


def _used(params: Params) -> pd.DataFrame:
    """Return today's photos as in the manifest; where it was removed, every photo is its own group."""
    if not params.paths.manifest.exists():
        return pd.DataFrame({name: [] for name in ("digest", "group", "phash", "verdict")})
    _, manifest = read_manifest(params.paths.manifest)
    return manifest[manifest.verdict == "use"]


def _candidates(params: Params) -> Candidates:
    refreshed(params.paths.production)  # at an address they lie there as well
    return Candidates(params.paths.candidates)


def _record(params: Params, verdict: Verdict, test_digests: list[str], origin: Origin, base: str | None) -> None:
    """Write the verdict: reports/gate.json for people, and a line that counts looks at these test photos."""
    at, about = datetime.now(UTC).isoformat(timespec="seconds"), verdict.figures["about"]
    report = {"at": at, "name": verdict.name, "is_accepted": verdict.is_accepted, "words": verdict.words}
    write_json(params.paths.reports / FILE, finite({**report, **verdict.figures}))
    compared = verdict.figures.get("comparison") or {"n": 0, "b": 0, "c": 0}
    ids = (about["model"], about["champion"], compared["n"], compared["b"], compared["c"])
    against = {about["champion"]: compared, **verdict.figures.get("anchors", {})}
    changes = {digest: found["d"] for digest, found in against.items() if found["n"]}
    _add_look(params.paths.production, Look(at, verdict.name, *ids, sketch_of(test_digests), origin, base, changes))


@repeated
def _add_look(folder: Path, look: Look) -> None:
    with exclusive(folder, "recording a verdict", patience=PATIENCE_SECONDS):
        verdict_log(folder).append(look)


@repeated
def _keep_as_candidate(params: Params, verdict: Verdict, digest: str, reference: Reference | None) -> None:
    with exclusive(params.paths.production, "keeping a candidate", patience=PATIENCE_SECONDS):
        Candidates(params.paths.candidates).add(
            params.paths.onnx, digest, verdict.words, reference=reference, keep=params.promote.keep
        )


@repeated
def _remove_candidate(params: Params, digest: str) -> None:
    with exclusive(params.paths.production, "removing a candidate", patience=PATIENCE_SECONDS):
        Candidates(params.paths.candidates).remove(digest)


def _promote(params: Params, path: Path, words: str, grounds: Grounds, reference: Reference | None) -> Change:
    production = Production(params.paths.production)
    production.promote(path, words, keep=params.promote.keep, reference=reference, grounds=grounds)
    change = next(change for change in reversed(production.history()) if change.sha256 == grounds.challenger)
    try:
        _remove_candidate(params, grounds.challenger)
    except RegraftError as error:  # what was done is done, and the run says so
        print(f"Warning: the model is in production, and still in the list of candidates: {error}", file=sys.stderr)
    return change
