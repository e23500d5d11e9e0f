"""Reading photos from buckets, through fsspec; endpoint and credentials come from the environment."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from regraft.core.addresses import named
from regraft.core.errors import RegraftError
from regraft.photos.fetching import Denied, FetchError, Missing, Opened, Unreachable

_BLOCK = 8 * 2**20  # bytes of one request; nearly all photos are one
_ETAGS = ("ETag", "etag", "md5Hash", "content_md5")
_DENIED = ("PermissionError", "NoCredentials", "TokenRefresh", "UnauthorizedSSOToken", "ExpiredToken", "RefreshError")
_NEEDED = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "oss": "ossfs"}


@contextmanager
def open_in_bucket(url: str) -> Iterator[Opened]:
    """Yield an object that was opened; FetchError as its classes say, RegraftError where a package is missing."""
    with _reaching(url):
        scheme, _, path = url.partition("://")
        file = _files(scheme).open(path, "rb", block_size=_BLOCK, cache_type="readahead")
    with file:  # what whoever reads it does wrong is no error of the store
        yield Opened(file.size, _etag_in(file.details), _parts(file, url))


def bucket_etag(url: str) -> str | None:
    """Return the ETag of an object, or None where this kind of store has none."""
    with _reaching(url):
        scheme, _, path = url.partition("://")
        return _etag_in(_files(scheme).info(path))


def _parts(file: Any, url: str) -> Iterator[bytes]:
    while True:
        with _reaching(url):
            part = file.read(_BLOCK)
        if not part:
            return
        yield part


def _etag_in(facts: dict[str, Any]) -> str | None:
    return next((str(facts[name]) for name in _ETAGS if facts.get(name)), None)


@cache
def _files(scheme: str) -> Any:
    import fsspec

    return fsspec.filesystem(scheme, use_listings_cache=False)


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    scheme = url.partition("://")[0]
    try:
        yield
    except FetchError:
        raise
    except FileNotFoundError:
        raise Missing("there is no such photo") from None
    except ImportError:
        raise RegraftError(
            f"Photos at {scheme}:// need the package {_NEEDED[scheme]}, which is not installed. Install it where they "
            "are read: here, or on the worker that says so."
        ) from None
    except Exception as error:  # every kind of store has exceptions of its own, whose texts may hold secrets
        words = named(error)
        if any(each in words for each in _DENIED):
            raise Denied(words) from None
        raise Unreachable(words) from None
