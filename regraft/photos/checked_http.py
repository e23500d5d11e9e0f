"""Reading photos by HTTP from hosts that a table names, and from no other: nobody reaches the local network with one.

A name is resolved here, its addresses are checked, and the connection goes to the very address that was checked. So a
name that has another address a moment later changes nothing. TLS still proves the name. Redirects stay on the host,
and no proxy is asked, since it would resolve names itself.
"""

import ipaddress
import socket
import ssl
import threading
import time
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
# A whole answer, headers and redirects included, which a server may send letter by letter; more than a body may take
# (`elsewhere`), which is told of the photo by name.
_ALL_SECONDS = 150.0
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
    except (Refused, Denied):  # the request for the photo itself says why
        return None


@contextmanager
def _asked(method: str, url: str, may_be_private: bool) -> Iterator[httpcore.Response]:
    """Yield the first answer that is no redirect; it has status 200."""
    first = urlsplit(url)
    _limit.until = time.monotonic() + _ALL_SECONDS
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


_limit = threading.local()  # `until` when this thread may wait for its answer


def _left(timeout: float | None) -> float:
    """Return how long to wait for the next bytes."""
    left = _limit.until - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout
    return left if timeout is None else min(timeout, left)


@dataclass(frozen=True, slots=True)
class _Timed(httpcore.NetworkStream):
    """A connection whose answers end in time: httpcore's own limits begin anew with every byte."""

    stream: httpcore.NetworkStream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self.stream.read(max_bytes, _left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.stream.write(buffer, _left(timeout))

    def close(self) -> None:
        self.stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self.stream.get_extra_info(info)

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Timed(self.stream.start_tls(ssl_context, server_hostname, _left(timeout)))


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
                return _Timed(
                    httpcore.SyncBackend().connect_tcp(address, port, _left(timeout), local_address, socket_options)
                )
            except (httpcore.NetworkError, httpcore.TimeoutException) as error:
                failed = error
        raise failed


# Not of the public internet either, and taken for that by Python or by everybody: IETF's own, the gateway of Azure's
# machines, former 6to4 relays, former site-local addresses, documentation.
_CLOSED = [
    ipaddress.ip_network(each)
    for each in ("192.0.0.0/24", "168.63.129.16/32", "192.88.99.0/24", "fec0::/10", "3fff::/20")
]


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
    return ip.is_global and not is_ours and not any(ip in network for network in _CLOSED)


@cache
def _pool(may_be_private: bool) -> httpcore.ConnectionPool:
    """Connections of this process that are kept open; safe to use from several threads."""
    return httpcore.ConnectionPool(
        max_connections=_CONNECTIONS, keepalive_expiry=30.0, network_backend=_Checked(may_be_private)
    )
