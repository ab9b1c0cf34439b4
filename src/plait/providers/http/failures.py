"""The table of failures: what went wrong in aiohttp's words, and what it is in ours.

Knows who was asked, and nothing of requests: no error made here can show a header.
"""

from __future__ import annotations

import ast
import os
import re
from typing import TYPE_CHECKING, Final

from plait.errors import LimitExceeded, ModelError, TransportError, excerpt
from plait.providers.status import violation

if TYPE_CHECKING:
    from plait.providers.status import Host, Service


_QUOTED: Final = re.compile(r"""^\s*(b(?:'.*'|".*"))\s*$""", re.MULTILINE)


def too_large(service: Service, what: str, most: int) -> LimitExceeded:
    """Give the error for more than ``most`` bytes."""
    return LimitExceeded(f"{what} of {service.address} has more than {most} bytes", limit=most)


def _shown(message: str) -> bytes:
    """Give the bytes that aiohttp quotes in its words on what is no HTTP; its own words are not for our users."""
    quoted = _QUOTED.search(message)
    try:
        found = ast.literal_eval(quoted[1]) if quoted else b""
    except (ValueError, SyntaxError):
        return b""
    return found if isinstance(found, bytes) else b""


def _reason(error: BaseException) -> str:
    """Say why, in the system's words: asyncio puts its own in their place, and ``ssl`` puts its names round them."""
    import ssl

    number = (error.errno or 0) if isinstance(error, OSError) else 0
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_message:
        said = error.verify_message.rstrip(".")
    elif isinstance(error, ssl.SSLError) and error.reason:
        said = error.reason.replace("_", " ").lower()
    elif number > 0 and not isinstance(error, ssl.SSLError):  # names that are not found have numbers below
        said = os.strerror(number)
    else:
        said = (error.strerror if isinstance(error, OSError) else None) or str(error)
    first = said.split(" ", 1)[0]
    return excerpt(said if first.isupper() else said[:1].lower() + said[1:], 120)


def failure_of(error: BaseException, host: Host) -> tuple[ModelError, BaseException | None]:
    """Give our error for aiohttp's, and the cause to name: the innermost one, which holds no request headers."""
    import aiohttp
    from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError

    where = host.address
    retryable = True
    inner = error.__cause__
    if isinstance(error, aiohttp.ClientHttpProxyError):
        said = f"the proxy refused the connection to {where} ({error.status})"
        inner = None
    elif isinstance(error, HttpProcessingError):
        address = "the address" if host.provider is None else "base_url"
        return violation(host, f"does not speak proper HTTP (check {address})", _shown(error.message)), None
    elif isinstance(error, aiohttp.ClientPayloadError):
        if isinstance(inner, ContentEncodingError):
            return violation(host, "sent a body that is not in the encoding it declares", inner.message), inner
        said = f"the connection to {where} ended in the middle of the answer"
    elif isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ServerFingerprintMismatch):
        said = f"the certificate of {where} is not valid for it: {_reason(inner or error)}"
        retryable = False
    elif isinstance(error, aiohttp.ClientConnectorSSLError):
        said = f"{where} does not speak TLS as it should: {_reason(inner or error)}"
    elif isinstance(error, aiohttp.ClientConnectorDNSError):
        said = f"the name of {where} cannot be resolved: {_reason(error.os_error)}; {host.unreachable}"
    elif isinstance(error, aiohttp.ClientProxyConnectionError):
        said = f"the proxy on the way to {where} cannot be reached: {_reason(error.os_error)}"
    elif isinstance(error, aiohttp.ClientConnectorError):
        said = f"cannot connect to {where}: {_reason(error.os_error)}; {host.unreachable}"
    elif isinstance(error, aiohttp.ServerDisconnectedError):
        said = f"{where} closed the connection before it had answered"
    else:
        reason = _reason(error) if isinstance(error, OSError) and error.strerror else type(error).__name__
        said = f"the connection to {where} broke: {reason}"
    unsent = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientHttpProxyError)
    return TransportError(said, sent=not unsent, provider=host.provider, retryable=retryable), inner or error
