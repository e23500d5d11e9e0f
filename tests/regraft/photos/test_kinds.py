from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from regraft.photos.kinds import judge
from tests.support.library import scan_folder

UNREAD = "not an image that can be read"
CONVERT = "; convert it to JPEG, PNG or TIFF"


def judged(name: str, content: bytes = b"", *, format_name: str | None = None, problem: str | None = UNREAD):
    return judge(name, BytesIO(content), format_name=format_name, problem=problem)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("IMG_0001.HEIC", b"junk", "a HEIC photo"),
        ("IMG_0001", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC photo"),
        ("IMG_0001.jpg", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heix", "a HEIC photo"),
        ("a", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "a raw photo of a camera"),
        ("a.tif", b"II*\0\x10\0\0\0CR\x02\0", "a raw photo of a camera"),
        ("a", b"FUJIFILMCCD-RAW 0201FF", "a raw photo of a camera"),
        ("drawing.svg", b"", "an SVG drawing"),
        ("a", b"<svg xmlns='http://www.w3.org/2000/svg'>", "an SVG drawing"),
        (
            "a",
            b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- made by -->\n<!DOCTYPE svg PUBLIC ''>\n<svg>",
            "an SVG drawing",
        ),
        ("a", b"8BPS\0\1", "a Photoshop document"),
        ("a", b"%!PS-Adobe-3.0 EPSF-3.0", "a PostScript drawing"),
        ("a", b"\xff\x0a\xfa", "a JPEG XL image"),
        ("a.tga", b"\0\0\2", "a Targa image"),
        ("a", b"v/1\x01", "an OpenEXR image"),
        ("a", b"\0" * 128 + b"DICM", "a DICOM image"),
        ("a", b"\0\0\1\0\1\0", "a Windows icon"),
    ],
)
def test_an_image_of_a_format_that_is_not_read_is_named_as_what_it_is(name, content, what):
    meant, reason = judged(name, content or b"<svg/>")
    assert meant
    assert reason == f"{what}, which cannot be read{CONVERT}"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("photo.JPG", b"text"),
        ("no_extension", b"\xff\xd8\xff\xe0"),
        ("no_extension", b"RIFF\0\0\0\0WEBP"),
        ("no_extension", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf"),
        ("no_extension", b"BM\x36\0\0\0\0\0\0\0\x36\0\0\0"),
        ("photo.heic", b"\xff\xd8\xff\xe0"),  # a JPEG by its content, and damaged
        ("photo.heic", b""),
    ],
)
def test_a_damaged_image_of_a_format_that_is_read_keeps_the_decoders_reason(name, content):
    assert judged(name, content) == (True, UNREAD)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("no_extension", b"RIFF\0\0\0\0WAVE"),
        ("notes.txt", b"text"),
        ("notes.txt", b"BMW and other cars"),
        ("Thumbs.db", b"\xd0\xcf\x11\xe0"),
        ("movie.mov", b"\0\0\0\x14ftypqt  \0\0\0\0qt  "),
        ("movie.mp4", b"\0\0\0\x18ftypisom\0\0\2\0isomiso2avc1mp41"),
        ("page", b"<?xml version='1.0'?><html><body><svg></svg></body></html>"),
        ("empty", b""),
    ],
)
def test_what_nobody_meant_as_an_image_is_none(name, content):
    assert judged(name, content) == (False, UNREAD)


def test_what_can_be_decoded_is_used_whatever_its_name(tmp_path):
    assert judged("photo.psd", format_name="JPEG", problem=None) == (True, None)
    assert judged("photo.raw", format_name="JPEG", problem=None) == (True, None)


def test_the_preview_in_a_raw_photo_is_not_taken_for_the_photo():
    meant, reason = judged("photo.NEF", b"II*\0", format_name="TIFF", problem=None)
    assert (meant, reason) == (True, f"a raw photo of a camera of which only a preview can be read{CONVERT}")


def test_a_folder_of_photos_that_cannot_be_read_does_not_pass_as_a_folder_of_other_files(tmp_path: Path):
    """The expectation readable_images counts what was meant as an image, so it sees them."""
    for number in range(10):
        folder = tmp_path / "raw" / ("cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.CR3").write_bytes(b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(99))
    Image.new("RGB", (8, 6)).save(tmp_path / "raw/cat/one.png")
    _, manifest = scan_folder(tmp_path / "raw")
    assert manifest.verdict.value_counts().to_dict() == {"quarantine": 10, "use": 1}
    assert set(manifest.reason.dropna()) == {f"a raw photo of a camera, which cannot be read{CONVERT}"}
