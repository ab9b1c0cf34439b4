"""OpenAI's chat dialect: OpenAI, OpenRouter, Ollama, and any server that speaks it at a ``base_url``.

Joins the pure parts (`chat_request`, `chat_answer`) to what all dialects share.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

from plait.plain import to_json
from plait.providers.chat_answer import ChatReader
from plait.providers.chat_request import encode_offers, encode_settings, message_bytes
from plait.providers.remote import HttpProvider
from plait.providers.wire import Recent

if TYPE_CHECKING:
    from plait.providers.base import Request
    from plait.providers.vendors import Dialect, Vendor


class ChatProvider(HttpProvider):
    """A model behind OpenAI's chat dialect; its arguments are those of `HttpProvider`."""

    usual: ClassVar[str] = "openai"
    dialect: ClassVar[Dialect] = "chat"
    path: ClassVar[str] = "/chat/completions"

    def _prepare(self, vendor: Vendor) -> None:
        form = replace(vendor.form, provider=self.name)
        if self.name == "openai" and urlsplit(self.base_url).hostname != "api.openai.com":
            form = replace(form, max_tokens="max_tokens", file_types=frozenset())  # servers like it know the older word
        self._form = form
        self._head = b'{"model":' + to_json(self.model)
        self._messages = message_bytes(form)
        self._offers: Recent[bytes] = Recent()
        self._settings: Recent[bytes] = Recent()

    def encode(self, request: Request) -> bytes:
        """Give the body of a request; see `HttpProvider.encode`."""
        tools, output, settings = request.tools, request.output, request.settings
        if settings.tool_choice == "none" and "tool_choice" in self._form.ignores:
            tools = ()  # there is no other way to say it
        offers = self._offers.get((output, *tools), lambda: encode_offers(tools, output))
        chosen = self._settings.get(
            (settings, request.stream, bool(tools)),
            lambda: encode_settings(settings, self._form, tools=bool(tools), stream=request.stream),
        )
        messages = b",".join(self._messages.all(request.messages))
        return b"".join((self._head, chosen, offers, b',"messages":[', messages, b"]}"))

    def reader(self, request: Request) -> ChatReader:
        """Give what reads the answer to a request."""
        return ChatReader(self._service, expected=request.settings.n or request.settings.extra.get("n", 1))
