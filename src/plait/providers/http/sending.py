"""Asking: one address, one POST, sent once.

A request is written to a connection once. Whatever goes wrong after that is an error, for whoever asks to decide on:
a server that dropped the connection may have worked on the request, so it is not sent again behind the caller's back
(https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2).

A redirect is an error too, so that a key never reaches another host. Proxies are taken from the environment as other
tools take them (``HTTPS_PROXY``, ``HTTP_PROXY``, ``NO_PROXY``), once for each endpoint; ``~/.netrc`` is not read.
"""

from __future__ import annotations

import asyncio
import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from unicodedata import normalize
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from plait.errors import ConfigurationError, ModelError, ProviderError, TransportError, excerpt
from plait.plain import EMPTY
from plait.providers.http.exchange import Exchange
from plait.providers.http.failures import failure_of
from plait.providers.http.reading import DEFAULT_LIMITS, EventStream, Framing, TransportLimits, read_whole
from plait.providers.sse import EventReader
from plait.providers.status import Service, http_error, violation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plait.providers.http.connections import Route

logger = logging.getLogger("plait.providers.http")

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_FIRST_ERROR: Final = 300


class Endpoint:
    """One address that is asked by POST: with the same headers, the same limits and the same words for errors."""

    __slots__ = ("_headers", "_limits", "_route", "_service", "_url")

    def __init__(
        self,
        url: str,
        service: Service,
        *,
        headers: Mapping[str, str],
        limits: TransportLimits = DEFAULT_LIMITS,
    ) -> None:
        """Check the address; nothing is sent.

        Raises:
            ConfigurationError: see `address_of`.
        """
        address_of(url)
        self._url = url
        self._service = service
        self._headers = dict(headers)
        self._limits = limits
        self._route: Route | None = None

    async def post(self, body: bytes, began: float | None = None) -> bytes:
        """Send a request; give the whole body of its answer.

        Args:
            body: the request's.
            began: when the work on it began, by the event loop's clock: now, if it is None.

        Raises:
            ProviderError: the answer's status was no success.
            TransportError: there was no answer, or half of one.
            ProtocolViolation: the answer was no HTTP.
            LimitExceeded: the answer is larger than ``answer_bytes``.
            ConfigurationError: the environment names a proxy that cannot be used.
        """
        exchange = await self._send(body, None, began)
        try:
            if exchange.status >= _FIRST_ERROR:
                raise await self._refusal(exchange)
            return await read_whole(exchange, self._limits.answer_bytes, self._service)
        finally:
            exchange.close()

    async def open(
        self, body: bytes, framing: Framing | None = None, began: float | None = None
    ) -> EventStream | bytes:
        """Send a request for a streamed answer.

        Args:
            body: the request's.
            framing: what finds the records in the answer; server-sent events if it is None.
            began: as for `post`.

        Returns:
            The stream, which must be closed; or the whole body, when the server says that it sent plain JSON.

        Raises:
            ProviderError, TransportError, LimitExceeded, ConfigurationError: as `post`.
            ProtocolViolation: the answer was no HTTP, or is an HTML page.
        """
        limits = self._limits
        exchange = await self._send(body, limits.silence, began)
        stream = None
        try:
            if exchange.status >= _FIRST_ERROR:
                raise await self._refusal(exchange)
            kind = exchange.headers.get("content-type", "").lower()
            if "html" in kind:
                page = await exchange.beginning()
                what = f"sent {excerpt(kind, 40)} instead of an event stream (check base_url)"
                raise violation(self._service, what, page)
            if "json" in kind and not ("ndjson" in kind or "lines" in kind or "stream" in kind):
                return await read_whole(exchange, limits.answer_bytes, self._service)
            exchange.headers = EMPTY  # they need not last as long as the stream
            stream = EventStream(exchange, framing or EventReader(), limits, self._service)
            return stream
        finally:
            if stream is None:
                exchange.close()

    async def _send(self, body: bytes, silence: float | None, began: float | None) -> Exchange:
        """Send the request, once, and wait for the answer's headers."""
        loop = asyncio.get_running_loop()
        if began is None:
            began = loop.time()
        route = self._route
        if route is None or route.connections.loop is not loop or route.connections.closed:
            route = await self._find_route(loop)
        failure: ModelError
        cause: BaseException | None
        try:
            line = await route.connect()
        except TimeoutError as error:
            failure, cause = self._late(), error
        except (_client_error(), OSError) as error:
            failure, cause = failure_of(error, self._service)
        else:
            total = self._limits.total
            exchange = Exchange(
                line, self._service, route.connections.lookout, began=began, total=total, silence=silence
            )
            try:
                await exchange.begin(route, body)
            except BaseException:
                exchange.close()
                raise
            if logger.isEnabledFor(logging.DEBUG):
                took = loop.time() - began
                what = "%s answers %d after %.3f s to a request of %d bytes"
                logger.debug(what, self._service.address, exchange.status, took, len(body))
            return exchange
        # Raised out here, the error's context does not hold aiohttp's, whose repr shows request headers.
        raise failure from cause

    async def _find_route(self, loop: asyncio.AbstractEventLoop) -> Route:
        from plait.providers.http.connections import Route, connections_of

        seconds = min(self._limits.connect, self._limits.total)
        connections = await connections_of(loop)
        proxy = _proxy_for(self._url)
        self._route = Route(connections, self._url, headers=self._headers, proxy=proxy, seconds=seconds)
        return self._route

    def _late(self) -> TransportError:
        late = f"{self._service.address}: no connection within {min(self._limits.connect, self._limits.total):g} s"
        return TransportError(late, timeout=True, provider=self._service.provider)

    async def _refusal(self, exchange: Exchange) -> ProviderError:
        """Make the error for an answer that is no success, with what can be read of its body."""
        headers = {name.lower(): value for name, value in exchange.headers.items()}
        if exchange.status in _REDIRECTS:
            target = _host_of(headers.get("location", "")) or "another path"
            return ProviderError(
                f"{self._service.address} redirects ({exchange.status}) to {excerpt(target, 80)!r}; redirects are not "
                f"followed, so that a key never reaches another host: correct base_url",
                status=exchange.status,
                provider=self._service.provider,
            )
        return http_error(exchange.status, headers, await exchange.beginning(), self._service)


