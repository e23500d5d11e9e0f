"""The contract for callers: a test for each row of its table in docs/model_file.md, with every client of Regraft's own.

The pixels that are expected come from tests/support/contract_photos.py and not from Regraft's reader.
"""

import importlib.util
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
from PIL import Image, UnidentifiedImageError

from regraft.photos.images import load_rgb
from regraft.serving.photo_files import Listed
from regraft.serving.predicting import choose_predictor
from regraft.serving.shipped_model import ShippedModel
from regraft.serving.thresholds import Promise
from tests.support.contract_model import random_classifier
from tests.support.contract_photos import Form, forms_of
from tests.support.mutations import HEIC

ROOT = Path(__file__).parents[3]
SIDE = 16
NAMES = ["glass", "metal", "paper"]
PROMISE = Promise(0.97, 0.98, 0.95)
FORMS = [*forms_of(np.zeros((8, 8, 3), np.uint8))]
ORIENTED = [name for name in FORMS if name.startswith("EXIF")]
Client = Callable[[Path], np.ndarray]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that every client is given."""
    target = tmp_path_factory.mktemp("contract") / "model.onnx"
    onnx.save(random_classifier(SIDE, NAMES, PROMISE), target)
    return target


@pytest.fixture(scope="module")
def session(path: Path) -> onnxruntime.InferenceSession:
    """What a service has of it: the file and ONNX Runtime."""
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def clients(path: Path, session: onnxruntime.InferenceSession) -> Iterator[dict[str, Client]]:
    """Every way from a file to probabilities."""
    model = ShippedModel(path)
    predictor = choose_predictor(model, top=3)
    spec = importlib.util.spec_from_file_location("classify", ROOT / "docs" / "classify.py")
    assert spec
    assert spec.loader
    classify = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        Image.init()
        for name in ("ID", "OPEN", "EXTENSION", "MIME"):  # it registers HEIC, which no other test is to see
            patch.setattr(Image, name, getattr(Image, name).copy())
        spec.loader.exec_module(classify)
        yield {
            "ShippedModel": lambda file: model.probabilities(load_rgb(file)),
            "regraft predict": partial(_predicted, predictor.row),
            "docs/classify.py": lambda file: _run(session, classify.read(str(file))[None])[0],
        }


def _predicted(row_of: Callable, file: Path) -> np.ndarray:
    row = row_of(Listed(str(file)))
    if row.error:
        raise ValueError(row.error)
    return np.array([dict(row.top)[name] for name in NAMES])


def _run(session: onnxruntime.InferenceSession, batch: np.ndarray) -> np.ndarray:
    return np.asarray(session.run(["probabilities"], {"image": batch})[0])


@pytest.fixture(scope="module")
def forms(photo: Callable[..., np.ndarray]) -> dict[str, Form]:
    """A photo of 60 x 41 pixels in every form."""
    return forms_of(photo(1, 60, 41))


@pytest.fixture
def check(clients, session, forms, tmp_path) -> Callable[..., None]:
    """A function that gives every client a photo in some forms, and compares the answers with those to its pixels."""

    def compare(*names: str) -> None:
        for name in names:
            form = forms[name]
            file = tmp_path / f"{name}.{form.suffix}".replace(":", "")
            file.write_bytes(form.contents)
            assert form.pixels is not None
            expected = _run(session, form.pixels[None])[0]
            for client, answer in clients.items():
                assert np.allclose(answer(file), expected, atol=1e-6), (client, name)

    return compare


def test_each_row_of_the_table_has_a_test():
    page = (ROOT / "docs" / "model_file.md").read_text()
    table = page.split("## The contract for callers")[1].split("\n## ")[0]
    rows = set(re.findall(r"\| `(test_\w+)` \|", table))
    about_the_table = {"test_each_row_of_the_table_has_a_test", "test_every_form_of_a_photo_belongs_to_a_row"}
    assert rows == {name for name in globals() if name.startswith("test_")} - about_the_table


def test_channels_are_red_green_blue(session, photo):
    pixels = photo(2, 30, 30, (200, 90, 20))
    other = _run(session, pixels[None, ..., ::-1])
    assert np.abs(_run(session, pixels[None]) - other).max() > 0.05


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint16])
def test_values_are_uint8(session, photo, dtype):
    with pytest.raises(InvalidArgument, match="expected: \\(tensor\\(uint8\\)\\)"):
        _run(session, photo(2, 30, 30)[None].astype(dtype))


@pytest.mark.parametrize("shape", [(30, 30, 3), (1, 30, 30), (1, 3, 30, 30), (1, 30, 30, 4), (1, 30, 30, 1)])
def test_channels_come_last_and_are_three(session, shape):
    with pytest.raises(InvalidArgument, match=r"Invalid rank|Got invalid dimensions"):
        _run(session, np.zeros(shape, np.uint8))


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3), (4000, 30), (30, 4000)])
def test_any_size_from_one_pixel(session, size):
    answer = _run(session, np.full((1, *size, 3), 90, np.uint8))
    assert answer == pytest.approx(_run(session, np.full((1, SIDE, SIDE, 3), 90, np.uint8)), abs=1e-5)


def test_the_caller_limits_the_size(path, tmp_path):
    Image.new("RGB", (30_000, 10)).save(tmp_path / "a.png")
    limits = {"30000 x 10 pixels": 299_999, "error=None": 300_000}
    for words, limit in limits.items():
        predictor = choose_predictor(ShippedModel(path), max_pixels=limit)
        assert words in str(predictor.row(Listed(str(tmp_path / "a.png"))))


def test_the_caller_does_not_resize(session, photo):
    checks = (np.indices((300, 400)).sum(0) % 2 * 127).astype(np.uint8)
    pixels = photo(3, 400, 300) // 2 + checks[..., None]
    resized = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    assert np.abs(_run(session, pixels[None]) - _run(session, np.asarray(resized)[None])).max() > 0.05


def test_the_centre_square_is_cut_inside(session, photo):
    pixels = photo(4, 90, 50)
    assert np.array_equal(_run(session, pixels[None]), _run(session, pixels[None, :, 20:70]))


def test_photos_are_upright(check):
    check(*ORIENTED)


def test_transparency_is_on_white(check):
    check("PNG with alpha", "grey PNG with alpha", "WebP with alpha", "palette PNG with transparency")


def test_16_bits_are_scaled(check):
    check("16-bit grey PNG", "16-bit grey TIFF", "16-bit RGB PNG")


def test_floating_point_pixels_are_refused(clients, forms, tmp_path):
    (tmp_path / "a.tif").write_bytes(forms["TIFF of floating-point numbers"].contents)
    for answer in clients.values():
        with pytest.raises(ValueError, match="floating-point"):
            answer(tmp_path / "a.tif")


def test_a_palette_is_looked_up(check):
    check("palette PNG", "GIF", "PNG of 1 bit")


def test_grey_is_three_equal_channels(check):
    check("grey JPEG", "grey PNG")


def test_cmyk_is_converted(check):
    check("CMYK JPEG")


def test_colour_profiles_are_ignored(check):
    check("JPEG with the profile Display P3")


def test_of_an_animation_the_first_frame_counts(check):
    check("animated GIF")


def test_jpegs_are_decoded_as_libjpeg_turbo_does(check):
    check("JPEG 4:4:4", "JPEG 4:2:0", "progressive JPEG", "PNG")


def test_heic_needs_its_library(clients, session):
    expected = _run(session, load_rgb(HEIC)[None])[0]  # tests/regraft/photos/test_heif.py looks at these pixels
    assert all(np.allclose(answer(HEIC), expected, atol=1e-6) for answer in clients.values())


@pytest.mark.parametrize("name", ["truncated JPEG", "truncated PNG", "text"])
def test_what_cannot_be_read_whole_is_refused(clients, forms, tmp_path, name):
    file = tmp_path / "a.jpg"
    file.write_bytes(forms[name].contents)
    for answer in clients.values():
        with pytest.raises((OSError, ValueError, UnidentifiedImageError)):
            answer(file)


def test_an_answer_is_the_same_in_any_batch(session, photo):
    batch = np.stack([photo(seed, 60, 40) for seed in range(32)])
    alone = np.concatenate([_run(session, pixels[None]) for pixels in batch])
    assert _run(session, batch) == pytest.approx(alone, abs=1e-5)  # sums are added in another order


def test_threads_may_share_a_session(session, photo):
    batches = [photo(seed, 60, 40)[None] for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        assert np.array_equal(
            list(pool.map(partial(_run, session), batches)), [_run(session, each) for each in batches]
        )


def test_probabilities_are_in_the_order_of_class_names(path, session, photo):
    answers = _run(session, np.stack([photo(seed, 60, 40) for seed in range(8)]))
    assert answers.dtype == np.float32
    assert answers.sum(axis=1) == pytest.approx(1, abs=1e-6)
    model = ShippedModel(path)
    assert model.class_names == NAMES
    assert model.answer(photo(3, 60, 40)) in (None, NAMES[int(answers[3].argmax())])


def test_below_the_threshold_no_class_is_named(path, photo):
    model = ShippedModel(path)
    for seed in range(40):
        pixels = photo(seed, 60, 40)
        assert (model.answer(pixels) is None) is bool(model.probabilities(pixels).max() < PROMISE.abstain_below)
    assert len({model.answer(photo(seed, 60, 40)) is None for seed in range(40)}) == 2


def test_every_form_of_a_photo_belongs_to_a_row():
    source = Path(__file__).read_text()
    assert [name for name in FORMS if name not in ORIENTED and f'"{name}"' not in source] == []
