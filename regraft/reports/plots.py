"""Pictures for people, each from figures that are also written as CSV or JSON."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from regraft.files import replacing
from regraft.photos.dataset import Dataset, Photo
from regraft.photos.preparation import Preparation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from regraft.training.keras_models import Epoch

_BLUE, _ORANGE, _GREY = "#1f6feb", "#d9730d", "#57606a"
_THUMBNAIL = 112  # pixels
_PER_CLASS, _MAX_CLASSES = 8, 30  # of the contact sheet


def class_balance_chart(path: Path, images_per_class: dict[str, int]) -> None:
    """Draw the number of usable images per class as bars, the largest class first."""
    names = sorted(images_per_class, key=lambda name: -images_per_class[name])
    figure = _figure(7, 1.0 + 0.28 * max(1, len(names)))
    axes = figure.subplots()
    bars = axes.barh(range(len(names)), [images_per_class[name] for name in names], color=_BLUE)
    axes.set_yticks(range(len(names)), [_short(name) for name in names])  # two long names may look the same
    axes.bar_label(bars, padding=3, color=_GREY)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("images that can be used")
    _save(figure, path)


def image_statistics_chart(
    path: Path, now: pd.DataFrame, former: pd.DataFrame | None, limits: dict[str, tuple[float | None, float | None]]
) -> None:
    """Draw how the used photos are distributed, one histogram per statistic, with the limits that photos should keep.

    Args:
        path: of the PNG.
        now: rows with the columns that `limits` names.
        former: the same of the photos that the model in production was trained on; None: there are none.
        limits: lowest and highest value by column; None where there is no such limit.
    """
    figure = _figure(8, 4.2)
    for axes, (name, (low, high)) in zip(figure.subplots(2, 3).flat, limits.items(), strict=False):
        values = now[name].dropna()
        before = former[name].dropna() if former is not None else values.iloc[:0]
        both = pd.concat([values, before])
        if both.empty:
            continue
        # What ranges over powers of ten is drawn on a logarithmic scale.
        lowest, highest = both.min(), both.max()
        is_wide = lowest > 0 and highest / lowest > 100
        margin = 0.1 * abs(lowest) + 0.1 if lowest == highest else 0  # photos of one size are one bar in the middle
        bins = (np.geomspace if is_wide else np.linspace)(lowest - margin, highest + margin, 31)
        axes.hist(values, bins=bins, weights=np.full(len(values), 1 / max(1, len(values))), color=_BLUE, label="now")
        if len(before):
            weights = np.full(len(before), 1 / len(before))
            axes.hist(before, bins=bins, weights=weights, histtype="step", color=_GREY, label="in production")
        for limit in (low, high):
            if limit is not None and both.min() <= limit <= both.max():
                axes.axvline(limit, color=_ORANGE, linestyle="--")
        axes.set_xscale("log" if is_wide else "linear")
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.set_yticks([])
    if former is not None:
        figure.axes[0].legend(frameon=False, fontsize=8)
    _save(figure, path)


def write_curve(path: Path, curve: "list[Epoch]", best: "Epoch | None", *, title: str) -> None:
    """Write a learning curve as CSV, and as a picture beside it; a phase that was off has an empty one."""
    columns = ["epoch", "train_loss", "val_log_loss", "val_accuracy"]
    table = pd.DataFrame([epoch.as_row() for epoch in curve], columns=columns)
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)
    figure = _figure(7, 3.2)
    left, right = figure.subplots(1, 2)
    left.plot(table.epoch, table.train_loss, color=_GREY, label="train, as it is minimized")
    left.plot(table.epoch, table.val_log_loss, color=_BLUE, label="val")
    left.set(xlabel="epoch", ylabel="cross-entropy")
    right.plot(table.epoch, table.val_accuracy, color=_BLUE)
    right.set(xlabel="epoch", ylabel="accuracy")
    if best is None:
        for axes in (left, right):
            axes.text(0.5, 0.5, "not run", ha="center", transform=axes.transAxes)
            axes.set(xticks=[], yticks=[])
    else:
        left.plot(best.epoch, best.val.log_loss, "o", color=_ORANGE)
        right.plot(best.epoch, best.val.accuracy, "o", color=_ORANGE, label=f"kept: epoch {best.epoch}")
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title)
    _save(figure, path.with_suffix(".png"))


def write_confusion(path: Path, test: Dataset, probabilities: np.ndarray) -> None:
    """Write the confusion matrix as CSV: a row per true class, a column per predicted one."""
    from sklearn.metrics import confusion_matrix

    labels = range(len(test.class_names))
    matrix = confusion_matrix(test.rows.class_index, probabilities.argmax(axis=1), labels=labels)
    with replacing(path) as temporary:
        pd.DataFrame(matrix, index=test.class_names, columns=test.class_names).to_csv(temporary, index_label="actual")


def confusion_chart(csv: Path, path: Path) -> None:
    """Draw what `write_confusion` wrote: colours are shares of the true class, numbers are images."""
    table = pd.read_csv(csv, index_col="actual", keep_default_na=False)
    matrix = table.to_numpy()
    size = 2.2 + 0.42 * len(matrix)
    figure = _figure(size + 0.8, size)
    axes = figure.subplots()
    axes.imshow(matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True)), cmap="Blues", vmin=0, vmax=1)
    names = [_short(str(name)) for name in table.columns]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="actual")
    if len(matrix) <= 30:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            dark = matrix[row, column] > 0.5 * matrix[row].sum()
            axes.text(
                column, row, str(matrix[row, column]), ha="center", va="center", color="white" if dark else "black"
            )
    _save(figure, path)


def contact_sheet(
    path: Path, dataset: Dataset, preparation: Preparation, *, on_progress: Callable[[int, int], None]
) -> None:
    """Draw a few training images of each class as the network is given them, a row per class."""
    train = dataset.of("train").rows
    first = train[train.class_index < _MAX_CLASSES].groupby("class_index").head(_PER_CLASS)
    photos = dataset.with_rows(first.sort_values("class_index", kind="stable")).photos()
    tiles: dict[str, list[tuple[np.ndarray, str]]] = {}
    for done, photo in enumerate(photos, start=1):
        line = tiles.setdefault(photo.class_name, [])
        line.append((preparation(dataset.read_photo(photo)), "" if line else photo.class_name))
        on_progress(done, len(photos))
    _save_sheet(path, list(tiles.values()))


def mistakes_sheet(path: Path, test: Dataset, probabilities: np.ndarray, *, count: int) -> None:
    """Draw the test images that the model is most confidently wrong about, with what it said and what is right."""
    photos = test.photos()
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != test.rows.class_index.to_numpy())
    wrong = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:count]
    said = [f"{test.class_names[predicted[index]]} {probabilities[index].max():.0%}" for index in wrong]
    _save_photos(path, test, [photos[index] for index in wrong], said)


def label_errors_sheet(path: Path, dataset: Dataset, errors: pd.DataFrame) -> None:
    """Draw images whose label is likely wrong, with what they look like and what they are called.

    Args:
        path: of the picture.
        dataset: all images.
        errors: those to draw: columns row (of the data set) and suggested (a class name).
    """
    chosen = dataset.with_rows(dataset.rows.iloc[errors.row.to_numpy()])
    _save_photos(path, dataset, chosen.photos(), [f"{name}?" for name in errors.suggested])


def _save_photos(path: Path, dataset: Dataset, photos: list[Photo], said: list[str]) -> None:
    """Save thumbnails of photos as one picture, each under what is said of it and its label."""
    thumbnail = Preparation(_THUMBNAIL, 1.0)
    tiles = [
        (thumbnail(dataset.read_photo(photo)), f"{words}\nis {photo.class_name}")
        for photo, words in zip(photos, said, strict=True)
    ]
    _save_sheet(path, [tiles[start : start + _PER_CLASS] for start in range(0, len(tiles), _PER_CLASS)])


def _save_sheet(path: Path, lines: list[list[tuple[np.ndarray, str]]]) -> None:
    """Save rows of captioned thumbnails as one picture."""
    caption, gap = 34, 6
    font = _font(12)
    height = max(1, len(lines)) * (_THUMBNAIL + caption + gap)
    sheet = Image.new("RGB", (_PER_CLASS * (_THUMBNAIL + gap), height), "white")
    draw = ImageDraw.Draw(sheet)
    for line, tiles in enumerate(lines):
        for column, (pixels, text) in enumerate(tiles):
            x, y = column * (_THUMBNAIL + gap), line * (_THUMBNAIL + caption + gap)
            draw.multiline_text(
                (x + 2, y + 2), "\n".join(_cut(part, 17) for part in text.split("\n")), fill="black", font=font
            )
            sheet.paste(Image.fromarray(pixels).resize((_THUMBNAIL, _THUMBNAIL)), (x, y + caption))
    if not lines:
        draw.text((4, 4), "none", fill="black", font=font)
    with replacing(path) as temporary:
        sheet.save(temporary)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure((width, height), layout="constrained", dpi=110)


def _save(figure: "Figure", path: Path, **options: Any) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, **options)


def _font(size: int) -> ImageFont.FreeTypeFont:
    # matplotlib's DejaVu Sans has the letters of most alphabets; Pillow's own font has Latin ones only.
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _short(name: str) -> str:
    """A class name as a label of matplotlib, where a dollar sign would start a formula."""
    return _cut(name, 24).replace("$", r"\$")