def _host_of(location: str) -> str:
    """Give the host that a redirect names, without the user; the empty text if it names none that makes sense."""
    try:
        return urlsplit(location).netloc.rpartition("@")[2]
    except ValueError:
        return ""


@lru_cache(maxsize=256)
def address_of(url: str) -> str:
    """Give ``host:port`` of an address; known ones are looked up, for there may be a client for each user.

    Raises:
        ConfigurationError: it is no ``http`` or ``https`` address, or has a user name, a password or a query in it.
    """
    try:
        parts = urlsplit(url)
        host, port = _host_and_port(parts)
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.username is not None or parts.password is not None:
        msg = f"the address of {host!r} has a user name or password in it; send it in headers= instead"
        raise ConfigurationError(msg)
    if parts.query or parts.fragment:
        msg = f"the address of {host!r} has a '?' or '#' in it, behind which nothing can be asked; leave that out"
        raise ConfigurationError(msg)
    if parts.scheme not in ("http", "https") or not host:
        msg = f"{excerpt(url, 100)!r} is no address; it must begin with http:// or https:// and a host"
        raise ConfigurationError(msg)
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port or (443 if parts.scheme == 'https' else 80)}"


def _host_and_port(parts: SplitResult) -> tuple[str | None, int | None]:
    """Give what the parts of an address name.

    Raises:
        ValueError: no connection can be opened to it; the resolver would say so with an error of its own.
    """
    host = parts.hostname
    if host is not None:
        normalize("NFKC", host).encode("idna")
    return host, parts.port


def _proxy_for(url: str) -> str | None:
    """Give the proxy for an address, if there is one.

    Raises:
        ConfigurationError: what the environment names is no proxy that can be asked.
    """
    wanted = urlsplit(url)
    proxy = getproxies().get(wanted.scheme)
    if not proxy or proxy_bypass(wanted.netloc):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"  # as other tools read it
    try:
        parts = urlsplit(proxy)
        host, _ = _host_and_port(parts)
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        name = f"{wanted.scheme.upper()}_PROXY"
        msg = f"{name} names no proxy that can be used: it must begin with http:// or https:// and a host; correct it"
        raise ConfigurationError(msg)  # without its words: a password may be in them
    return proxy


def _client_error() -> type[Exception]:
    import aiohttp

    return aiohttp.ClientError
