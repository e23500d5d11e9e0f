import pytest
from small_project import quiet, write_photos

from regraft.dataset import read_dataset
from regraft.errors import InvalidData
from regraft.files import read_json
from tasks.preprocess import preprocess
from tasks.validate_data import validate_data


def test_an_image_keeps_its_split_when_images_are_added_and_renamed(project, small_params):
    before = read_dataset(project / "build" / "dataset.parquet").rows.set_index("digest").split
    for photo in list((project / "data" / "raw" / "red").iterdir()):
        photo.rename(photo.with_name(f"renamed {photo.name}"))
    write_photos(project / "data" / "raw", per_class=4, seed=2)
    validate_data.function(small_params, quiet)
    preprocess.function(small_params, quiet)
    after = read_dataset(project / "build" / "dataset.parquet").rows.set_index("digest").split
    assert len(after) == len(before) + 12
    assert (after[before.index] == before).all()


def test_the_report_counts_every_image_once(project):
    report = read_json(project / "reports" / "dataset.json")
    assert sum(report["splits"].values()) == report["images"] == 72


def test_a_class_without_an_image_in_some_split_stops_with_its_counts(project, small_params):
    for photo in sorted((project / "data" / "raw" / "red").iterdir())[1:]:
        photo.unlink()
    single = small_params.model_copy(
        update={"validate_data": small_params.validate_data.model_copy(update={"min_images_per_class": 1})}
    )
    validate_data.function(single, quiet)
    with pytest.raises(InvalidData, match=r"'red' has 1 image\(s\): .* train, .* val, .* test"):
        preprocess.function(single, quiet)
