"""Ollama's own dialect: ``/api/chat``, answered in lines of JSON.

Joins the pure parts (`ollama_request`, `ollama_answer`) to what all dialects share, and fetches the images of which a
message gives the address, for Ollama takes their bytes only.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from plait.attachments import MOST_BYTES, is_web_address
from plait.errors import PlaitError, TransportError, excerpt
from plait.messages import ImagePart, ToolResult
from plait.plain import EMPTY
from plait.providers.http import DEFAULT_LIMITS, Framing, TransportLimits
from plait.providers.image_input import FETCH_SECONDS, Fetching, image_of
from plait.providers.ndjson import LineReader
from plait.providers.ollama_answer import OllamaReader
from plait.providers.ollama_request import addresses_in, encode_rest, message_bytes, without_addresses
from plait.providers.remote import HttpProvider
from plait.providers.wire import Pieces, Recent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plait.messages import Message, Part
    from plait.providers.base import Request
    from plait.providers.http.fetching import Fetched, Resolve
    from plait.providers.vendors import Dialect, Vendor


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
            limits: how long and how much a request may take. Its images are fetched within that time, all of them in 30
                seconds and 50 MB at most.
            allow_private_urls: whether images may be fetched from private networks and this machine, and from any port.
                Not for a program that takes addresses from others.
            resolve: gives the addresses of a name, for images that are fetched; the system does if it is None.

        Raises:
            ConfigurationError: as `HttpProvider`.
        """
        self._fetching = Fetching(allow_private_urls, resolve)
        super().__init__(model, name=name, base_url=base_url, api_key=api_key, headers=headers, limits=limits)

    def _prepare(self, vendor: Vendor) -> None:
        del vendor
        self._messages = message_bytes(self.name, self._fetching)
        self._rests: Recent[tuple[bytes, bytes]] = Recent()

    def pieces(self, request: Request) -> Pieces:
        """Give the body of a request in pieces, with its images fetched; see `HttpProvider.pieces`."""
        head, tail = self._rests.get(
            (request.settings, request.output, request.stream, *request.tools),
            lambda: encode_rest(request, self.model, self.name),
        )
        return Pieces(head, self._messages.all(request.messages, request.earlier), tail)

    async def compose(self, request: Request) -> bytes:
        """Give the body of a request, with the bytes of its images; each message's are fetched once.

        Raises:
            SecurityError: an address is of a private network, or of this machine.
            ConfigurationError: an address is none, or what is there is no whole image.
            TransportError, ProtocolViolation, LimitExceeded: an image could not be fetched; see `fetch`.
        """
        messages, fetch = request.messages, OneBound(self._fetching, min(FETCH_SECONDS, self.total))
        for at in reversed(range(len(messages))):  # the newest, which must be had, come first
            message = messages[at]
            spare = at < request.earlier or message.role == "tool"
            if self._messages.knows(message, spare=spare) or not addresses_in(message):
                continue
            said = await _with_images(message, fetch, spare=spare)
            if addresses_in(said):  # for this request only: the next one may find them
                messages = [*messages[:at], said, *messages[at + 1 :]]
            else:
                self._messages.keep(message, said, spare=spare)
        return self.encode(request if messages is request.messages else replace(request, messages=messages))

    def unfetched(self, request: Request) -> tuple[Request, tuple[str, ...]]:
        """Give a request without the images that are still to be fetched, and their addresses."""
        messages, addresses = list(request.messages), []
        for at, message in enumerate(messages):
            spare = at < request.earlier or message.role == "tool"
            if not self._messages.knows(message, spare=spare) and (found := addresses_in(message)):
                addresses += found
                messages[at] = without_addresses(message)
        return (replace(request, messages=messages), tuple(addresses)) if addresses else (request, ())

    def reader(self, request: Request) -> OllamaReader:
        """Give what reads the answer to a request."""
        del request
        return OllamaReader(self._service)


@dataclass(slots=True)
class OneBound:
    """Gets the images of one request: all of them together within the time and size of one.

    Attributes:
        fetching: gets one.
        within: seconds for all of them.
        left: how many bytes may still come.
    """

    fetching: Fetching
    within: float = FETCH_SECONDS
    left: int = MOST_BYTES
    _began: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    async def __call__(self, url: str, /) -> Fetched:
        """Get what is at an address; see `fetch` for what is raised."""
        seconds = self._began + self.within - asyncio.get_running_loop().time()
        if seconds <= 0:
            msg = f"the images of the request could not be fetched within {self.within:g} s, all of them together"
            raise TransportError(msg, timeout=True)
        found = await self.fetching(url, most=self.left, seconds=seconds)
        self.left -= len(found.data)
        return found


async def _with_images(message: Message, fetch: OneBound, *, spare: bool) -> Message:
    """Give a message with its images in place of their addresses.

    Args:
        message: what is sent.
        fetch: gets what is at an address.
        spare: whether an address stays where it is when nothing can be had from it.
    """

    async def fetched(part: Part) -> Part:
        if not isinstance(part, ImagePart) or part.data is not None or not is_web_address(part.url or ""):
            return part
        try:
            return await image_of(part, fetch, f"the image at {excerpt(part.url or '', 60)!r}")
        except PlaitError:
            if not spare:
                raise
            return part

    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, ToolResult):
            parts.append(part.model_copy(update={"parts": tuple([await fetched(item) for item in part.parts])}))
        else:
            parts.append(await fetched(part))
    return message.model_copy(update={"parts": tuple(parts)})
