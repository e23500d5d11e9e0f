"""After the stages, outside of DVC: which model services use. Production is state and not a result."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regraft.core.addresses import shown_path
from regraft.core.config import Params
from regraft.core.errors import InputsChanged, RegraftError
from regraft.core.files import sha256_of
from regraft.export.calibration import as_learnt
from regraft.export.classifier import OnnxClassifier, open_said, probabilities_of
from regraft.photos.dataset import Dataset, read_dataset
from regraft.photos.elsewhere import elsewhere_of
from regraft.photos.images import Threads
from regraft.photos.left_out import Today, left_out_of, without
from regraft.photos.manifest import read_manifest
from regraft.photos.sample import with_sample
from regraft.production.exclusive import found
from regraft.production.gate.contestants import load_challenger, load_champion
from regraft.production.gate.trial import Former, Trial
from regraft.production.gate.verdict import (
    WAITS,
    Verdict,
    of_sample,
    refuse_damaged,
    refuse_rolled_back,
    wait_after_rollback,
    with_evidence,
)
from regraft.production.lock import PATIENCE_SECONDS
from regraft.production.mirror import expect_founded, refreshed
from regraft.production.registry import Change, Grounds, Production
from regraft.production.training_data import Reference
from regraft.production.verdict_log import FILE as VERDICTS
from regraft.production.verdict_log import count_looks, read_looks, recent_changes, sketch_of
from regraft.store.leases import store_in_use
from tasks.base_renewal import base_of_model
from tasks.new_photos import ask_new_photos
from tasks.progress import Progress
from tasks.promotion_records import candidates_of, keep_as_candidate, operator, record_verdict, remove_candidate
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
    """Judge models/model.onnx on today's test photos, and let it take the place of the model in production or not.

    One that is not let in becomes a candidate. If this very file is in production already, the verdict says so.
    """
    paths = params.paths
    production = Production(paths.production)
    expect_founded(paths.production)
    champion = production.digest
    is_there = paths.onnx.exists() and sha256_of(paths.onnx) == champion
    if is_there and not paths.dataset.exists():
        return _ALREADY
    challenger = None if is_there else load_challenger(paths.onnx)
    if not paths.dataset.exists():  # DVC removes an output before it is made anew, and a run may have been killed there
        raise RegraftError(f"there is no {paths.dataset} to compare models on. Run `regraft retrain` first.")
    dataset = read_dataset(paths.dataset, paths.raw, elsewhere_of(params))
    judged = with_sample(dataset, "test", params.evaluate.max_photos)
    used, base = _used(params), base_of_model(params)
    if base:  # found out anew: a run may have ended between these photos and what `choose_base` writes of them
        left_out = left_out_of(base, Today.of(dataset, used, params.validate_data.max_hash_distance))
        dataset, judged = without(dataset, left_out), without(judged, left_out)
    with store_in_use(paths.store, params.machine.shared_store):
        ask = _ask(params, progress)
        evidence = ask_new_photos(params, dataset, used, lambda model, new: as_learnt(ask(model, new), model.metadata))
        distance = params.validate_data.max_hash_distance
        trial = Trial(challenger, paths.onnx, judged, used, params.promote, ask, distance) if challenger else None
        verdict = _judge(params, production, trial, champion) if trial else _ALREADY
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
    reference = reference_of_model(params)  # a verdict that is recorded is carried out
    record_verdict(params, verdict, tested, origin, base.name if base else None)
    if verdict.is_accepted:
        grounds = Grounds(challenger.digest, champion, origin=origin)
        _promote(params, paths.onnx, verdict.words, grounds, reference)
    else:
        keep_as_candidate(params, verdict, challenger.digest, reference)
    return verdict


def approve(params: Params, candidate: str, reason: str) -> Change:
    """Let in a candidate that the gate did not refuse, if production is still the model that it was compared with.

    The anchor stays where it is: whoever follows the gate chooses by the same test photos as the gate does.

    Args:
        params: all settings.
        candidate: the beginning of its SHA-256.
        reason: why, for the log; may be empty.
    """
    candidates = candidates_of(params)
    path = candidates.find(candidate)
    digest = path.stem
    by_force = f"`regraft promote --force REASON --candidate {digest[:12]}` promotes it all the same"
    look = look_of_candidate(params, digest)
    if look is None or look.name == "Refused":
        said = candidates.words_of(digest) or "What the gate said of it is lost."
        raise RegraftError(f"the gate did not leave {digest[:12]} to a person: {said} {by_force}.")
    now = Production(params.paths.production).digest
    if now != look.champion:
        was, there = (each[:12] if each else "no model" for each in (look.champion, now))
        raise InputsChanged(f"{digest[:12]} was compared with {was}, and {there} is in production now. {by_force}.")
    said = candidates.words_of(digest).removeprefix(WAITS)
    words = f"Approved{operator()}: {reason.strip() or 'no reason given'}. {said}"
    grounds = Grounds(digest, now, approved_by=operator().removeprefix(" by "), origin=look.origin)
    return _promote(params, path, words, grounds, candidates.reference_of(digest))


def set_anchor(params: Params, named: str) -> Change:
    """Make the model in production the anchor, or an earlier one by the beginning of its SHA-256."""
    beginning = None if named == "production" else named
    return Production(params.paths.production).set_anchor(beginning, by=operator())


def force(params: Params, reason: str, candidate: str | None = None) -> Change:
    """Put a model into production without asking the gate; it must name classes, no more. It is the anchor then.

    Args:
        params: all settings.
        reason: why, for the log.
        candidate: the beginning of the SHA-256 of a candidate; None for models/model.onnx.
    """
    if not reason.strip():
        raise RegraftError("a promotion by hand needs a reason, for the log: `regraft promote --force REASON`.")
    candidates = candidates_of(params)
    path = candidates.find(candidate) if candidate else params.paths.onnx
    digest = load_challenger(path).digest
    reference = candidates.reference_of(digest) if candidate else reference_of_model(params, may_lack=True)
    words = f"Promoted by hand{operator()}, without the gate: {reason.strip()}"
    look = look_of_candidate(params, digest) if candidate else None
    origin = look.origin if look else None if candidate else origin_of_export(params)
    grounds = Grounds(digest, is_by_hand=True, approved_by=operator().removeprefix(" by "), origin=origin)
    return _promote(params, path, words, grounds, reference)


def found_production(params: Params) -> None:
    """Let a first model into the address of production; RegraftError if there is one, or it is a folder."""
    found(params.paths.production, patience=PATIENCE_SECONDS)


def rollback(params: Params, to: str | None = None) -> Change:
    """Put the previous model back into production, or a named one, or a sound copy in place of a damaged one."""
    return Production(params.paths.production).rollback(by=operator(), to=to)


def history(params: Params) -> tuple[list[Change], str]:
    """Return what was in production, oldest first, and a sentence on what is wrong there now; empty if nothing is."""
    production = Production(params.paths.production)
    problem = production.standing().problem
    damaged = production.log.read()[1]
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
    candidates = candidates_of(params)
    return [f"{digest[:12]}  {candidates.words_of(digest)}" for digest in candidates.digests()]


def _ask(params: Params, progress: Progress) -> Any:
    """What a model says of photos; of those that it was shown before it is in the store."""

    def ask(classifier: OnnxClassifier, photos: Dataset) -> np.ndarray:
        threads = Threads(params.machine.workers, progress(f"photos ({classifier.digest[:12]})"))
        stored = open_said(params.paths.store, classifier, shared=params.machine.shared_store)
        return probabilities_of(classifier, photos, threads, stored=stored)

    return ask


def _judge(params: Params, production: Production, trial: Trial, expected: str | None) -> Verdict:
    """Ask the gate; `expected` is the model that was in production when the new one was first looked at."""
    refreshed(production.folder)
    standing = production.standing()
    if standing.problem:
        return refuse_damaged(standing.problem)
    if standing.digest != expected:
        raise InputsChanged(_CHANGED)
    if rolled_back := production.rolled_back(trial.challenger.digest):
        return refuse_rolled_back(rolled_back)
    champion, anchors, warnings = None, [], warnings_of_run(params)
    looks = read_looks(production.folder / VERDICTS)
    sketch = sketch_of(trial.test.rows.digest.tolist())
    recent = {digest: recent_changes(looks, sketch, digest, trial.challenger.digest) for digest in production.anchors()}
    if standing.digest:
        classifier, problem = load_champion(production.model)
        if classifier is None:
            return refuse_damaged(str(problem))
        if classifier.digest != expected:
            raise InputsChanged(_CHANGED)
        was_chosen = production.was_chosen(classifier.digest)
        champion = Former(classifier, production.find_reference()[0], was_chosen, recent.get(classifier.digest))
        anchors, said = _anchors(production, recent)
        warnings = [*said, *warnings]
    before = count_looks(looks, sketch, trial.challenger.digest)
    verdict = trial.verdict(champion, anchors, warnings=warnings, looks=before)
    since = production.waits_since()
    return wait_after_rollback(verdict, since, trial.challenger.digest) if since else verdict


def _anchors(production: Production, recent: Mapping[str, tuple[float, ...]]) -> tuple[list[Former], list[str]]:
    """Return the anchor and the first model of all, without the model in production; and why there is none to ask.

    Args:
        production: the records.
        recent: by SHA-256 what the newest models were better than it, as of `Contest`.
    """
    others = [digest for digest in recent if digest != production.digest]
    found = []
    for digest in others:
        if production.is_kept(digest) and (classifier := load_champion(production.version_of(digest))[0]):
            reference, was_chosen = production.reference_of(digest), production.was_chosen(digest)
            found.append(Former(classifier, reference, was_chosen, recent[digest]))
    lost = len(others) == len(recent) and not found
    return found, [f"No anchor is kept any more ({', '.join(each[:12] for each in others)})."] if lost else []


def _used(params: Params) -> pd.DataFrame:
    """Return today's photos as the manifest has them; where it was removed, every photo is its own group."""
    if not params.paths.manifest.exists():
        return pd.DataFrame({name: [] for name in ("digest", "group", "phash", "verdict")})
    _, manifest = read_manifest(params.paths.manifest)
    return manifest[manifest.verdict == "use"]


def _promote(params: Params, path: Path, words: str, grounds: Grounds, reference: Reference | None) -> Change:
    production = Production(params.paths.production)
    production.promote(path, words, keep=params.promote.keep, reference=reference, grounds=grounds)
    change = next(change for change in reversed(production.history()) if change.sha256 == grounds.challenger)
    try:
        remove_candidate(params, grounds.challenger)
    except RegraftError as error:  # what was done is done, and the run says so
        print(f"Warning: the model is in production, and still in the list of candidates: {error}", file=sys.stderr)
    return change
