"""OpenAI's chat dialect: OpenAI, OpenRouter, Ollama, and any server that speaks it at a ``base_url``.

Joins the pure parts (`chat_request`, `chat_answer`) to what all dialects share.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

from plait.providers.chat_answer import ChatReader
from plait.providers.chat_request import encode_rest, message_bytes
from plait.providers.remote import HttpProvider
from plait.providers.wire import Pieces, Recent

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
        if self.name == "openai" and not f".{urlsplit(self.base_url).hostname}".endswith(".api.openai.com"):
            # Servers like it know the older word, and have no such limits.
            form = replace(form, max_tokens="max_tokens", file_types=frozenset(), longest_id=None)
        self._form = form
        self._messages = message_bytes(form)
        self._rests: Recent[tuple[bytes, bytes]] = Recent()

    def pieces(self, request: Request) -> Pieces:
        """Give the body of a request in pieces; see `HttpProvider.pieces`."""
        head, tail = self._rests.get(
            (request.settings, request.output, request.stream, *request.tools),
            lambda: encode_rest(request, self.model, self._form),
        )
        return Pieces(head, self._messages.all(request.messages, request.earlier), tail)

    def reader(self, request: Request) -> ChatReader:
        """Give what reads the answer to a request."""
        wanted = request.settings.extra.get("n", request.settings.n)
        return ChatReader(self._service, expected=wanted if isinstance(wanted, int) else 1)
