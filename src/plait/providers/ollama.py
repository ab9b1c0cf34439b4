"""Ollama's own dialect: ``/api/chat``, answered in lines of JSON.

Joins the pure parts (`ollama_request`, `ollama_answer`) to what all dialects share, and fetches the images of which a
message gives the address, for Ollama takes their bytes only.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from plait.errors import ConfigurationError, excerpt
from plait.messages import ImagePart, ToolResult
from plait.plain import EMPTY, to_json
from plait.providers.http import DEFAULT_LIMITS, Framing, TransportLimits
from plait.providers.ndjson import LineReader
from plait.providers.ollama_answer import OllamaReader
from plait.providers.ollama_request import Unfetched, encode_message, encode_offers, encode_settings, message_bytes
from plait.providers.remote import HttpProvider
from plait.providers.wire import Recent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plait.messages import Part
    from plait.providers.base import Request
    from plait.providers.http.fetching import Resolve
    from plait.providers.vendors import Dialect, Vendor

_MOST_BYTES: Final = 20 * 2**20  # of one image that is fetched
_SECONDS: Final = 30.0  # for it
_SCHEMES: Final = ("http:", "https:", "data:")


class OllamaProvider(HttpProvider):
    """A model behind Ollama's own dialect."""

    usual: ClassVar[str] = "ollama"
    dialect: ClassVar[Dialect] = "ollama"
    path: ClassVar[str] = "/api/chat"
    roots: ClassVar[tuple[str, ...]] = ("/v1", "/api")
    framing: ClassVar[type[Framing]] = LineReader

    def __init__(
        self,
        model: str,
        *,
        name: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        headers: Mapping[str, str] = EMPTY,
        limits: TransportLimits = DEFAULT_LIMITS,
        allow_private_urls: bool = False,
        resolve: Resolve | None = None,
    ) -> None:
        """Find the address; nothing is sent, and nothing is written to the environment.

        Args:
            model: the model's name, as in ``ollama list``.
            name: as for `HttpProvider`, and so the next four.
            base_url: where Ollama is; without one ``OLLAMA_HOST``, else this machine.
            api_key: the key, which only some servers want.
            headers: further headers, which take the place of ours.
            limits: how long and how much a request may take. Images are fetched before it, each within 30 seconds and
                20 MB.
            allow_private_urls: whether images may be fetched from private networks and this machine, and from any port.
                Not for a program that takes addresses from others.
            resolve: gives the addresses of a name, for images that are fetched; the system does if it is None.

        Raises:
            ConfigurationError: as `HttpProvider`.
        """
        self._allow_private = allow_private_urls
        self._resolve = resolve
        super().__init__(model, name=name, base_url=base_url, api_key=api_key, headers=headers, limits=limits)

    def _prepare(self, vendor: Vendor) -> None:
        del vendor
        self._head = b'{"model":' + to_json(self.model)
        self._messages = message_bytes(self.name, private=self._allow_private)
        self._offers: Recent[bytes] = Recent()
        self._settings: Recent[bytes] = Recent()

    def encode(self, request: Request) -> bytes:
        """Give the body of a request; see `HttpProvider.encode`.

        Raises:
            Unfetched: an image in it has an address only, and was not fetched yet; `compose` fetches it.
        """
        settings = request.settings
        tools = () if settings.tool_choice == "none" else request.tools  # there is no other way to say it
        offers = self._offers.get((request.output, *tools), lambda: encode_offers(tools, request.output))
        chosen = self._settings.get(
            (settings, request.stream, bool(tools)),
            lambda: encode_settings(settings, self.name, tools=bool(tools), stream=request.stream),
        )
        messages = b",".join(self._messages.all(request.messages))
        return b"".join((self._head, chosen, offers, b',"messages":[', messages, b"]}"))

    async def compose(self, request: Request) -> bytes:
        """Give the body of a request, with the bytes of its images; each message's are fetched once.

        Raises:
            SecurityError: an address is of a private network, or of this machine.
            ConfigurationError: an address is none, or what is there is no whole image.
            TransportError, ProtocolViolation, LimitExceeded: an image could not be fetched; see `fetch`.
        """
        while True:
            try:
                return self.encode(request)
            except Unfetched as found:
                message = found.message
            fetched = message.model_copy(update={"parts": [await self._with_data(part) for part in message.parts]})
            self._messages.keep(message, encode_message(fetched, self.name))

    async def _with_data(self, part: Part) -> Part:
        """Give a part with the bytes of its images in place of their addresses."""
        if isinstance(part, ToolResult):
            return part.model_copy(update={"parts": [await self._with_data(item) for item in part.parts]})
        if not isinstance(part, ImagePart) or part.data is not None or part.url is None:
            return part
        if not part.url.lower().startswith(_SCHEMES):
            msg = f"the image {excerpt(part.url, 60)!r} is no address; it must begin with http:, https: or data:"
            raise ConfigurationError(msg)
        from plait.providers.http.fetching import fetch  # it imports aiohttp
        from plait.providers.image_input import image_of

        get = partial(
            fetch,
            most=_MOST_BYTES,
            seconds=_SECONDS,
            allow_private=self._allow_private,
            resolve=self._resolve,
        )
        return await image_of(part, get, f"the image at {excerpt(part.url, 60)!r}")

    def reader(self, request: Request) -> OllamaReader:
        """Give what reads the answer to a request."""
        del request
        return OllamaReader(self._service)
