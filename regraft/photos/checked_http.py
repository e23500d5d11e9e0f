"""Reading photos by HTTP from hosts that a table names, and from no other: nobody reaches the local network with one.

A name is resolved here, its addresses are checked, and the connection goes to the very address that was checked. So a
name that has another address a moment later changes nothing. TLS still proves the name. Redirects stay on the host,
and no proxy is asked, since it would resolve names itself.
"""

import ipaddress
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import httpcore

from regraft.photos.fetching import Denied, Missing, Opened, Refused, Unreachable

_CONNECTIONS = 64
_CONNECT_SECONDS, _READ_SECONDS = 10.0, 30.0  # to connect, and between two parts of an answer
_REDIRECTS = 3
_LATER = (408, 425, 429, 500, 502, 503, 504)  # statuses of a server that may answer well the next time
_TIMEOUTS = {"connect": _CONNECT_SECONDS, "read": _READ_SECONDS, "write": _READ_SECONDS, "pool": 600.0}
_HEADERS = [("Accept", "image/*,*/*;q=0.5"), ("Accept-Encoding", "identity"), ("User-Agent", "regraft")]


@contextmanager
def open_http(url: str, *, may_be_private: bool) -> Iterator[Opened]:
    """Yield the answer to a GET request.

    Args:
        url: http or https.
        may_be_private: whether hosts of the local network and this machine may be asked.

    Raises:
        FetchError: as its classes say.
    """
    with _asked("GET", url, may_be_private) as response:
        length = _header(response, b"content-length")
        size = int(length) if length and length.isascii() and length.isdigit() else None
        yield Opened(size, _header(response, b"etag"), response.iter_stream())


def http_etag(url: str, *, may_be_private: bool) -> str | None:
    """Return the ETag that a HEAD request tells, or None where the server has none or knows no such request."""
    try:
        with _asked("HEAD", url, may_be_private) as response:
            return _header(response, b"etag")
    except Refused:
        return None


@contextmanager
def _asked(method: str, url: str, may_be_private: bool) -> Iterator[httpcore.Response]:
    """Yield the first answer that is no redirect; it has status 200."""
    first = urlsplit(url)
    for _ in range(_REDIRECTS + 1):
        with _requested(method, url, may_be_private) as response:
            if response.status not in (301, 302, 303, 307, 308):
                _check_status(response.status)
                yield response
                return
            to = _target(url, _header(response, b"location") or "")
        if (to.scheme, to.netloc.lower()) != (first.scheme, first.netloc.lower()):
            raise Refused("the server redirects to another host or scheme; name the photo by its final address")
        url = to.geturl()
    raise Refused(f"the server redirects more than {_REDIRECTS} times")


def _target(url: str, location: str) -> SplitResult:
    """Where a redirect leads."""
    try:
        return urlsplit(urljoin(url, location))
    except ValueError:
        raise Refused("the server redirects to what is no address") from None


@contextmanager
def _requested(method: str, url: str, may_be_private: bool) -> Iterator[httpcore.Response]:
    """Yield the answer to one request, and turn what fails before or while it is read into an error of ours."""
    try:
        with _pool(may_be_private).stream(method, url, headers=_HEADERS, extensions={"timeout": _TIMEOUTS}) as response:
            yield response
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise Unreachable(type(error).__name__) from None
    except (httpcore.UnsupportedProtocol, UnicodeError) as error:
        raise Refused(f"it is no address that can be asked for ({type(error).__name__})") from None


def _check_status(status: int) -> None:
    if status in (404, 410):
        raise Missing(f"there is no such photo (status {status})")
    if status in (401, 403, 407):
        raise Denied(f"status {status}")
    if status in _LATER:
        raise Unreachable(f"status {status}")
    if status != 200:
        raise Refused(f"the server answers with status {status}, and 200 was expected")


def _header(response: httpcore.Response, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in response.headers if key.lower() == name), None)


@dataclass(frozen=True, slots=True)
class _Checked(httpcore.NetworkBackend):
    """Connects to addresses that were checked."""

    may_be_private: bool

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Do what the interface says, with the first address of a name that answers."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise Unreachable("its host has no address") from None
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        if not self.may_be_private and not all(map(is_public, addresses)):
            raise Refused(
                "its host is in a private network or on this machine; machine.photo_private_addresses allows that"
            )
        failed: httpcore.NetworkError | httpcore.TimeoutException = httpcore.ConnectError()
        for address in addresses:
            try:
                return httpcore.SyncBackend().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.NetworkError, httpcore.TimeoutException) as error:
                failed = error
        raise failed


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, also where it has another inside."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    inner = None
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in ipaddress.ip_network("64:ff9b::/96"):  # RFC 6052: IPv4 behind a translator
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    is_ours = ip.is_private or ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_reserved
    if inner is not None:
        return is_public(str(inner))
    return ip.is_global and not is_ours


@cache
def _pool(may_be_private: bool) -> httpcore.ConnectionPool:
    """Connections of this process that are kept open; safe to use from several threads."""
    return httpcore.ConnectionPool(
        max_connections=_CONNECTIONS, keepalive_expiry=30.0, network_backend=_Checked(may_be_private)
    )
