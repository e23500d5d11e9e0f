# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
"""Make the exports that the tests of regraft.converters read, each by the library of the tool that writes such files.

    python tests/data/converters/make_exports.py WHAT [FOLDER] [PICTURES]

WHAT is a key of `EXPORTS`, PICTURES a folder {train,test}/<class>/*.jpg in place of the one here. The libraries are no
dependencies of Regraft and exclude each other, so each export is made in an environment of its own. Versions that the
stored files were made with, with Python 3.11:

    pictures      numpy, Pillow
    huggingface   datasets 5.2.0
    webdataset    webdataset 1.0.2
    coco, imagenet            datumaro 1.13.12
    labelstudio   label-studio 1.23.2: its own server, at LABEL_STUDIO_URL with the token LABEL_STUDIO_TOKEN; what it
                  calls the pictures begins with LABEL_STUDIO_PHOTOS, s3://fruit/ by default
"""

import json
import os
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PICTURES = Path(sys.argv[3]) if len(sys.argv) > 3 else HERE / "pictures"
COLOURS = {"apple": (200, 40, 40), "pear": (120, 180, 50), "plum": (90, 40, 130)}


def pictures(folder: Path) -> None:
    """Draw a dozen JPEG files of 24 x 24 pixels: three classes, nine for training and three for test."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(20261124)
    for name, colour in COLOURS.items():
        for number in range(4):
            path = folder / ("test" if number == 3 else "train") / name / f"{name}-{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.clip(random.normal(colour, 25, size=(4, 4, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).resize((24, 24), Image.Resampling.NEAREST).save(path, quality=50)


def huggingface(folder: Path) -> None:
    """Write data/<split>-00000-of-00001.parquet, as on the hub."""
    from datasets import load_dataset
    from datasets.table import embed_table_storage

    for split, rows in load_dataset("imagefolder", data_dir=str(PICTURES)).items():
        (folder / "data").mkdir(parents=True, exist_ok=True)
        # What push_to_hub does before it writes: the bytes of the files go into the table.
        rows = rows.with_format("arrow").map(embed_table_storage, batched=True).with_format(None)
        rows.to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))


def webdataset(folder: Path) -> None:
    """Write <split>-000000.tar, with the name of the class as text and once more in JSON."""
    import webdataset as wds

    for split in ("train", "test"):
        folder.mkdir(parents=True, exist_ok=True)
        with wds.TarWriter(str(folder / f"fruit-{split}-000000.tar"), mtime=0) as tar:
            for path in _paths(split):
                facts = {"label": path.parent.name, "tree": path.stem[-1]}
                tar.write({"__key__": path.stem, "jpg": path.read_bytes(), "cls": path.parent.name, "json": facts})


def _datumaro(folder: Path, form: str) -> None:
    from datumaro.components.annotation import AnnotationType, Label, LabelCategories
    from datumaro.components.dataset import Dataset
    from datumaro.components.dataset_base import DatasetItem
    from datumaro.components.media import Image

    names = _names()
    items = [
        DatasetItem(
            id=path.stem,
            subset=split,
            media=Image.from_file(path=str(path)),
            annotations=[Label(names.index(path.parent.name))],
        )
        for split in ("train", "test")
        for path in _paths(split)
    ]
    dataset = Dataset.from_iterable(items, categories={AnnotationType.label: LabelCategories.from_iterable(names)})
    dataset.export(str(folder), form, save_media=True)


def labelstudio(folder: Path) -> None:
    """Label the pictures at a running server, as addresses in a bucket, and export them as JSON and as JSON-MIN."""
    choices = "".join(f'<Choice value="{name}"/>' for name in _names())
    choices = f'<Choices name="choice" toName="photo">{choices}</Choices>'
    interface = f'<View><Image name="photo" value="$image"/>{choices}</View>'
    project = _ask("/api/projects", {"title": "fruit", "label_config": interface})["id"]
    start = os.environ.get("LABEL_STUDIO_PHOTOS", "s3://fruit/")
    tasks = [
        {"data": {"image": f"{start}{path.relative_to(PICTURES).as_posix()}", "split": split}}
        for split in ("train", "test")
        for path in _paths(split)
    ]
    _ask(f"/api/projects/{project}/import", tasks)
    for task in _ask(f"/api/tasks?project={project}&page_size=5000&fields=all")["tasks"]:
        label = task["data"]["image"].split("/")[-2]
        _annotate(task["id"], label)
        _annotate(task["id"], _names()[0], was_cancelled=True)
    folder.mkdir(parents=True, exist_ok=True)
    exported = _ask(f"/api/projects/{project}/export?exportType=JSON&download_all_tasks=true")
    (folder / "tasks.json").write_text(json.dumps(exported, indent=1))


def _annotate(task: int, label: str, **facts: bool) -> None:
    answer = {"from_name": "choice", "to_name": "photo", "type": "choices", "value": {"choices": [label]}}
    _ask(f"/api/tasks/{task}/annotations", {"result": [answer], **facts})


def _ask(path: str, body: object = None) -> Any:
    request = urllib.request.Request(
        os.environ["LABEL_STUDIO_URL"] + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Token {os.environ['LABEL_STUDIO_TOKEN']}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def _paths(split: str) -> list[Path]:
    return sorted((PICTURES / split).glob("*/*.jpg"))


def _names() -> list[str]:
    return sorted({path.name for path in PICTURES.glob("*/*")})


EXPORTS: dict[str, Callable[[Path], None]] = {
    "pictures": pictures,
    "huggingface": huggingface,
    "webdataset": webdataset,
    "coco": lambda folder: _datumaro(folder, "coco_labels"),
    "imagenet": lambda folder: _datumaro(folder, "imagenet_with_subset_dirs"),
    "labelstudio": labelstudio,
}


def main() -> None:
    """The command line."""
    what = sys.argv[1]
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else HERE / what
    with tempfile.TemporaryDirectory() as temporary:  # some of these libraries refuse a folder that is there
        EXPORTS[what](Path(temporary, what))
        shutil.copytree(Path(temporary, what), folder, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
