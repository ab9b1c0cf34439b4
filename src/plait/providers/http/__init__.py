"""The HTTP client: one POST, answered whole or as batches of events; deadlines; typed errors.

The only package that knows aiohttp, which is imported with the first request (it takes 0.2 s). It knows no
dialect: bytes go out, bytes come back.

``sending`` asks, ``connections`` keeps what is open, ``exchange`` carries one request and its answer under the
deadlines that ``lookout`` watches, ``reading`` reads answers within their limits, and ``failures`` says in our errors
what went wrong in aiohttp's.
"""

from plait.providers.http.reading import DEFAULT_LIMITS, EventStream, Framing, TransportLimits
from plait.providers.http.sending import Endpoint, address_of

__all__ = ["DEFAULT_LIMITS", "Endpoint", "EventStream", "Framing", "TransportLimits", "address_of"]
