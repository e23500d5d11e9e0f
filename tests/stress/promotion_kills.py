"""Kill -9 of changes of production, at any step of each, while somebody reads the model all the time.

    python -m tests.stress.promotion_kills [--kills 200]

A change is a night that promotes, a night that keeps a candidate, a promotion by hand, or a rollback, each with all
that the gate writes down. After each kill production must be a whole model that the log names, every line and photo
that was written before must still be there, and the next change must succeed. The last line is one JSON object.
"""

import argparse
import hashlib
import json
import multiprocessing
import random
import tempfile
from dataclasses import asdict, dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np

from regraft.core.files import sha256_of
from regraft.production.exclusive import exclusive
from regraft.production.logs import Look, verdict_log
from regraft.production.new_photos import answered, read_answers, write_answers
from regraft.production.registry import Candidates, Grounds, Production
from tests.support.gate import dataset_of, groups_of
from tests.support.production import data_of, promote_by_gate, roll_back, write_candidate
from tests.support.steps import Stepping

_LENGTH = 200_000  # bytes of a model: several pages, so that half of one could be seen
_MOST_STEPS = 70


@dataclass
class Tally:
    """What was done, and what was found; `problems` must stay empty."""

    kills: int = 0
    ended_before: int = 0  # the change was shorter than that
    reads: int = 0
    seen: list[str] = field(default_factory=list)  # models that the reader found, shortened
    missing: int = 0  # times that there was no file
    damaged: int = 0  # times that its bytes were those of no model
    problems: list[str] = field(default_factory=list)


def contents_of(number: int) -> str:
    """The bytes of a model: of one letter, so that half of one and half of another are none."""
    return f"{chr(97 + number % 26) * 8}{number % 26:02d}"


def write_model(folder: Path, number: int) -> Path:
    """Write a model that is large enough to be half-written."""
    path = write_candidate(folder, contents_of(number))
    if path.stat().st_size < _LENGTH:
        path.chmod(0o644)
        path.write_text(contents_of(number) * (_LENGTH // 10))
        path.chmod(0o444)
    return path


def night(folder: Path, number: int, is_promoted: bool) -> None:
    """What a night writes down beside production."""
    production, candidates = Production(folder), Candidates(folder.parent / "candidates")
    path = write_model(folder, number)
    digest = sha256_of(path)
    with exclusive(folder, "noting new photos", patience=30):
        photos = dataset_of(["cup"])
        photos.rows.loc[0, "digest"] = hashlib.sha256(str(number).encode()).hexdigest()
        pair = (production.digest or "0" * 64, digest)
        rows = answered(photos, groups_of({}), pair, (np.array([True]), np.array([False])))
        before = read_answers(folder)
        write_answers(folder, type(rows)(np.concatenate([before, rows]), columns=rows.columns).astype(rows.dtypes))
    with exclusive(folder, "writing down a verdict", patience=30):
        look = Look("2026-11-26T03:00:00+00:00", "Undecided", digest, production.digest, 300, 5, 4, ["0123456789"])
        verdict_log(folder).append(look)
    if is_promoted and not production.rolled_back(digest) and not production.waits_since():
        promote_by_gate(folder, contents_of(number))
    else:
        with exclusive(folder, "keeping a candidate", patience=30):
            candidates.add(path, digest, "Undecided.", reference=data_of("cup"), keep=3)


def by_hand(folder: Path, number: int) -> None:
    """A promotion by a person."""
    path = write_model(folder, number)
    grounds = Grounds(sha256_of(path), is_by_hand=True, approved_by="a test")
    Production(folder).promote(path, "by hand", keep=3, reference=data_of("cup"), grounds=grounds)


def read_all_the_while(path: Path, known: set[str], stop: Event, answer: Any) -> None:
    """Read the model again and again, as a service does that starts at any moment."""
    reads = missing = damaged = 0
    seen: set[str] = set()
    while not stop.is_set():
        reads += 1
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except FileNotFoundError:
            missing += 1
            continue
        damaged += digest not in known
        seen.add(digest[:12])
    answer.send((reads, sorted(seen), missing, damaged))


def run(folder: Path, kills: int, *, seed: int = 0) -> Tally:
    """Kill changes of one production until so many were killed."""
    dice, tally = random.Random(seed), Tally()
    folder.mkdir(parents=True)
    models = {sha256_of(write_model(folder, number)) for number in range(26)}
    by_hand(folder, 0)
    night(folder, 1, is_promoted=True)
    stop, (answer, sender) = multiprocessing.Event(), multiprocessing.Pipe(duplex=False)
    arguments = (folder / "model.onnx", models, stop, sender)
    reader = multiprocessing.Process(target=read_all_the_while, args=arguments)
    reader.start()
    try:
        while tally.kills < kills:
            _kill_once(folder, dice, tally)
    finally:
        stop.set()
        tally.reads, tally.seen, tally.missing, tally.damaged = answer.recv()
        reader.join()
    return tally


def _kill_once(folder: Path, dice: random.Random, tally: Tally) -> None:
    production = Production(folder)
    before = (len(production.log.read()[0]), len(verdict_log(folder).read()[0]), len(read_answers(folder)))
    function, arguments = dice.choice(
        [
            (night, (folder, dice.randrange(26), True)),
            (night, (folder, dice.randrange(26), False)),
            (by_hand, (folder, dice.randrange(26))),
            (roll_back, (folder,)),
        ]
    )
    if function is roll_back and len(production.line()) < 2:
        return
    step = dice.randrange(1, _MOST_STEPS)
    if not Stepping(function, *arguments, at=step).is_killed():
        tally.ended_before += 1
        return
    tally.kills += 1
    what = f"{function.__name__} killed before step {step}"
    standing = production.standing()
    if standing.problem or not standing.digest:
        tally.problems.append(f"{what}: {standing.problem or 'no model'}")
    after = (len(production.history()), len(verdict_log(folder).read()[0]), len(read_answers(folder)))
    if any(now < then for now, then in zip(after, before, strict=True)):
        tally.problems.append(f"{what}: {before} entries became {after}")
    candidates = Candidates(folder.parent / "candidates")
    for digest in candidates.digests():
        candidates.find(digest)
    if Stepping(by_hand, folder, dice.randrange(26)).steps() == 0:
        tally.problems.append(f"{what}: the next change did nothing")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.promotion_kills", description="Kill promotions.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="regraft-promotions-") as folder:
        tally = run(Path(folder) / "models" / "production", arguments.kills, seed=arguments.seed)
    print(json.dumps(asdict(tally)))
    raise SystemExit(bool(tally.problems or tally.missing or tally.damaged))


if __name__ == "__main__":
    main()
