"""How accurate a shipped file stays on worse photos: the same test photos in every kind and severity of damage.

All severities see the same photos, so what a damage costs is a paired difference, which few photos tell well.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import PIL
from PIL import Image

from regraft.core.csv_files import write_csv
from regraft.core.files import fingerprint
from regraft.core.statistics import Interval, tango_interval
from regraft.export.evaluation import share_right
from regraft.photos.corruptions import KINDS, SEVERITIES, Draw, corrupt
from regraft.photos.dataset import Dataset, Photo
from regraft.photos.groups import first_of_each, independent_images
from regraft.photos.images import Threads
from regraft.serving.shipped_model import ShippedModel

UNDAMAGED = "none"
_CONDITIONS = [(UNDAMAGED, 0), *((kind, severity) for kind in KINDS for severity in range(1, SEVERITIES + 1))]
_RAW = len(_CONDITIONS)  # after these, the photo as it is in its file
_VERSION = 1  # of what is measured; another one makes figures of before count no more


@dataclass(frozen=True, slots=True)
class Row:
    """What a file makes of one severity of one kind of damage; all shares are 0 to 1."""

    kind: str  # a name in `KINDS`, or `UNDAMAGED`
    severity: int
    level: float | None  # in the unit of the kind
    accuracy: float  # share named rightly, whatever the probability
    low: float  # ends of its 95 % interval
    high: float
    loss: float  # accuracy without damage less this one
    loss_low: float  # ends of the 95 % interval of that difference, paired
    loss_high: float
    answered: float  # share of photos of which the file does not say that it is unsure
    precision: float | None  # share named rightly of those; None where none is answered
    novel: float | None  # share that the file calls novel; None of a file that cannot


def about(photos: Dataset, groups: np.ndarray, side: int) -> dict[str, Any]:
    """Return what figures of a file depend on besides the file: equal facts need no second measurement."""
    rows = photos.rows
    shown = [rows.digest.tolist(), rows.class_index.tolist(), groups.tolist(), photos.class_names, side]
    conditions = [[kind, *found.levels] for kind, found in KINDS.items()]
    versions = {"onnxruntime": onnxruntime.__version__, "pillow": PIL.__version__}
    return {"photos": fingerprint(shown), "damage": fingerprint([_VERSION, conditions]), **versions}


def measure(
    model: ShippedModel, photos: Dataset, groups: np.ndarray, *, side: int, threads: Threads
) -> tuple[list[Row], float]:
    """Ask a file about photos in every condition.

    Args:
        model: the shipped file.
        photos: test photos.
        groups: from `groups_of`, shape (n,).
        side: pixels of a photo's shorter side, at most: larger ones are reduced first, in all conditions alike, since
            a damaged photo of 12 megapixels would be measured for a minute.
        threads: that decode, damage and run; told how many photos are done and to do.

    Returns:
        The rows, the undamaged photos first, and the share of photos that get the same class without damage as they get
        from their files.
    """
    chosen = photos.photos()

    def asked(photo: Photo) -> np.ndarray:
        with photos.opened(photo) as rgb:
            return np.stack([_ask(model, picture) for picture in _pictures(rgb, photo, side)])

    said = np.stack(list(_counted(threads, asked, chosen)))  # float64, shape (n, conditions + 1, 3)
    right = said[:, :, 0] == photos.rows.class_index.to_numpy()[:, None]
    rows = [_row(model, condition, right, said, groups) for condition in range(len(_CONDITIONS))]
    return rows, float(np.mean(said[:, 0, 0] == said[:, _RAW, 0]))


def write_rows(path: Path, rows: Mapping[str, list[dict[str, Any]]]) -> None:
    """Write the rows of reports of files, by their names, as CSV."""
    table = [{"file": name, **row} for name, of_file in rows.items() for row in of_file]
    write_csv(path, pd.DataFrame(table, columns=["file", *(field.name for field in fields(Row))]).round(4))


def _pictures(rgb: np.ndarray, photo: Photo, side: int) -> Iterator[np.ndarray]:
    """Yield a photo in each condition, and as it is."""
    small, draw = reduced(rgb, side), Draw.of(photo.digest)
    for kind, severity in _CONDITIONS:
        yield corrupt(small, kind, severity, draw)
    yield rgb


def reduced(rgb: np.ndarray, side: int) -> np.ndarray:
    """Return a photo whose shorter side has at most so many pixels; a smaller one as it is."""
    height, width = rgb.shape[:2]
    if min(height, width) <= side:
        return rgb
    scale = side / min(height, width)
    size = max(side, round(width * scale)), max(side, round(height * scale))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))


def _ask(model: ShippedModel, picture: np.ndarray) -> tuple[float, float, float]:
    """Return the predicted class index, its probability, and the novelty or NaN."""
    answer = model.ask(picture)
    predicted = int(answer.probabilities.argmax())
    novelty = float("nan") if answer.novelty is None else answer.novelty
    return predicted, float(answer.probabilities[predicted]), novelty


def _row(model: ShippedModel, condition: int, right: np.ndarray, said: np.ndarray, groups: np.ndarray) -> Row:
    kind, severity = _CONDITIONS[condition]
    before, now, probability, novelty = right[:, 0], right[:, condition], said[:, condition, 1], said[:, condition, 2]
    accuracy, counted = share_right(now, groups), first_of_each(groups)
    only_before, only_now = (before & ~now)[counted], (~before & now)[counted]
    loss = tango_interval(int(only_now.sum()), int(only_before.sum()), int(counted.sum()))
    loss = loss if severity else Interval(0.0, 0.0, 0.0)
    answered = probability >= (model.promise.abstain_below if model.promise else 0)
    novel = (
        None if model.novel_above is None or np.isnan(novelty).any() else float(np.mean(novelty > model.novel_above))
    )
    return Row(
        kind,
        severity,
        KINDS[kind].levels[severity - 1] if severity else None,
        accuracy.value,
        accuracy.low,
        accuracy.high,
        loss.value,
        loss.low,
        loss.high,
        float(answered.mean()),
        float(now[answered].mean()) if answered.any() else None,
        novel,
    )


def as_report(rows: list[Row], photos: Dataset, groups: np.ndarray, *, same_as_raw: float, side: int) -> dict[str, Any]:
    """Return the figures of one file for reports/robustness.json."""
    return {
        "images": len(photos),
        "independent_images": independent_images(groups),
        "shorter_side": side,
        "same_as_raw": same_as_raw,
        "rows": [asdict(row) for row in rows],
    }


def _counted(threads: Threads, run: Callable[[Photo], np.ndarray], photos: list[Photo]) -> Iterator[np.ndarray]:
    for done, said in enumerate(threads.map(run, photos), 1):
        threads.on_progress(done, len(photos))
        yield said
