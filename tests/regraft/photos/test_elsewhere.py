"""Photos at addresses: from a server on this machine, and from one that speaks S3."""

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import fsspec
import pytest
from botocore.exceptions import ClientError, NoCredentialsError

from regraft.core.errors import InvalidData, RegraftError
from regraft.photos import checked_http, elsewhere
from regraft.photos.checked_http import is_public
from regraft.photos.fetching import Refused
from regraft.photos.manifest import photos_of
from tests.support.library import scan_table
from tests.support.photo_server import PhotoServer, elsewhere_in, etag_of, png, serving


@pytest.fixture(scope="module")
def running() -> Iterator[PhotoServer]:
    with serving() as server:
        yield server


@pytest.fixture
def server(running: PhotoServer, monkeypatch: pytest.MonkeyPatch) -> PhotoServer:
    """The server with nothing in it; no pauses between attempts."""
    monkeypatch.setattr(elsewhere, "_PAUSES", (0.0, 0.0))
    url = running.url
    PhotoServer.__init__(running)
    running.url = url
    return running


def sha256(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()


def refusal(folder: Path, url: str, **expected: str) -> str:
    with pytest.raises(Refused) as error, elsewhere_in(folder).fetched(url, **expected):
        pass
    assert not list(folder.rglob("*.part"))
    return str(error.value)


def test_a_photo_arrives_whole_and_is_counted(tmp_path, server):
    url, photos = server.add("a.png", png(1)), elsewhere_in(tmp_path)
    with photos.fetched(url, digest=sha256(png(1)), etag=etag_of(png(1))) as file:
        assert file.path.read_bytes() == png(1)
        assert file.path.parent.stat().st_mode & 0o077 == 0
    assert photos.fetches.as_report() == {"photos_fetched": 1, "bytes_fetched": len(png(1))}


@pytest.mark.parametrize("expected", [{"digest": "0" * 64}, {"etag": "0" * 32}], ids=["sha256", "etag"])
def test_changed_bytes_are_told_and_not_kept(tmp_path, server, expected):
    assert "its bytes have changed" in refusal(tmp_path, server.add("a.png", png(1)), **expected)
    assert not list((tmp_path / "photos").iterdir())


def test_a_photo_that_is_not_there_is_told(tmp_path, server):
    assert "there is no such photo" in refusal(tmp_path, f"{server.url}/none.png")


def test_a_server_that_fails_now_and_then_is_asked_again(tmp_path, server):
    url = server.add("a.png", png(1))
    server.statuses["a.png"] = [503, 500]
    with elsewhere_in(tmp_path).fetched(url) as file:
        assert file.digest == sha256(png(1))


def test_a_connection_that_is_dropped_in_the_middle_is_an_error_and_no_half_photo(tmp_path, server):
    url = server.add("a.png", png(1))
    server.cut.add("a.png")
    with pytest.raises(RegraftError, match="cannot be fetched: RemoteProtocolError, after 3 attempts"):
        elsewhere_in(tmp_path).fetched(url).__enter__()
    assert not list((tmp_path / "photos").iterdir())


@pytest.mark.parametrize("status", [401, 403])
def test_missing_permission_ends_the_run_in_words(tmp_path, server, status):
    server.statuses["a.png"] = [status]
    with pytest.raises(RegraftError, match=rf"may not be read: status {status}\. Check the credentials"):
        elsewhere_in(tmp_path).fetched(server.add("a.png", png(1))).__enter__()


def test_a_redirect_on_the_same_host_is_followed(tmp_path, server):
    server.add("b.png", png(1))
    server.redirects["a.png"] = "/b.png"
    with elsewhere_in(tmp_path).fetched(f"{server.url}/a.png") as file:
        assert file.digest == sha256(png(1))


@pytest.mark.parametrize(
    "target",
    ["http://169.254.169.254/latest", "http://localhost/a.png", "file:///etc/passwd", "//other/a.png", "https://{}"],
)
def test_a_redirect_to_another_host_or_scheme_is_refused(tmp_path, server, target):
    server.redirects["a.png"] = target
    assert "redirects to another host or scheme" in refusal(tmp_path, f"{server.url}/a.png")


def test_redirects_without_end_are_refused(tmp_path, server):
    server.redirects["a.png"] = "/a.png"
    assert "redirects more than 3 times" in refusal(tmp_path, f"{server.url}/a.png")
    assert server.asked["GET a.png"] == 4


def test_a_server_that_drips_is_given_up(tmp_path, server, monkeypatch):
    monkeypatch.setattr(elsewhere, "_MOST_SECONDS", 0.1)
    server.drips.add("a.png")
    assert "takes longer than 0 s" in refusal(tmp_path, f"{server.url}/a.png")


def test_a_server_whose_answer_never_begins_is_given_up(tmp_path, server, monkeypatch):
    monkeypatch.setattr(checked_http, "_ALL_SECONDS", 0.1)
    server.slow_heads.add("a.png")
    with pytest.raises(RegraftError, match="cannot be fetched: ReadTimeout"):
        elsewhere_in(tmp_path).etag_of(f"{server.url}/a.png")


def test_many_slow_photos_end_the_run(tmp_path, server, monkeypatch):
    monkeypatch.setattr(elsewhere, "_MOST_SECONDS", 0.05)
    monkeypatch.setattr(elsewhere, "_MOST_SLOW", 2)
    server.drips.add("a.png")
    photos = elsewhere_in(tmp_path)
    with pytest.raises(Refused):
        photos.fetched(f"{server.url}/a.png").__enter__()
    with pytest.raises(RegraftError, match="2 photos took longer"):
        photos.fetched(f"{server.url}/a.png").__enter__()


def test_a_body_that_is_too_large_is_given_up_whether_or_not_the_server_says_so_before(tmp_path, server, monkeypatch):
    server.endless.add("a.png")
    monkeypatch.setattr(elsewhere, "_MOST_BYTES", 100)
    assert "larger than 100 B" in refusal(tmp_path, f"{server.url}/a.png")
    assert "larger than 100 B" in refusal(tmp_path, server.add("b.png", png(1)))


def test_a_private_address_is_refused_before_anybody_is_asked(tmp_path, server):
    with pytest.raises(Refused, match="private network or on this machine"):
        elsewhere_in(tmp_path, private=False).fetched(server.add("a.png", png(1))).__enter__()
    assert not server.asked


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(tmp_path, server, monkeypatch):
    answers = iter(["93.184.216.34", "127.0.0.1"])  # the second time the name leads here

    def rebinding(host: str, port: int, **_: object):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    connected = []

    def connect(self: object, host: str, *_: object):
        connected.append(host)
        raise checked_http.httpcore.ConnectError

    monkeypatch.setattr(checked_http.socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(checked_http.httpcore.SyncBackend, "connect_tcp", connect)
    with pytest.raises(Refused, match="private network"):
        elsewhere_in(tmp_path, private=False).fetched("http://rebinding.example/a.png").__enter__()
    assert connected == ["93.184.216.34"]


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "240.0.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1"),
        *("192.0.0.192", "168.63.129.16", "fec0::1", "3fff::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::", "64:ff9b::7f00:1"),
    ],
)
def test_addresses_that_are_not_of_the_public_internet_are_known(address):
    assert not is_public(address)


