from collections.abc import Callable
from pathlib import Path

import pytest

from regraft.core.errors import InvalidData, MissingPhotos
from regraft.photos.folder import check_folder
from regraft.photos.manifest import find_files
from tasks.dvc_files import saying_what_to_pull

RAW = Path("data", "raw")
LOCKED = (
    "stages:\n  validate_data:\n    deps:\n    - path: data/raw\n      md5: 0.dir\n      size: 1\n      nfiles: 1\n"
)


@pytest.fixture(autouse=True)
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    RAW.parent.mkdir()
    return tmp_path


def words_of(act: Callable[[Path], object]) -> str:
    with pytest.raises(InvalidData) as error, saying_what_to_pull(RAW):
        act(RAW)
    return str(error.value)


def as_table_without_photos(raw: Path) -> None:
    raw.mkdir()
    (raw / "labels.csv").write_text("path,label\na.png,cat\n")


@pytest.mark.parametrize("record", [{"data/raw.dvc": "outs: []"}, {"dvc.lock": LOCKED}], ids=["raw.dvc", "dvc.lock"])
@pytest.mark.parametrize(
    "make", [lambda raw: None, Path.mkdir, as_table_without_photos], ids=["none", "empty", "table"]
)
def test_a_clone_that_has_not_pulled_its_photos_is_told_how(record, make):
    for name, text in record.items():
        Path(name).write_text(text)
    make(RAW)
    words = words_of(find_files)
    assert words.endswith("If this is a clone that has not pulled them yet: `dvc pull data/raw`.")


def test_where_dvc_knows_nothing_nothing_is_to_be_pulled():
    with pytest.raises(MissingPhotos, match="there is no data folder data/raw") as error, saying_what_to_pull(RAW):
        check_folder(RAW)
    assert "dvc pull" not in str(error.value)
