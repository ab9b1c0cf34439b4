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
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from plait.errors import ConfigurationError, ModelError, ProviderError, TransportError, excerpt
from plait.providers.http.failures import failure_of, violation
from plait.providers.http.reading import DEFAULT_LIMITS, Body, EventStream, Framing, TransportLimits
from plait.providers.sse import EventReader
from plait.providers.status import Service, http_error

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Mapping

    from aiohttp import ClientResponse

logger = logging.getLogger("plait.providers.http")

_REDIRECTS: Final = range(300, 400)
_FIRST_ERROR: Final = 300
_LARGE: Final = 2**20  # aiohttp warns of larger bodies as bytes, and sends a file in steps


class Endpoint:
    """One address that is asked by POST: with the same headers, the same limits and the same words for errors."""

    __slots__ = ("_headers", "_limits", "_sent", "_service", "_url")

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
        self._sent: dict[str, Any] | None = None

    async def post(self, body: bytes) -> bytes:
        """Send a request; give the whole body of its answer.

        Raises:
            ProviderError: the answer's status was no success.
            TransportError: there was no answer, or half of one.
            ProtocolViolation: the answer was no HTTP.
            LimitExceeded: the answer is larger than ``answer_bytes``.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._limits.total
        response = await self._send(loop, body, self._limits.total, f"no answer within {self._limits.total:g} s")
        answer = Body(response, self._service, until, None)
        try:
            if response.status >= _FIRST_ERROR:
                raise await self._refusal(response, answer)
            return await answer.whole(self._limits.answer_bytes)
        finally:
            answer.close()

    async def open(self, body: bytes, framing: Framing | None = None) -> EventStream | bytes:
        """Send a request for a streamed answer.

        Args:
            body: the request's.
            framing: what finds the records in the answer; server-sent events if it is None.

        Returns:
            The stream, which must be closed; or the whole body, when the server says that it sent plain JSON.

        Raises:
            ProviderError, TransportError, LimitExceeded: as `post`.
            ProtocolViolation: the answer was no HTTP, or is an HTML page.
        """
        loop = asyncio.get_running_loop()
        limits = self._limits
        until = loop.time() + limits.total
        patience = min(limits.silence, limits.total)
        response = await self._send(loop, body, patience, f"no answer within {patience:g} s")
        answer = Body(response, self._service, until, limits.silence)
        stream = None
        try:
            if response.status >= _FIRST_ERROR:
                raise await self._refusal(response, answer)
            kind = response.headers.get("content-type", "").lower()
            if "html" in kind:
                page = await answer.beginning()
                raise violation(self._service, f"sent {excerpt(kind, 40)} instead of an event stream", page)
            if "json" in kind and not ("ndjson" in kind or "lines" in kind or "stream" in kind):
                return await answer.whole(limits.answer_bytes)
            stream = EventStream(answer, framing or EventReader(), limits, self._service)
            return stream
        finally:
            if stream is None:
                answer.close()

    async def _send(self, loop: AbstractEventLoop, body: bytes, seconds: float, late: str) -> ClientResponse:
        """Send the request, once, and wait for the answer's headers."""
        import aiohttp

        from plait.providers.http.sessions import session_of

        session = await session_of(loop)
        sent = self._sent or self._constant_part()
        failure: ModelError
        cause: BaseException | None
        began = loop.time()
        try:
            async with asyncio.timeout(seconds):
                response = await session.post(data=body if len(body) <= _LARGE else BytesIO(body), **sent)
        except aiohttp.ConnectionTimeoutError as error:
            failure, cause = self._late(f"no connection within {self._limits.connect:g} s"), error
        except TimeoutError:
            failure, cause = self._late(late), None
        except (aiohttp.ClientError, OSError) as error:
            failure, cause = failure_of(error, self._service)
        else:
            if logger.isEnabledFor(logging.DEBUG):
                took = loop.time() - began
                what = "%s answers %d after %.3f s to a request of %d bytes"
                logger.debug(what, self._service.address, response.status, took, len(body))
            return response
        # Raised out here, the error's context does not hold aiohttp's, whose repr shows request headers.
        raise failure from cause

    def _constant_part(self) -> dict[str, Any]:
        """Give what every request is sent with, in aiohttp's own types, so that it is read once."""
        from aiohttp import ClientTimeout
        from multidict import CIMultiDict
        from yarl import URL

        self._sent = {
            "url": URL(self._url),
            "headers": CIMultiDict(self._headers),
            "allow_redirects": False,
            "proxy": _proxy_for(self._url),
            "timeout": ClientTimeout(total=None, connect=self._limits.connect),
        }
        return self._sent

    def _late(self, what: str) -> TransportError:
        return TransportError(f"{self._service.address}: {what}", timeout=True, provider=self._service.provider)

    async def _refusal(self, response: ClientResponse, answer: Body) -> ProviderError:
        """Make the error for an answer that is no success, with what can be read of its body."""
        headers = {name.lower(): value for name, value in response.headers.items()}
        if response.status in _REDIRECTS:
            target = urlsplit(headers.get("location", "")).netloc.rpartition("@")[2] or "another path"
            return ProviderError(
                f"{self._service.address} redirects ({response.status}) to {excerpt(target, 80)!r}; redirects are not "
                f"followed, so that a key never reaches another host: correct base_url",
                status=response.status,
                provider=self._service.provider,
            )
        return http_error(response.status, headers, await answer.beginning(), self._service)


def address_of(url: str) -> str:
    """Give ``host:port`` of an address.

    Raises:
        ConfigurationError: it is no ``http`` or ``https`` address, or has a user name or password in it.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.username is not None or parts.password is not None:
        msg = f"the address of {host!r} has a user name or password in it; send it in headers= instead"
        raise ConfigurationError(msg)
    if parts.scheme not in ("http", "https") or not host:
        msg = f"{excerpt(url, 100)!r} is no address; it must begin with http:// or https:// and a host"
        raise ConfigurationError(msg)
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port or (443 if parts.scheme == 'https' else 80)}"


def _proxy_for(url: str) -> str | None:
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    return None if proxy is None or proxy_bypass(parts.netloc) else proxy
