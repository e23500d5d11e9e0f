import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd

from regraft.core.files import read_json, sha256_of
from regraft.photos.base_record import BaseRecord, read_base_record, write_base_record
from regraft.photos.dataset import read_dataset, write_dataset
from regraft.training.network_file import read_network
from tasks.stage_inputs import StageInputs
from tasks.train_base import train_base
from tests.support.pipeline import ROOT
from tests.support.small_project import changed, empty_store, quiet

BASE, RECORD, RAW = Path("models", "base.npz"), Path("build", "base_photos.parquet"), Path("data", "raw")


def _record() -> BaseRecord:
    return read_base_record(RECORD, RAW)


def _reason() -> str:
    return read_json(Path("reports", "base_training.json"))["reason"]


def test_it_is_a_function_of_its_record_even_where_photos_have_other_names_by_now(project, small_params):
    before, photo = sha256_of(BASE), _record().photos.photos()[0]
    (RAW / photo.path).rename(RAW / "renamed.png")
    empty_store(project)
    dataset = read_dataset(Path("build", "dataset.parquet"), RAW)
    rows = dataset.rows.assign(path=dataset.rows.path.replace(photo.path, "renamed.png"))
    write_dataset(Path("build", "dataset.parquet"), dataset.with_rows(rows))
    # Settings of today decide nothing: those of the record do.
    train_base.function(changed(small_params, fine_tune={"epochs": 7}), quiet)
    assert sha256_of(BASE) == before
    assert _reason() == f"The base was trained on {len(_record().photos.of('train')):,} photos for 2 epochs."
    assert len(pd.read_csv(Path("reports", "base_curve.csv"))) == 3


def test_it_trains_the_same_from_a_store_outside_the_project(project, small_params, tmp_path):
    before, store = sha256_of(BASE), tmp_path / "store"
    (project / "build" / "store").rename(store)
    paths = small_params.paths.model_copy(update={"store": store})  # as `load_project` finds REGRAFT_STORE
    train_base.function(small_params.model_copy(update={"paths": paths}), quiet)
    assert sha256_of(BASE) == before


def test_a_photo_that_is_nowhere_any_more_is_left_out(project, small_params):
    photos, gone = _record().photos, _record().photos.photos()[0]
    (RAW / gone.path).unlink()

    def there(layers: str) -> int:
        params = changed(small_params, fine_tune={"layers": layers})
        return len(StageInputs(params, quiet).available(photos))

    # Activations stay in the store after the file is gone; pixels of course do not.
    assert (there("top"), there("all")) == (len(photos), len(photos) - 1)
    for namespace in (project / "build" / "store").glob("activations*"):
        shutil.rmtree(namespace)
    assert there("top") == len(photos) - 1


def test_where_hardly_any_photo_is_left_there_is_no_base_and_no_error(project, small_params):
    record = _record()
    rows = record.photos.rows.assign(digest=[f"{number:064x}" for number in range(len(record.photos))])
    write_base_record(RECORD, BaseRecord(record.photos.with_rows(rows), record.settings, record.code))
    train_base.function(small_params, quiet)
    assert _reason().startswith(f"There is no base: {len(rows)} of the {len(rows)} photos of its record are neither in")
    assert read_network(BASE).trained == "head"


def test_it_may_take_too_long(project, small_params):
    record = _record()
    settings = {**record.settings, "fine_tune": {**record.settings["fine_tune"], "mode": "auto", "max_minutes": 1e-6}}
    write_base_record(RECORD, BaseRecord(record.photos, settings, record.code))
    train_base.function(small_params, quiet)
    assert "fine_tune.max_minutes is 1e-06" in _reason()
    assert read_network(BASE).trained == "head"
    assert pd.read_csv(Path("reports", "base_curve.csv")).empty


def test_without_fine_tuning_neither_stage_imports_a_framework(project, small_params):
    script = (
        "import json, sys; from regraft.core.config import Params; from tests.support.small_project import quiet;"
        "from tasks.choose_base import choose_base; from tasks.train_base import train_base;"
        "params = Params.model_validate(json.loads(sys.argv[1]));"
        "[stage.function(params, quiet) for stage in (choose_base, train_base)];"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    off = changed(small_params, fine_tune={"mode": "off"}).model_dump_json()
    subprocess.run([sys.executable, "-c", script, off], env={"PYTHONPATH": str(ROOT)}, check=True)
    assert _reason() == "Fine-tuning is off, so there is no base."
