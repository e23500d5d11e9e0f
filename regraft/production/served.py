"""models/production as a Triton model repository: a view of the model in production, made from it and from the log.

    models/production/regraft/
        config.pbtxt, labels.txt            as `regraft.serving.triton` writes them
        <version>/model.onnx                the model; the version is its line in log.jsonl, or a higher number
        <version>/model.onnx.sha256         as `sha256sum --check` reads it
        <version>/golden.png, golden.json   a photo with the answer that the file must give (`regraft.serving.golden`)
        <version>/model_card.md             what the model is for, where that is known

Triton looks at this folder at any moment, so a version appears whole, by one rename, and the files beside it are
replaced at once. What a kill left out, the next command does: `bring_up_to_date` looks at what is there. The version
before stays for a server that is just loading it. Nothing else reads this folder: model.onnx, the log and versions/ are
as if it were not there.
"""

import shutil
from pathlib import Path

import numpy as np

from regraft.errors import InputsChanged, RegraftError
from regraft.files import write_bytes, write_text
from regraft.production.exclusive import exclusive, repeated
from regraft.production.records import read_digest
from regraft.production.registry import Production, copy_sound
from regraft.serving.golden import Golden, draw, read_golden, write_golden
from regraft.serving.model_folder import CHECKSUM
from regraft.serving.shipped_model import ShippedModel, run_session, start_session
from regraft.serving.triton import CONFIG, LABELS, MODEL, NAME, config_of, labels_of, versions_in

CARD = "model_card.md"
_KEPT = 2  # versions: the one that is served, and the one before
_LEAST, _MOST = 1e-4, 1e-2  # tolerance of a golden answer


@repeated
def bring_up_to_date(production: Production, card: Path | None = None, *, pictures: int = 8) -> int | None:
    """Let the highest version be the model in production.

    Args:
        production: the folder; where it holds no sound model, nothing is done.
        card: model card; it counts only if it names the model's SHA-256.
        pictures: so many are drawn, and the one that the model is least sure of is the golden photo.

    Returns:
        The version that was written; None if all was as it should be.

    Raises:
        RegraftError: the model in production is none that Regraft exported, or there is no room. What was served before
            is served on.
    """
    with exclusive(production.folder, "writing the Triton repository", patience=production.patience):
        digest = production.standing().digest
        if digest is None:
            return None
        making, served = production.folder / ".next-version", production.folder / NAME
        if making.exists():  # of a killed process: whoever writes here has the lock
            shutil.rmtree(making)
        model = _Model(production.model)
        if model.digest != digest:
            raise InputsChanged(f"{production.model} changed while it was looked at. Run the same command again.")
        newest = (versions_in(served) or [0])[-1]
        if newest and _is_whole(served / str(newest), digest):
            _write_around(served, model)
            _add_card(served / str(newest), card, digest)
            _remove_old(served, production.folder)
            return None
        changes, damaged = production.log.read()
        version = max(len(changes) + damaged, newest + 1)
        _make(making / str(version), model, production, card, pictures)
        if served.exists():
            _write_around(served, model)
            (making / str(version)).rename(served / str(version))
            making.rmdir()
        else:
            _write_around(making, model)
            making.rename(served)
        _remove_old(served, production.folder)
        return version


class _Model(ShippedModel):
    """A model, and its answers in another order of arithmetic."""

    def config(self) -> str:
        """Return config.pbtxt."""
        return config_of(self.session.get_inputs(), self.session.get_outputs())

    def golden(self, pictures: int) -> Golden:
        """Return the drawn picture that the model is least sure of, with its answer.

        A different machine fuses and adds up in another order. How far that may lead shows here, where the same graph
        runs as it is written: ten times that is the tolerance.
        """
        photos = [draw(seed) for seed in range(pictures)]
        answers = [self.ask(photo) for photo in photos]
        chosen = int(np.argmin([answer.probabilities.max() for answer in answers]))
        photo, answer = photos[chosen], answers[chosen]
        (other,) = run_session(start_session(self.contents, is_optimised=False), photo, ["probabilities"])
        tolerance = 10 * float(np.abs(other - answer.probabilities).max())
        tolerance = float(f"{min(_MOST, max(_LEAST, tolerance)):.1g}")
        return Golden(self.digest, photo, self.class_names, answer.probabilities, answer.novelty, tolerance)


def _is_whole(folder: Path, digest: str) -> bool:
    """Whether a version is that of a model, with all that belongs to it."""
    if read_digest(folder / MODEL)[0] != digest or not (folder / CHECKSUM).is_file():
        return False
    return _golden_of(folder, digest) is not None


def _golden_of(folder: Path, digest: str) -> Golden | None:
    try:
        golden = read_golden(folder)
    except RegraftError:
        return None
    return golden if golden and golden.model == digest else None


def _make(folder: Path, model: _Model, production: Production, card: Path | None, pictures: int) -> None:
    """Write a version where nobody looks."""
    folder.mkdir(parents=True)
    copy_sound(production.model, folder / MODEL, model.digest)
    write_text(folder / CHECKSUM, f"{model.digest}  {MODEL}\n")
    before = _version_of(production.folder / NAME, model.digest)  # after a rollback
    golden = _golden_of(before, model.digest) if before else None
    write_golden(folder, golden or model.golden(pictures))
    for each in (card, before and before / CARD):
        _add_card(folder, each, model.digest)


def _version_of(served: Path, digest: str) -> Path | None:
    """Return the folder of a version of a model; None where there is none."""
    folders = [served / str(version) for version in reversed(versions_in(served))]
    return next((folder for folder in folders if read_digest(folder / MODEL)[0] == digest), None)


def _add_card(folder: Path, card: Path | None, digest: str) -> None:
    """Put a model card into a version, unless there is one, or it is of another model."""
    if card is None or (folder / CARD).exists() or not card.is_file():
        return
    contents = card.read_bytes()
    if digest.encode() in contents:
        write_bytes(folder / CARD, contents)


def _write_around(served: Path, model: _Model) -> None:
    """Write what stands beside the versions, if it is not so already: a new time would let Triton load them again."""
    for name, text in ((LABELS, labels_of(model.class_names)), (CONFIG, model.config())):
        path = served / name
        if not path.is_file() or path.read_bytes() != text.encode():
            write_text(path, text)


def _remove_old(served: Path, folder: Path) -> None:
    """Remove all versions of ours but the newest; each goes at once."""
    for version in versions_in(served)[:-_KEPT]:
        old = served / str(version)
        if (old / CHECKSUM).is_file():  # else it is nothing that Regraft put there
            going = folder / ".next-version"
            old.rename(going)
            shutil.rmtree(going)
