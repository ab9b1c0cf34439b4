"""Asking a model over HTTP: what all dialects share.

Joins a dialect's pure parts (a request's bytes, a reader of answers) to the HTTP client. Knows no dialect; each is a
subclass that says how requests are written and answers are read. Knows nothing of agents, limits or retries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NoReturn, Protocol

from plait.errors import LimitExceeded, ModelError, TransportError
from plait.plain import EMPTY
from plait.providers.http import DEFAULT_LIMITS, Endpoint, Framing, TransportLimits, address_of
from plait.providers.sse import EventReader
from plait.providers.status import Service
from plait.providers.vendors import address_for, find_vendor, headers_for, key_of, secrets_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping

    from plait.events import Delta
    from plait.providers.base import Request
    from plait.providers.vendors import Dialect, Vendor


class AnswerReader(Protocol):
    """Turns one answer's bytes into deltas, and judges at its end whether it was complete. Pure; it does no I/O.

    Attributes:
        done: whether what comes now is of no interest: the server said so, or it failed.
    """

    done: bool

    @property
    def partial(self) -> str:
        """The text of the first choice so far."""
        ...

    def whole(self, body: bytes) -> list[Delta]:
        """Read an answer in one piece."""
        ...

    def feed(self, events: Iterable[bytes]) -> list[Delta]:
        """Read the events of one socket read; what is wrong with one of them is raised by `end`."""
        ...

    def end(self, beginning: bytes = b"", *, broken: TransportError | None = None) -> list[Delta]:
        """Judge a stream at its end: give the end mark of the answer, or raise what is wrong with it.

        Args:
            beginning: the first bytes of the stream, to show if there was no event in it.
            broken: how the stream broke off, if it did.
        """
        ...


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
            secrets=secrets_in(key, sent),
        )
        self._endpoint = Endpoint(f"{url}{self.path}", self._service, headers=sent, limits=limits)
        self._prepare(vendor)

    def _prepare(self, vendor: Vendor) -> None:
        """Make what the dialect needs for every request."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r}, name={self.name!r}, base_url={self.base_url!r})"

    def __reduce__(self) -> NoReturn:
        msg = "a provider holds a key and an event loop's connections; make a new one in the other process"
        raise TypeError(msg)

    def encode(self, request: Request) -> bytes:
        """Give the body of a request: the constant part first, so that a thread's bodies begin alike.

        Raises:
            ConfigurationError: a message or setting cannot be said in the dialect.
        """
        raise NotImplementedError

    def reader(self, request: Request) -> AnswerReader:
        """Give what reads the answer to a request."""
        raise NotImplementedError

    async def stream(self, request: Request) -> AsyncGenerator[list[Delta], None]:
        """Answer a request; see `Provider.stream`.

        Raises:
            ConfigurationError: the request cannot be said in the dialect; nothing was sent.
            ModelError: see the tree in `plait.errors`; ``partial`` is the text that had arrived.
            LimitExceeded: the answer is too large.
        """
        body = self.encode(request)
        reader = self.reader(request)
        if not request.stream:
            yield reader.whole(await self._endpoint.post(body))
            return
        opened = await self._endpoint.open(body, self.framing())
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
