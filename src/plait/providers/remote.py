"""Asking a model over HTTP: what all dialects share.

Joins a dialect's pure parts (a request's bytes, a reader of answers) to the HTTP client. Knows no dialect; each is a
subclass that says how requests are written and answers are read. Knows nothing of agents, limits or retries.
"""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn
from urllib.parse import urlsplit

from plait.errors import ConfigurationError, LimitExceeded, ModelError, TransportError
from plait.plain import EMPTY
from plait.providers.encoding import Encoded
from plait.providers.http import DEFAULT_LIMITS, Endpoint, Framing, TransportLimits, address_of
from plait.providers.reading import AnswerByTool
from plait.providers.sse import EventReader
from plait.providers.status import Service
from plait.providers.structured import Asking
from plait.providers.vendors import HIDDEN, address_for, authorises, find_vendor, headers_for, key_of, secrets_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from plait.events import Delta
    from plait.providers.base import Request
    from plait.providers.judging import Judge
    from plait.providers.vendors import Dialect, Vendor
    from plait.providers.wire import Pieces
    from plait.schema import OutputSchema


class HttpProvider:
    """A model behind an HTTP API.

    Attributes:
        name: the vendor's name; a message's own fields go back only to the vendor they came from.
        model: the model's name.
        base_url: where it is asked, without the dialect's path.
        total: seconds within which a request of it ends by itself.
    """

    usual: ClassVar[str]  # the vendor that is meant when none is named
    dialect: ClassVar[Dialect]
    path: ClassVar[str]  # what is asked, below the base URL
    roots: ClassVar[tuple[str, ...]] = ()  # what people end a base URL with, although the path says it
    framing: ClassVar[type[Framing]] = EventReader  # finds the records in a stream

    def __init__(
        self,
        model: str,
        *,
        name: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        headers: Mapping[str, str] = EMPTY,
        limits: TransportLimits = DEFAULT_LIMITS,
    ) -> None:
        """Find address and key; nothing is sent, and nothing is written to the environment.

        Args:
            model: the model's name, as the vendor spells it.
            name: a vendor that speaks this dialect, or any other name for a server at ``base_url``; without one, the
                vendor whose dialect it is.
            base_url: where the API is; without one the vendor's variable, else its usual address.
            api_key: the key; without one the vendor's variable is read.
            headers: further headers, which take the place of ours.
            limits: how long and how much a request may take.

        Raises:
            ConfigurationError: no key is set, the vendor is unknown, or an address or header cannot be sent.
        """
        if not isinstance(limits, TransportLimits):
            msg = f"limits must be TransportLimits(...), not {type(limits).__name__}"
            raise ConfigurationError(msg)
        name = name or self.usual
        vendor = find_vendor(name, self.dialect, base_url)
        url = address_for(vendor, base_url)
        for root in self.roots:
            url = url.removesuffix(root)
        address = address_of(url)
        key = key_of(name, vendor, api_key, needed=vendor.key_needed and base_url is None)
        sent = headers_for(vendor, key, headers)
        self.name = name
        self.model = model
        self.base_url = url
        self.total = limits.total
        self._service = Service(
            provider=name,
            address=address,
            model=model,
            key_variable=vendor.key_variable,
            unreachable=vendor.unreachable,
            get_model=f"{vendor.get_model} {model}" if vendor.get_model else "",
            path=urlsplit(f"{url}{self.path}").path,
            secrets=secrets_in(key, sent),
        )
        self._headers = sent
        self._key_header = vendor.key_header
        self._endpoint = Endpoint(f"{url}{self.path}", self._service, headers=sent, limits=limits)
        self._asking = Asking(name, model, vendor.output_modes)
        self._prepare(vendor)

    def _prepare(self, vendor: Vendor) -> None:
        """Make what the dialect needs for every request."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r}, name={self.name!r}, base_url={self.base_url!r})"

    def __reduce__(self) -> NoReturn:
        msg = "a provider holds a key and an event loop's connections; make a new one in the other process"
        raise TypeError(msg)

    def pieces(self, request: Request) -> Pieces:
        """Give the body of a request in pieces: what the model reads first, so that a thread's bodies begin alike.

        Raises:
            ConfigurationError: a message or setting cannot be said in the dialect.
        """
        raise NotImplementedError

    def encode(self, request: Request) -> bytes:
        """Give the body of a request.

        Raises:
            ConfigurationError: as `pieces`.
        """
        return self.pieces(request).body()

    def encoded(self, request: Request) -> Encoded:
        """Give what `stream` would send for a request; nothing is sent, and nothing is fetched.

        Raises:
            ConfigurationError: the request cannot be said in the dialect.
        """
        formed, _ = self._formed(request)
        added = len(formed.messages) - len(request.messages)  # in front, of what the answer must be
        sayable, unfetched = self.unfetched(formed)
        pieces = self.pieces(sayable)
        body = pieces.body()
        return Encoded(
            provider=self.name,
            model=self.model,
            url=f"{self.base_url}{self.path}",
            headers=dict(self._shown_headers),
            body=body,
            prefix=len(body) - len(pieces.tail),
            spans=pieces.spans()[added:],
            unfetched=unfetched,
        )

    @cached_property
    def _shown_headers(self) -> dict[str, str]:
        """The headers without what authorises."""
        return {
            name: HIDDEN if name == self._key_header or authorises(name) else self._service.clean(value)
            for name, value in self._headers.items()
        }

    async def compose(self, request: Request) -> bytes:
        """Give the body of a request, after what it takes beside encoding: a dialect may have to fetch something.

        Raises:
            ConfigurationError: as `encode`.
        """
        return self.encode(request)

    def unfetched(self, request: Request) -> tuple[Request, tuple[str, ...]]:
        """Give a request as far as it can be encoded, and the addresses of what `compose` would fetch first."""
        return request, ()

    def _formed(self, request: Request) -> tuple[Request, str | None]:
        """Give the request to encode, and the tool whose arguments are the answer, if one is; see `Asking.form`."""
        if not request.messages:
            msg = "the request has no messages; give it at least what a user says"
            raise ConfigurationError(msg)
        output = request.output
        return (request, None) if output is None else self._asking.form(request, output, self.enforces)

    def enforces(self, output: OutputSchema[Any]) -> bool:
        """Say whether the dialect can have an output's very schema enforced; a dialect may take some only."""
        del output
        return True

    def reader(self, request: Request) -> Judge[Any]:
        """Give what reads the answer to a request."""
        raise NotImplementedError

    async def stream(self, request: Request) -> AsyncGenerator[list[Delta], None]:
        """Answer a request; see `Provider.stream`.

        Raises:
            ConfigurationError: the request cannot be said in the dialect; nothing was sent.
            ModelError: see the tree in `plait.errors`; ``partial`` is the text that had arrived.
            LimitExceeded: the answer is too large.
        """
        request, tool = self._formed(request)
        began = asyncio.get_running_loop().time()
        body = await self.compose(request)
        judge = self.reader(request)
        reader: Judge[Any] | AnswerByTool = judge if tool is None else AnswerByTool(judge, tool)
        if not request.stream:
            yield reader.whole(await self._endpoint.post(body, began))
            return
        opened = await self._endpoint.open(body, self.framing(), began)
        del body  # it may be large, and the stream long
        if isinstance(opened, bytes):  # some servers do not stream, whatever they are asked
            yield reader.whole(opened)
            return
        try:
            broken = None
            while not reader.done:
                try:
                    events = await opened.read()
                except TransportError as error:
                    broken = error
                    break
                if events is None:
                    break
                deltas = reader.feed(events)
                if deltas:
                    yield deltas
                del events, deltas  # they need not last until the next ones come
            yield reader.end(opened.beginning, broken=broken)
            await opened.finish()
        except (ModelError, LimitExceeded) as error:
            error.partial = error.partial or reader.partial
            raise
        finally:
            opened.close()
