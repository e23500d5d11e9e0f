"""What is looked at in a model file: each look says what it found, or raises. `check_model` asks them one by one."""

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from regraft.core.errors import RegraftError, printable
from regraft.serving.golden import read_golden
from regraft.serving.model_folder import ModelFolder, named_digests
from regraft.serving.model_probe import probe
from regraft.serving.shipped_model import PHOTO_SECONDS, ShippedModel, check_answers, limited_run, start_session

_LARGEST = 2**31 - 1  # bytes: no ONNX file is longer, by the format that it is written in
_SAME = 1e-4  # of a probability, alone and in a batch: the same arithmetic, perhaps in another order
_INPUT = ("image", "tensor(uint8)", 4, [3])  # name, type, number of dimensions, the last one
_OUTPUTS = {"probabilities": 2, "features": 2, "novelty": 1}  # number of dimensions
_FACTS = ("novelty_above", "temperature", "preprocessing")  # what a file of today says of itself
_SIZES = [(240, 320), (1, 1), (7, 900)]  # height, width


class Missing(Exception):
    """What a file, or a folder, of an earlier version lacks."""


class _Loaded(ShippedModel):
    """A model that can be asked of whole batches."""

    def run(self, photos: np.ndarray) -> dict[str, np.ndarray]:
        """Return every output that Regraft knows, for photos of one size, uint8, shape (n, height, width, 3)."""
        names = [name for name in _OUTPUTS if name in self._outputs]
        with limited_run(PHOTO_SECONDS) as options:
            found = self.session.run(names, {"image": photos}, options)
        return dict(zip(names, map(np.asarray, found), strict=True))


class Look:
    """One look at a model: each method says what it found, or raises."""

    session: onnxruntime.InferenceSession
    model: _Loaded

    def __init__(self, found: ModelFolder) -> None:
        self.found = found
        self.contents = _read(found.model)
        self.digest = hashlib.sha256(self.contents).hexdigest()

    def sha256(self) -> str:
        """Are these the bytes that were put there?"""
        named, digest = named_digests(self.found), self.digest
        if not named:
            raise Missing(f"{digest}; nothing beside it says which it should be.")
        if digest not in named:
            should = " or ".join(f"{each[:12]}, as {who} says" for each, who in named.items())
            raise RegraftError(f"it is {digest[:12]}, and should be {should}. Take the file from where it was made.")
        return f"{digest}, as {named[digest]} says"

    def loads(self) -> str:
        """Can ONNX Runtime read it?"""
        probe(self.contents)
        began = time.perf_counter()
        self.session = start_session(self.contents)
        seconds = time.perf_counter() - began
        return f"ONNX Runtime {onnxruntime.__version__}, {len(self.contents) / 1e6:.1f} MB in {seconds:.2f} s"

    def contract(self) -> str:
        """Does it take photos, and give what clients ask for?"""
        inputs, outputs = self.session.get_inputs(), {node.name: node for node in self.session.get_outputs()}
        if [(node.name, node.type, len(node.shape), node.shape[-1:]) for node in inputs] != [_INPUT]:
            raise RegraftError(
                f"expected one input `image`, uint8, (batch, height, width, 3). Found: {_shown(inputs)}."
            )
        if "probabilities" not in outputs:
            raise RegraftError(f"expected an output `probabilities`. Found: {_shown([*outputs.values()])}.")
        for name, rank in _OUTPUTS.items():
            if name in outputs and (outputs[name].type, len(outputs[name].shape)) != ("tensor(float)", rank):
                raise RegraftError(
                    f"expected `{name}` as float32 of {rank} dimensions. Found: {_shown([outputs[name]])}."
                )
        if missing := [f"`{name}`" for name in _OUTPUTS if name not in outputs]:
            raise Missing(f"as of an earlier version, without {' and '.join(missing)}; the rest is as it should be.")
        return f"image, uint8, any size, to {_shown([*outputs.values()])}"

    def metadata(self) -> str:
        """Does it say what its answers mean?"""
        model = self.model = _Loaded(self.found.model, is_own=True)  # `loads` has tried it, and `answers` asks it
        if len(model.class_names) < 2:
            raise RegraftError(f"class_names should be two names or more, and is {printable(str(model.class_names))}.")
        made_by = printable(model.metadata.get("regraft_version", "of an unknown version"))
        promise = f"{model.promise}" if model.promise else "it answers every photo"
        words = f"{len(model.class_names)} classes, Regraft {made_by}; {promise}"
        if missing := [fact for fact in _FACTS if fact not in model.metadata]:
            raise Missing(f"{words}; it does not say {', '.join(missing)}")
        return words

    def answers(self) -> str:
        """Are its answers probabilities, of whatever sizes and batches?"""
        largest = 0.0
        for height, width in _SIZES:
            photos = np.arange(2 * height * width * 3, dtype=np.uint32).reshape(2, height, width, 3) // 7 % 256
            both = self.model.run(photos.astype(np.uint8))
            alone = self.model.run(photos[1:].astype(np.uint8))
            found = both["probabilities"]
            if len(found) != 2:
                raise RegraftError(f"of two photos it gives probabilities of shape {found.shape}.")
            if not all(np.isfinite(output).all() for output in both.values()):
                raise RegraftError(f"of a picture of {width} x {height} pixels it gives what is no number.")
            check_answers(found, both.get("novelty"), len(self.model.class_names))
            largest = max(largest, float(np.abs(found[1:] - alone["probabilities"]).max()))
        if largest > _SAME:
            raise RegraftError(f"a photo in a batch of two differs by {largest:.1e} from the same photo alone.")
        return f"{', '.join(f'{width} x {height}' for height, width in _SIZES)}; the same alone and in a batch"

    def golden(self) -> str:
        """Does it answer on this machine as it did where it was made?"""
        golden = read_golden(self.found.golden) if self.found.golden else None
        if golden is None:
            raise Missing("there is no golden.json beside the file. `regraft promote` writes one.")
        if golden.model != self.digest:
            raise RegraftError(
                f"golden.json is of another model ({printable(golden.model)[:12]}). In models/production, "
                f"`regraft promote` writes it again; elsewhere, copy model.onnx and golden.json together."
            )
        if golden.class_names != self.model.class_names:
            raise RegraftError("it names other classes than the file.")
        said = self.model.run(golden.photo[None])
        differences = [float(np.abs(said["probabilities"][0] - golden.probabilities).max())]
        if golden.novelty is not None:
            differences.append(abs(float(said["novelty"][0]) - golden.novelty))
        name, sure = golden.class_names[int(golden.probabilities.argmax())], golden.probabilities.max()
        words = f"{max(differences):.1e} from the expected answer ({printable(name)}, {sure:.4f})"
        if not max(differences) <= golden.tolerance:
            raise RegraftError(f"{words}; {golden.tolerance:.0e} is allowed. Its answers here are not to be trusted.")
        return f"{words}; {golden.tolerance:.0e} is allowed"


def _shown(nodes: list[Any]) -> str:
    return printable(", ".join(f"{node.name} {node.type} {node.shape}" for node in nodes)) or "none"


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise RegraftError(f"{printable(str(path))} is no regular file. Expected a model that Regraft exported.")
    if (size := path.stat().st_size) > _LARGEST:
        raise RegraftError(f"{printable(str(path))} has {size} bytes; no ONNX file has more than {_LARGEST}.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise RegraftError(f"{printable(str(path))} cannot be read ({error.strerror}). Make it readable.") from None
