"""OpenAI's Responses dialect: OpenAI, OpenRouter, and any server that speaks it at a ``base_url``.

Joins the pure parts (`responses_request`, `responses_answer`) to what all dialects share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from plait.providers.remote import HttpProvider
from plait.providers.responses_answer import ResponsesReader
from plait.providers.responses_request import encode_head, instruction_bytes, item_bytes, thinks
from plait.providers.wire import Recent

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
        self._heads: Recent[bytes] = Recent()

    def encode(self, request: Request) -> bytes:
        """Give the body of a request; see `HttpProvider.encode`."""
        head = self._heads.get(
            (request.settings, request.output, request.stream, *request.tools),
            lambda: encode_head(request, self.model, self.name),
        )
        messages = request.messages
        told, earlier = b"", request.earlier
        if messages and messages[0].role == "system":
            told = b',"instructions":' + self._instructions.all(messages[:1])[0]
            messages, earlier = messages[1:], earlier - 1
        items = b",".join(filter(None, self._items.all(messages, earlier)))
        return b"".join((head, told, b',"input":[', items, b"]}"))

    def reader(self, request: Request) -> ResponsesReader:
        """Give what reads the answer to a request."""
        del request
        return ResponsesReader(self._service)
