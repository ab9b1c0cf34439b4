"""Ollama's own dialect: ``/api/chat``, answered in lines of JSON.

Joins the pure parts (`ollama_request`, `ollama_answer`) to what all dialects share, and fetches the images of which a
message gives the address, for Ollama takes their bytes only.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from plait.errors import ConfigurationError, PlaitError, excerpt
from plait.messages import ImagePart, ToolResult
from plait.plain import EMPTY
from plait.providers.history import Unfetched, spared
from plait.providers.http import DEFAULT_LIMITS, Framing, TransportLimits
from plait.providers.ndjson import LineReader
from plait.providers.ollama_answer import OllamaReader
from plait.providers.ollama_request import encode_head, encode_message, message_bytes
from plait.providers.remote import HttpProvider
from plait.providers.wire import Recent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plait.messages import Message, Part
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
        self._messages = message_bytes(self.name, private=self._allow_private)
        self._heads: Recent[bytes] = Recent()

    def encode(self, request: Request) -> bytes:
        """Give the body of a request; see `HttpProvider.encode`.

        Raises:
            Unfetched: an image in it has an address only, and was not fetched yet; `compose` fetches it.
        """
        head = self._heads.get(
            (request.settings, request.output, request.stream, *request.tools),
            lambda: encode_head(request, self.model, self.name),
        )
        messages = b",".join(self._messages.all(request.messages, request.earlier))
        return b"".join((head, b',"messages":[', messages, b"]}"))

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
            try:
                fetched = message.model_copy(update={"parts": [await self._with_data(part) for part in message.parts]})
            except PlaitError:
                if not any(message is said for said in request.messages[: request.earlier]):
                    raise
                # For this request only: the next one may find it.
                other = spared(message, self._encode_fetched)
                messages = [other if said is message else said for said in request.messages]
                request = replace(request, messages=messages)
            else:
                self._messages.keep(message, encode_message(fetched, self.name))

    def _encode_fetched(self, message: Message) -> bytes:
        """Encode a message of which nothing is fetched any more.

        Raises:
            ConfigurationError: it has a part that cannot be sent.
        """
        try:
            return encode_message(message, self.name)
        except Unfetched as error:
            raise ConfigurationError(str(error)) from None

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
