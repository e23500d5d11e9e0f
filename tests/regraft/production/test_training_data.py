import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from regraft.core.errors import InvalidData
from regraft.core.files import sha256_of
from regraft.features.table import Features
from regraft.photos.manifest import COLUMNS
from regraft.production import training_data as module
from regraft.production.registry import Production
from regraft.production.training_data import Reference, Seen, build_reference, read_reference, write_reference


@pytest.fixture
def manifest(features: Features) -> pd.DataFrame:
    """A manifest of the photos that have features, in another order, with a file that is not used among them."""
    digests = features.digests[:36][::-1]
    rows: list[dict[str, object]] = [
        {"path": f"{number}.jpg", "label": "apple", "verdict": "use", "digest": digest, "bytes": 1, "width": 9}
        for number, digest in enumerate(digests)
    ]
    rows[5] |= {"verdict": "quarantine", "reason": "cannot be decoded"}
    return pd.DataFrame(rows, columns=list(COLUMNS)).assign(conflict=False, brightness=0.25).astype(COLUMNS)


def test_a_reference_holds_the_used_photos_and_their_features_of_view_0(manifest, features):
    reference = build_reference(manifest, features)
    assert sorted(reference.rows.digest) == sorted(manifest.digest[manifest.verdict == "use"])
    view_0 = {digest: row for row, digest in enumerate(features.digests[:36])}
    expected = features.read(np.array([view_0[digest] for digest in reference.rows.digest]))
    assert np.array_equal(reference.features, expected)
    assert reference.namespace == features.namespace


def test_of_many_photos_an_evenly_spaced_sample_has_features(manifest, features, monkeypatch):
    monkeypatch.setattr(module, "_SAMPLE", 18)
    reference = build_reference(manifest, features)
    steps = np.diff(np.flatnonzero(reference.rows.sampled))
    assert (len(reference.rows), len(reference.features), reference.rows.sampled.sum()) == (35, 18, 18)
    assert set(steps) == {2}


@pytest.mark.parametrize("sample", [1, 14, 2000])
def test_a_reference_comes_back_as_it_was_written(manifest, features, tmp_path, monkeypatch, sample):
    monkeypatch.setattr(module, "_SAMPLE", sample)
    reference = build_reference(manifest, features)
    write_reference(tmp_path / "a.parquet", reference)
    back = read_reference(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(back.rows, reference.rows)
    assert np.array_equal(back.features, reference.features)
    assert back.features.dtype == np.float32
    assert back.namespace == reference.namespace


def test_by_what_photos_are_recognised_comes_back_without_the_names_that_a_person_gave(manifest, features, tmp_path):
    base = pd.DataFrame({"digest": ["e" * 64, "f" * 64], "phash": [None, "1" * 64], "given_group": [None, "2" * 64]})
    manifest = manifest.assign(phash="3" * 64, given_group="Ada")
    write_reference(tmp_path / "a.parquet", build_reference(manifest, features, base))
    back = read_reference(tmp_path / "a.parquet")
    ada = hashlib.sha256(b"Ada").hexdigest()
    assert (set(back.rows.phash), set(back.rows.given_group)) == ({"3" * 64}, {ada})
    assert back.base_saw == Seen(frozenset(base.digest), frozenset(["1" * 64]), frozenset(["2" * 64]))
    assert b"Ada" not in (tmp_path / "a.parquet").read_bytes()


def test_the_file_is_a_table_that_others_can_read(manifest, features, tmp_path):
    write_reference(tmp_path / "a.parquet", build_reference(manifest, features))
    assert list(pd.read_parquet(tmp_path / "a.parquet")) == [*module.COLUMNS, "phash", "feature"]


def damaged_files(whole: bytes) -> dict[str, bytes]:
    flipped = bytearray(whole)
    flipped[-20] ^= 255
    return {"empty": b"", "cut off": whole[:-100], "text": b"not Parquet", "flipped": bytes(flipped)}


@pytest.mark.parametrize("kind", ["empty", "cut off", "text", "flipped"])
def test_a_damaged_file_is_told_with_what_to_do(manifest, features, tmp_path, kind):
    path = tmp_path / "a.parquet"
    write_reference(path, build_reference(manifest, features))
    path.write_bytes(damaged_files(path.read_bytes())[kind])
    with pytest.raises(InvalidData, match=r"a\.parquet is damaged: .*Restore it from a backup, or remove it"):
        read_reference(path)


# Of the model in production.


@pytest.fixture
def reference(manifest: pd.DataFrame, features: Features) -> Reference:
    return build_reference(manifest, features)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_text("a model")
    return path


@pytest.fixture
def production(tmp_path: Path) -> Production:
    return Production(tmp_path / "production")


def test_it_is_said_with_which_model_the_photos_are_compared(production, model, reference):
    production.promote(model, "better", keep=1, reference=reference)
    found, words = production.find_reference()
    assert found is not None
    assert found.rows.equals(reference.rows)
    day = production.history()[-1].at[:10]
    assert words == f"Compared with the 35 photos of the model in production ({sha256_of(model)[:12]}, since {day})."


def test_of_a_model_that_was_promoted_without_its_data_that_is_said(production, model):
    production.promote(model, "better", keep=1)
    found, words = production.find_reference()
    assert found is None
    assert "was trained on, so the photos are not compared with anything" in words


def test_a_model_that_was_put_there_by_hand_is_named_without_a_date(production, model):
    production.folder.mkdir()
    production.model.write_bytes(model.read_bytes())
    assert (
        f"It is not known what the model in production ({sha256_of(model)[:12]}) was" in production.find_reference()[1]
    )


def test_a_damaged_reference_is_a_warning(production, model, reference):
    production.promote(model, "better", keep=1, reference=reference)
    production.data_of(sha256_of(model)).write_bytes(b"damaged")
    found, words = production.find_reference()
    assert found is None
    assert words.startswith("Warning: the photos are not compared with those of the model in production (")
    assert "is damaged" in words
