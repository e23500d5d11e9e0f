"""What annotations of Label Studio, and answers that contradict each other, come to."""

import json
from pathlib import Path
from typing import Any

import pytest

from regraft.converters.exports import read_label_studio
from regraft.converters.listing import LeftOut, Wanted
from regraft.core.errors import InvalidData


def annotation(*labels: str, control: str = "choice", **facts: Any) -> dict[str, Any]:
    """One annotation; by default it says so many labels at once."""
    answer = {"type": "choices", "from_name": control, "value": {"choices": list(labels)}}
    return {"result": [answer], "was_cancelled": False, **facts}


def labels_of(path: Path, *annotations: dict[str, Any], label: str | None = None, **task: Any) -> tuple[list[str], str]:
    """The labels that a task comes to, and what is left out."""
    contents = [{"id": 7, "data": {"image": "https://host/a.jpg"}, "annotations": annotations, **task}]
    path.write_text(json.dumps(contents))
    left_out = LeftOut()
    found = [record.label for record in read_label_studio(path, Wanted(label), left_out)]
    return found, "; ".join(left_out.lines())


def test_annotations_that_disagree_are_named_and_left_out(tmp_path: Path) -> None:
    found = labels_of(tmp_path / "a.json", annotation("cat"), annotation("dog"))
    assert found == ([], "1 with several labels: task 7 (cat, dog)")


def test_a_ground_truth_decides_where_annotations_disagree(tmp_path: Path) -> None:
    assert labels_of(tmp_path / "a.json", annotation("cat"), annotation("dog", ground_truth=True))[0] == ["dog"]


def test_predictions_and_cancelled_annotations_are_no_labels(tmp_path: Path) -> None:
    predictions = [annotation("cat")]
    found = labels_of(tmp_path / "a.json", annotation("cat", was_cancelled=True), predictions=predictions)
    assert found == ([], "1 without a label: task 7")


def test_of_two_questions_the_one_to_use_must_be_named(tmp_path: Path) -> None:
    given = (annotation("cat", control="animal"), annotation("red", control="colour"))
    with pytest.raises(
        InvalidData, match=r"must have one choice. Received: animal, colour. Name the one .* --field label="
    ):
        labels_of(tmp_path / "a.json", *given)
    assert labels_of(tmp_path / "a.json", *given, label="colour")[0] == ["red"]


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("/data/local-files/?d=photos/a%20b.jpg", "photos/a b.jpg"),
        ("/data/upload/3/0f-a.jpg", "3/0f-a.jpg"),
        ("gs://bucket/a.jpg", "gs://bucket/a.jpg"),
    ],
)
def test_photos_of_the_server_are_named_relative_to_its_folders(image: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"data": {"image": image}, "annotations": [annotation("cat")]}]))
    assert [record.name for record in read_label_studio(path, Wanted(), LeftOut())] == [name]
