"""OpenAI's Responses dialect: OpenAI, OpenRouter, and any server that speaks it at a ``base_url``.

Joins the pure parts (`responses_request`, `responses_answer`) to what all dialects share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from plait.providers.remote import HttpProvider
from plait.providers.responses_answer import ResponsesReader
from plait.providers.responses_request import encode_rest, instruction_bytes, item_bytes, thinks
from plait.providers.wire import Pieces, Recent

if TYPE_CHECKING:
    from plait.providers.base import Request
    from plait.providers.vendors import Dialect, Vendor


class ResponsesProvider(HttpProvider):
    """A model behind OpenAI's Responses API; its arguments are those of `HttpProvider`."""

    usual: ClassVar[str] = "openai-responses"
    dialect: ClassVar[Dialect] = "responses"
    path: ClassVar[str] = "/responses"

    def _prepare(self, vendor: Vendor) -> None:
        del vendor
        self._instructions = instruction_bytes(self.name)
        self._items = item_bytes(self.name, thoughts=thinks(self.model) is not False)
        self._rests: Recent[tuple[bytes, bytes]] = Recent()

    def pieces(self, request: Request) -> Pieces:
        """Give the body of a request in pieces; see `HttpProvider.pieces`."""
        head, tail = self._rests.get(
            (request.settings, request.output, request.stream, *request.tools),
            lambda: encode_rest(request, self.model, self.name),
        )
        messages = request.messages
        if not messages or messages[0].role != "system":
            return Pieces(head + b',"input":[', self._items.all(messages, request.earlier), tail)
        before = head + b',"instructions":'
        told = self._instructions.all(messages[:1])[0]
        apart = {0: (len(before), len(before) + len(told))}
        items = self._items.all(messages[1:], request.earlier - 1)
        return Pieces(b"".join((before, told, b',"input":[')), items, tail, apart)

    def reader(self, request: Request) -> ResponsesReader:
        """Give what reads the answer to a request."""
        del request
        return ResponsesReader(self._service)
