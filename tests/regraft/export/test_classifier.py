import re

import numpy as np
import onnx
import pytest

from regraft.errors import RegraftError
from regraft.export.classifier import OnnxClassifier
from regraft.photos.dataset import read_photo
from regraft.photos.manifest import build_manifest
from regraft.photos.splitting import build_dataset


def test_class_names_come_from_the_file(colour_classifier):
    assert colour_classifier(["rot", "grün", "blå"]).class_names == ["rot", "grün", "blå"]


@pytest.mark.parametrize(("colour", "expected"), [((255, 0, 0), 0), ((0, 255, 0), 1), ((0, 0, 255), 2)])
def test_a_photo_of_any_size_gets_one_probability_per_class(colour_classifier, colour, expected):
    probabilities = colour_classifier(["red", "green", "blue"]).probabilities(np.full((7, 13, 3), colour, np.uint8))
    # softmax of (1, 0, 0), in some order
    assert probabilities == pytest.approx(np.where(np.arange(3) == expected, np.e, 1) / (np.e + 2))


def test_a_data_set_is_read_in_its_own_order(colour_classifier, dataset, raw):
    classifier = colour_classifier(["red", "green", "blue"])
    together = classifier.probabilities_of(dataset, raw, kept=None, workers=2, on_progress=lambda *_: None)
    one_by_one = [classifier.probabilities(read_photo(raw, photo)) for photo in dataset.photos()]
    assert np.array_equal(together, one_by_one)


def test_progress_counts_every_photo(colour_classifier, dataset, raw):
    calls = []
    classifier = colour_classifier(["red", "green", "blue"])
    classifier.probabilities_of(
        dataset.head(3), raw, kept=None, workers=1, on_progress=lambda *call: calls.append(call)
    )
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_a_missing_file_is_named_with_what_to_run(tmp_path):
    with pytest.raises(RegraftError, match=r"model\.onnx does not exist\. Run the pipeline first: `make retrain`"):
        OnnxClassifier(tmp_path / "model.onnx")


@pytest.mark.parametrize("contents", [b"", b"no model", bytes(1000)])
def test_a_file_that_is_no_model_is_refused_by_name(tmp_path, contents):
    (tmp_path / "model.onnx").write_bytes(contents)
    with pytest.raises(RegraftError, match=r"model\.onnx is not a model exported by Regraft .*Export it again"):
        OnnxClassifier(tmp_path / "model.onnx")


def test_a_truncated_model_is_refused_by_name(tmp_path, colour_model):
    contents = colour_model(["a", "b", "c"]).SerializeToString()
    (tmp_path / "model.onnx").write_bytes(contents[: len(contents) // 2])
    with pytest.raises(RegraftError, match=r"model\.onnx is not a model exported by Regraft"):
        OnnxClassifier(tmp_path / "model.onnx")


@pytest.mark.parametrize("properties", [{}, {"class_names": "a, b, c"}])
def test_a_model_of_somebody_else_is_refused_by_name(tmp_path, colour_model, properties):
    model = colour_model(["a", "b", "c"])
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(RegraftError, match=r"model\.onnx is not a model exported by Regraft .*Export it again"):
        OnnxClassifier(tmp_path / "model.onnx")


def test_a_photo_that_changed_since_it_was_validated_is_refused(colour_classifier, photo, tmp_path):
    from PIL import Image

    for name in ("a", "b"):
        for split in ("train", "val", "test"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(photo(len(name + split), 8, 8)).save(tmp_path / split / name / f"{name}{split}.png")
    _, manifest = build_manifest(tmp_path, max_pixels=100, max_seconds=20, workers=1, on_progress=lambda *_: None)
    dataset = build_dataset(manifest, val_share=0.1, test_share=0.1)
    changed = dataset.rows.path[3]
    Image.new("RGB", (8, 8)).save(tmp_path / changed)
    with pytest.raises(RegraftError, match=rf"{re.escape(changed)} has changed since it was validated"):
        colour_classifier(["a", "b", "c"]).probabilities_of(
            dataset, tmp_path, kept=None, workers=1, on_progress=lambda *_: None
        )


def test_a_photo_that_this_file_has_seen_is_not_run_again(colour_classifier, dataset, raw, tmp_path, monkeypatch):
    def run(photos, calls=None):
        classifier = colour_classifier(["a", "b", "c"])
        kept = classifier.open_kept(tmp_path / "store")
        report = (lambda *_: None) if calls is None else (lambda *call: calls.append(call))
        return classifier.probabilities_of(photos, raw, kept=kept, workers=1, on_progress=report)

    run(dataset.head(3))
    calls: list[tuple[int, int]] = []
    together = run(dataset.head(5), calls)
    assert calls == [(1, 2), (2, 2)]
    alone = colour_classifier(["a", "b", "c"]).probabilities_of(
        dataset.head(5), raw, kept=None, workers=1, on_progress=lambda *_: None
    )
    assert np.array_equal(together, alone)


def test_another_file_has_said_nothing_yet(colour_classifier, tmp_path):
    ours, theirs = (colour_classifier(names).open_kept(tmp_path) for names in (["a", "b", "c"], ["a", "b", "d"]))
    assert ours.folder != theirs.folder