# The spool.


def test_what_is_in_the_spool_is_not_fetched_again_and_a_damaged_file_in_it_is(tmp_path, server):
    photos = elsewhere_in(tmp_path)
    _, manifest = scan_table(tmp_path, [(server.add("a.png", png(1)), "x"), (server.add("b.png", png(2)), "y")], photos)
    dataset = photos_of(manifest, tmp_path / "raw", photos)
    shapes = [dataset.read_photo(photo).shape for photo in dataset.photos() if photo.format]
    assert (shapes, server.asked["GET a.png"]) == ([(12, 12, 3)] * 2, 1)
    photo = next(photo for photo in dataset.photos() if photo.path.endswith("a.png"))
    (tmp_path / "photos" / photo.digest).write_bytes(b"other")
    assert dataset.read_photo(photo).shape == (12, 12, 3)
    assert server.asked["GET a.png"] == 2
    server.add("a.png", png(9))  # it must never change
    (tmp_path / "photos" / photo.digest).unlink()
    with pytest.raises(InvalidData, match=r"a\.png cannot be fetched any more: its bytes have changed"):
        dataset.read_photo(photo)


def test_beyond_the_bound_photos_are_fetched_again(tmp_path, server):
    photos = elsewhere_in(tmp_path, spool_bytes=len(png(1)))
    for number in (1, 2, 2):
        with photos.file_of(server.add(f"{number}.png", png(number)), sha256(png(number))) as path:
            assert path.read_bytes() == png(number)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == [sha256(png(1))]
    assert photos.fetches.photos == 3


@pytest.mark.parametrize(("cache_bytes", "kept"), [(0, 0), (1e9, 2)])
def test_after_a_run_the_cache_decides_what_is_kept(tmp_path, server, cache_bytes, kept):
    photos = elsewhere_in(tmp_path, cache_bytes=cache_bytes)
    for number in (1, 2):
        with photos.fetched(server.add(f"{number}.png", png(number))):
            pass
    photos.trim_abandoned()
    assert len(list((tmp_path / "photos").iterdir())) == 2  # the next stage of the run needs them
    photos.trim()
    assert len(list((tmp_path / "photos").glob("*"))) == kept


# Buckets.


def test_photos_in_a_bucket_are_read_and_compared(tmp_path, s3_server):
    fsspec.filesystem("s3").pipe_file("bucket/grün/a b.png", png(3))
    photos, url = elsewhere_in(tmp_path), "s3://bucket/grün/a b.png"
    assert photos.etag_of(url) == etag_of(png(3))
    with photos.fetched(url, digest=sha256(png(3)), etag=etag_of(png(3))) as file:
        assert file.path.read_bytes() == png(3)
    assert "there is no such photo" in refusal(tmp_path, "s3://bucket/none.png")
    assert "its bytes have changed" in refusal(tmp_path, url, etag="0" * 32)


@pytest.mark.parametrize(
    "error",
    [PermissionError("SECRET"), ClientError({"Error": {"Code": "ExpiredToken"}}, "GetObject"), NoCredentialsError()],
    ids=lambda error: type(error).__name__,
)
def test_credentials_that_are_missing_or_have_expired_are_told_at_once(tmp_path, monkeypatch, error):
    monkeypatch.setattr("s3fs.S3FileSystem.open", Mock(side_effect=error))
    with pytest.raises(RegraftError, match=r"s3://bucket/a\.png may not be read: .*Check the credentials") as told:
        elsewhere_in(tmp_path).fetched("s3://bucket/a.png").__enter__()
    assert "SECRET" not in str(told.value)
