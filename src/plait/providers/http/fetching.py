"""Fetching what somebody else names: one guarded GET.

The address may come from a person, a model or a page, and may be meant to reach what only this machine can reach. So
a name is resolved once, everything it stands for is checked, and the connection is opened to what was checked; so it is
for each redirect. No key, cookie, user name or proxy takes part, and what arrives is bounded in time and size.

Imported with the first fetch, for it imports aiohttp.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final, NoReturn

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from plait.errors import LimitExceeded, TransportError, excerpt
from plait.providers.http.addresses import check_addresses, target_of
from plait.providers.http.failures import failure_of
from plait.providers.status import Host, is_retryable

if TYPE_CHECKING:
    from plait.providers.http.addresses import Target

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Gives the addresses of a name, as texts."""

logger = logging.getLogger("plait.providers.http")

_MOST_REDIRECTS: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_OK: Final = range(200, 300)
_HEADERS: Final = {"User-Agent": "plait", "Accept": "*/*", "Accept-Encoding": "identity"}
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_ZLIB_OR_GZIP: Final = 32 + zlib.MAX_WBITS  # whichever it begins like


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was fetched.

    Attributes:
        data: the bytes.
        media_type: what the server says they are, in lower case and without parameters; empty if it says nothing.
        url: where they came from in the end.
    """

    data: bytes
    media_type: str
    url: str


async def resolve_by_system(host: str) -> list[str]:
    """Give the addresses of a name as the system knows them.

    Raises:
        OSError: it cannot be resolved.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


async def fetch(
    url: str,
    *,
    most: int,
    seconds: float,
    allow_private: bool = False,
    resolve: Resolve | None = None,
) -> Fetched:
    """Get what is at an address that need not be trusted.

    Args:
        url: an ``http`` or ``https`` address.
        most: the most bytes to take, after decompression.
        seconds: for everything together: names, connections, redirects, the body.
        allow_private: whether private, loopback and shared addresses, and any port, may be asked. Only the program
            may say so, never who names the address. Link-local, multicast and reserved addresses are never asked.
        resolve: gives the addresses of a name; the system does if it is None.

    Raises:
        SecurityError: the address, or one it redirects to, must not be asked.
        ConfigurationError: it is no address.
        TransportError: there was no answer, half of one, none in time, or one that is no success; ``retryable`` says
            whether another try may help.
        ProtocolViolation: the answer was no HTTP.
        LimitExceeded: there are more than ``most`` bytes.
    """
    host = ""
    try:
        async with asyncio.timeout(seconds):
            for _ in range(_MOST_REDIRECTS + 1):
                target = target_of(url, allow_private=allow_private)
                host = target.host
                addresses = await _addresses(target, resolve or resolve_by_system)
                check_addresses(host, addresses, allow_private=allow_private)
                answer = await _get(target, addresses, most)
                if isinstance(answer, Fetched):
                    return answer
                url = answer
    except TimeoutError:
        msg = f"{excerpt(host, 80)!r} gave no complete answer within {seconds:g} s"
        raise TransportError(msg, timeout=True) from None
    msg = f"{excerpt(host, 80)!r} redirects once more after {_MOST_REDIRECTS} redirects; it was not followed"
    raise TransportError(msg, retryable=False)


async def _addresses(target: Target, resolve: Resolve) -> list[IPv4Address | IPv6Address]:
    """Give everything that the host of a target stands for."""
    if target.literal is not None:
        return [target.literal]
    try:
        found = [ip_address(address) for address in await resolve(target.host)]
    except Exception as error:  # noqa: BLE001  # a program's own resolver has errors of its own
        match error:
            case OSError():
                reason = (error.strerror or "").lower()
            case UnicodeError():
                reason = "it is no name"
            case _:
                reason = f"{type(error).__name__}: {excerpt(str(error))}"
        msg = f"the name {excerpt(target.host, 80)!r} cannot be resolved: {reason}"
        raise TransportError(msg) from None
    if not found:
        msg = f"the name {excerpt(target.host, 80)!r} cannot be resolved: it has no address"
        raise TransportError(msg)
    return found


