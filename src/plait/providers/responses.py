"""OpenAI's Responses dialect: OpenAI, OpenRouter, and any server that speaks it at a ``base_url``.

Joins the pure parts (`responses_request`, `responses_answer`) to what all dialects share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from plait.plain import to_json
from plait.providers.remote import HttpProvider
from plait.providers.responses_answer import ResponsesReader
from plait.providers.responses_request import encode_options, instruction_bytes, item_bytes, thinks
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
        self._head = b'{"model":' + to_json(self.model)
        self._instructions = instruction_bytes(self.name)
        self._items = item_bytes(self.name, thoughts=thinks(self.model) is not False)
        self._options: Recent[bytes] = Recent()

    def encode(self, request: Request) -> bytes:
        """Give the body of a request; see `HttpProvider.encode`."""
        settings, tools, output, messages = request.settings, request.tools, request.output, request.messages
        options = self._options.get(
            (settings, output, request.stream, *tools),
            lambda: encode_options(
                settings, tools, output, provider=self.name, model=self.model, stream=request.stream
            ),
        )
        told = b""
        if messages and messages[0].role == "system":
            told = b',"instructions":' + self._instructions.all(messages[:1])[0]
            messages = messages[1:]
        items = b",".join(filter(None, self._items.all(messages)))
        return b"".join((self._head, options, told, b',"input":[', items, b"]}"))

    def reader(self, request: Request) -> ResponsesReader:
        """Give what reads the answer to a request."""
        del request
        return ResponsesReader(self._service)
