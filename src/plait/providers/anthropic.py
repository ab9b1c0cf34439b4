"""Anthropic's Messages dialect: Claude, and any server that speaks it at a ``base_url``.

Joins the pure parts (`anthropic_request`, `anthropic_answer`) to what all dialects share.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from plait.providers.anthropic_answer import AnthropicReader
from plait.providers.anthropic_request import (
    SYSTEM,
    encode_container,
    encode_rest,
    marked,
    message_bytes,
    opening,
)
from plait.providers.anthropic_schema import enforced, within_limits
from plait.providers.remote import HttpProvider
from plait.providers.wire import Pieces, Recent, laid

if TYPE_CHECKING:
    from plait.providers.base import Request
    from plait.providers.vendors import Dialect, Vendor
    from plait.schema import OutputSchema


class AnthropicProvider(HttpProvider):
    """A model behind Anthropic's Messages API; its arguments are those of `HttpProvider`."""

    usual: ClassVar[str] = "anthropic"
    dialect: ClassVar[Dialect] = "anthropic"
    path: ClassVar[str] = "/v1/messages"
    roots: ClassVar[tuple[str, ...]] = ("/v1",)

    def _prepare(self, vendor: Vendor) -> None:
        del vendor
        self._messages = message_bytes(self.name)
        self._rests: Recent[tuple[bytes, bytes]] = Recent()

    def pieces(self, request: Request) -> Pieces:
        """Give the body of a request in pieces; see `HttpProvider.pieces`."""
        settings, messages = request.settings, request.messages
        said = self._messages.all(messages, request.earlier)
        places = [at for at, message in enumerate(messages) if message.role == "system"]
        told = marked([said[at] for at in places], settings)
        system = b",".join(filter(None, told))
        for at in reversed(places):
            del said[at]
        head, tail = self._rests.get(
            (settings, request.output, request.stream, not system, *request.tools),
            lambda: encode_rest(request, self.model, self.name, strict=self._asking.native, bare=not system),
        )
        if settings.extra:
            tail = tail[:-1] + encode_container(request, self.name, datetime.now(UTC)) + b"}"
        apart = dict(zip(places, laid(len(head) + len(SYSTEM), told), strict=True))
        known = SYSTEM + system + b"]" if system else b""
        return Pieces(b"".join((head, known, b',"messages":[', opening(said))), said, tail, apart)

    def enforces(self, output: OutputSchema[Any]) -> bool:
        """Say whether the API can enforce an output's schema; see `HttpProvider.enforces`."""
        return enforced(output.schema) is not None and within_limits((), output)

    def reader(self, request: Request) -> AnthropicReader:
        """Give what reads the answer to a request."""
        del request
        return AnthropicReader(self._service)