async def _get(target: Target, addresses: Sequence[IPv4Address | IPv6Address], most: int) -> Fetched | str:
    """Ask one target, at these addresses only; give what it sent, or where it redirects to."""
    began = asyncio.get_running_loop().time()
    try:
        connector = aiohttp.TCPConnector(
            resolver=_Pinned(addresses), use_dns_cache=False, force_close=True, family=socket.AF_UNSPEC
        )
        async with (
            aiohttp.ClientSession(  # of its own, so that no cookie is there to be sent
                connector=connector, trust_env=False, auto_decompress=False, timeout=_NO_TIMEOUT
            ) as session,
            session.get(target.url, allow_redirects=False, headers=_HEADERS) as response,
        ):
            location = response.headers.get("Location")
            if response.status in _REDIRECTS and location:
                return _joined(target, location)
            if response.status not in _OK:
                _refuse(target, response.status)
            data = await _read(response, target, most)
            took = asyncio.get_running_loop().time() - began
            logger.debug("%s gives %d bytes after %.3f s", target.host, len(data), took)
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            return Fetched(data, media_type, str(target.url))
    except (aiohttp.ClientError, OSError) as error:
        host = Host(address=f"{target.host}:{target.port}")
        inner = error.__cause__ if isinstance(error, aiohttp.ClientResponseError) else None  # what the parser said
        failure, cause = failure_of(inner or error, host)
    # Raised out here, the error's context does not hold aiohttp's.
    raise failure from cause


def _joined(target: Target, location: str) -> str:
    try:
        return str(target.url.join(URL(location)))
    except ValueError:
        msg = f"{excerpt(target.host, 80)!r} redirects to {excerpt(location, 60)!r}, which is no address"
        raise TransportError(msg, retryable=False) from None


def _refuse(target: Target, status: int) -> NoReturn:
    msg = f"{excerpt(target.host, 80)!r} answered {status} instead of the file; check the address"
    raise TransportError(msg, retryable=is_retryable(status))


async def _read(response: aiohttp.ClientResponse, target: Target, most: int) -> bytes:
    """Read the body, decompressed: some stores send what they keep compressed, whatever they are asked for.

    Decompressed here, each step knows how much may still come: a few bytes can stand for a thousand times as many.
    """
    too_large = LimitExceeded(f"what {excerpt(target.host, 80)!r} sends has more than {most} bytes", limit=most)
    if (response.content_length or 0) > most:
        raise too_large
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
        msg = f"{excerpt(target.host, 80)!r} sends the encoding {excerpt(encoding, 20)!r}, which was not asked for"
        raise TransportError(msg, retryable=False)
    unpack = None if encoding in ("identity", "") else zlib.decompressobj(_ZLIB_OR_GZIP)
    parts = []
    size = 0
    try:
        async for part in response.content.iter_any():
            plain = part if unpack is None else unpack.decompress(part, most - size + 1)
            parts.append(plain)
            size += len(plain)
            if size > most:
                raise too_large
            if unpack is not None and unpack.unused_data:
                break  # behind its end there may be anything, without an end
    except zlib.error:
        unpack = zlib.decompressobj()  # which has not come to its end
    if unpack is not None and (not unpack.eof or unpack.unused_data.strip(b"\0")):
        msg = f"what {excerpt(target.host, 80)!r} sends is not in the encoding {encoding!r} it declares"
        raise TransportError(msg, retryable=False)
    return b"".join(parts)


class _Pinned(AbstractResolver):
    """Knows no name but gives the addresses that were checked."""

    def __init__(self, addresses: Sequence[IPv4Address | IPv6Address]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=_FAMILIES[address.version],
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
            if family in (socket.AF_UNSPEC, _FAMILIES[address.version])
        ]

    async def close(self) -> None:
        """Nothing is held."""
