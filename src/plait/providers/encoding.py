"""What is sent for a request, to look at: the very bytes, and where they go, without the key. Nothing is sent.

Every provider that sends something says what in a method ``encoded(request)``; a wrapper asks the one it wraps, by
`encoded`. Of one that has no such method, because it sends nothing or knows nothing of this, a plain form is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import msgspec

from plait.plain import to_json
from plait.providers.tape import request_data
from plait.providers.wire import Pieces, Span, around

if TYPE_CHECKING:
    from plait.providers.base import Provider, Request


class Encoded(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent for a request.

    Attributes:
        provider: the vendor's name.
        model: the model's name.
        url: where it goes; empty when it goes nowhere.
        headers: what the library says beside what HTTP itself needs; what authorises, and the key wherever it stands,
            is ``***``.
        body: every byte of it.
        prefix: how many bytes of the body, from the first, a prompt cache can keep for the next request: all until the
            end of the last message. What stands behind them says how to answer, and is not read by the model.
        spans: for each message of the request, where in the body it stands: its first byte, and the one behind its
            last. A message of which nothing is sent has a span without length.
        unfetched: the addresses of images that are fetched before the request is sent, because the provider takes
            bytes only. They are not in this body.
    """

    provider: str
    model: str
    url: str = ""
    headers: dict[str, str] = {}
    body: bytes
    prefix: int
    spans: tuple[Span, ...] = ()
    unfetched: tuple[str, ...] = ()

    def __repr__(self) -> str:
        where = f", url={self.url!r}" if self.url else ""
        return f"Encoded({self.provider}:{self.model}{where}, {len(self.body)} bytes, {len(self.spans)} messages)"


class Encodes(Protocol):
    """A provider that says what it sends."""

    def encoded(self, request: Request) -> Encoded:
        """Give what would be sent for a request; nothing is sent, and nothing is fetched.

        Raises:
            ConfigurationError: the request cannot be sent.
        """
        ...


def encoded(provider: Provider, request: Request) -> Encoded:
    """Give what a provider would send for a request. Nothing is sent, and nothing is fetched.

    Args:
        provider: any one. Of a chain it is what is sent first.
        request: what would be asked.

    Returns:
        What `Provider.stream` would send, byte for byte. A provider that does not say what it sends, such as one
        without a network, gets the request as JSON in a form of our own, and no address.

    Raises:
        ConfigurationError: the provider cannot express the request.
    """
    own = getattr(provider, "encoded", None)  # a protocol that is asked at run time takes ten times as long
    return _plainly(provider, request) if own is None else cast("Encodes", provider).encoded(request)


def _plainly(provider: Provider, request: Request) -> Encoded:
    data = request_data(request)
    listed = [to_json(message) for message in data.pop("messages")]
    said = {name: value for name, value in data.items() if value}
    head, tail = around(
        {"model": provider.model, **said, "stream": request.stream}, {"settings", "stream"}, b',"messages":['
    )
    pieces = Pieces(head, listed, tail)
    body = pieces.body()
    return Encoded(
        provider=provider.name,
        model=provider.model,
        body=body,
        prefix=len(body) - len(tail),
        spans=pieces.spans(),
    )
