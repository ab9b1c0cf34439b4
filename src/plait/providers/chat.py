"""OpenAI's chat dialect: OpenAI, OpenRouter, Ollama, and any server that speaks it at a ``base_url``.

Joins the pure parts (`chat_request`, `chat_answer`) to the HTTP client, and knows the vendors: where they are,
which variable their key is in, and what they read differently. Knows nothing of agents, limits or retries.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import urlsplit

from plait.errors import ConfigurationError, LimitExceeded, ModelError, TransportError
from plait.frozen import to_json
from plait.providers.chat_answer import AnswerReader
from plait.providers.chat_request import Form, encode_offers, encode_settings, message_bytes
from plait.providers.http import DEFAULT_LIMITS, Endpoint, TransportLimits, address_of
from plait.providers.status import Service
from plait.providers.wire import Recent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from plait.events import Delta
    from plait.providers.base import Request

_SECRET_HEADERS: Final = ("auth", "key", "token", "secret", "cookie")
_SHORTEST_SECRET: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatVendor:
    """A vendor that speaks the dialect; a new one is an entry in `VENDORS`.

    Attributes:
        base_url: where its API is.
        key_variable: the environment variable its key is usually in.
        key_needed: whether it answers nobody without one.
        base_url_variable: the environment variable that names another address.
        unreachable: what to do when nobody answers there.
        form: what it reads differently; its ``provider`` is filled in.
    """

    base_url: str
    key_variable: str | None = None
    key_needed: bool = True
    base_url_variable: str | None = None
    unreachable: str = "check the network, and base_url if you gave one"
    form: Form = Form(provider="")  # noqa: RUF009  # frozen


VENDORS: Final[dict[str, ChatVendor]] = {
    "openai": ChatVendor(
        base_url="https://api.openai.com/v1",
        key_variable="OPENAI_API_KEY",
        base_url_variable="OPENAI_BASE_URL",
    ),
    "openrouter": ChatVendor(
        base_url="https://openrouter.ai/api/v1",
        key_variable="OPENROUTER_API_KEY",
        form=Form(provider="", reasoning="reasoning", details=("reasoning_details", "annotations"), file_urls=True),
    ),
    "ollama": ChatVendor(
        base_url="http://localhost:11434/v1",
        key_variable="OLLAMA_API_KEY",
        key_needed=False,
        base_url_variable="OLLAMA_HOST",
        unreachable="start Ollama there (ollama serve), or correct OLLAMA_HOST or base_url",
        form=Form(provider="", reasoning="reasoning"),
    ),
}


class ChatProvider:
    """A model behind OpenAI's chat dialect.

    Attributes:
        name: the vendor's name; a message's own fields go back only to the vendor they came from.
        model: the model's name.
        base_url: where it is asked, without ``/chat/completions``.
        total: seconds within which a request of it ends by itself.
    """

    def __init__(
        self,
        model: str,
        *,
        name: str = "openai",
        base_url: str | None = None,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        limits: TransportLimits = DEFAULT_LIMITS,
    ) -> None:
        """Find address and key; nothing is sent, and nothing is written to the environment.

        Args:
            model: the model's name, as the vendor spells it.
            name: one of `VENDORS`, or any other name for a server at ``base_url``.
            base_url: where the API is; without one the vendor's variable, else its usual address.
            api_key: the key; without one the vendor's variable is read.
            headers: further headers, which take the place of ours.
            limits: how long and how much a request may take.

        Raises:
            ConfigurationError: no key is set, the vendor is unknown, or an address or header cannot be sent.
        """
        vendor = VENDORS.get(name)
        if vendor is None:
            if base_url is None:
                msg = f"there is no vendor {name!r}; name one of {', '.join(VENDORS)}, or give a base_url"
                raise ConfigurationError(msg)
            vendor = ChatVendor(base_url=base_url, key_needed=False)
        url = (base_url or _from_environment(vendor) or vendor.base_url).rstrip("/")
        address = address_of(url)
        key = _key(name, vendor, api_key, needed=vendor.key_needed and base_url is None)
        sent = _headers(key, headers or {})
        own = urlsplit(url).hostname == "api.openai.com"  # which takes no max_tokens for its newer models
        self.name = name
        self.model = model
        self.base_url = url
        self.total = limits.total
        self._form = replace(
            vendor.form, provider=name, max_tokens="max_completion_tokens" if own else vendor.form.max_tokens
        )
        self._service = Service(
            provider=name,
            address=address,
            model=model,
            key_variable=vendor.key_variable,
            unreachable=vendor.unreachable,
            secrets=_secrets(key, sent),
        )
        self._head = b'{"model":' + to_json(model)
        self._endpoint = Endpoint(f"{url}/chat/completions", self._service, headers=sent, limits=limits)
        self._messages = message_bytes(self._form)
        self._offers: Recent[bytes] = Recent()
        self._settings: Recent[bytes] = Recent()

    def __repr__(self) -> str:
        return f"ChatProvider({self.model!r}, name={self.name!r}, base_url={self.base_url!r})"

    def __reduce__(self) -> NoReturn:
        msg = "a provider holds a key and an event loop's connections; make a new one in the other process"
        raise TypeError(msg)

    def encode(self, request: Request) -> bytes:
        """Give the body of a request: the constant part, then the messages, so that a thread's bodies begin alike.

        Raises:
            ConfigurationError: a message or setting cannot be said in the dialect.
        """
        tools, output, settings = request.tools, request.output, request.settings
        offers = self._offers.get((output, *tools), lambda: encode_offers(tools, output))
        chosen = self._settings.get(
            (settings, request.stream, bool(tools)),
            lambda: encode_settings(settings, self._form, tools=bool(tools), stream=request.stream),
        )
        messages = b",".join(self._messages.all(request.messages))
        return b"".join((self._head, chosen, offers, b',"messages":[', messages, b"]}"))

    async def stream(self, request: Request) -> AsyncGenerator[list[Delta], None]:
        """Answer a request; see `Provider.stream`.

        Raises:
            ConfigurationError: the request cannot be said in the dialect; nothing was sent.
            ModelError: see the tree in `plait.errors`; ``partial`` is the text that had arrived.
            LimitExceeded: the answer is too large.
        """
        body = self.encode(request)
        expected = request.settings.n or request.settings.extra.get("n", 1)
        reader = AnswerReader(self._service, expected=expected)
        if not request.stream:
            yield reader.whole(await self._endpoint.post(body))
            return
        opened = await self._endpoint.open(body)
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


def _from_environment(vendor: ChatVendor) -> str | None:
    """Read the vendor's address variable; Ollama's own form of it (``host``, ``:port``, ``host:port``) is completed."""
    value = os.environ.get(vendor.base_url_variable, "").strip() if vendor.base_url_variable else ""
    if not value or vendor.base_url_variable != "OLLAMA_HOST":
        return value or None
    scheme, _, rest = value.rpartition("://")
    host, _, path = rest.partition("/")
    if host.startswith(":"):
        host = f"localhost{host}"
    if not scheme and urlsplit(f"//{host}").port is None:
        host = f"{host}:11434"
    host = host.replace("0.0.0.0", "127.0.0.1")  # noqa: S104  # where it listens is no address to ask
    return f"{scheme or 'http'}://{host}/{path}".rstrip("/").removesuffix("/v1") + "/v1"


def _key(name: str, vendor: ChatVendor, given: str | None, *, needed: bool) -> str | None:
    variable = vendor.key_variable
    key = (given if given is not None else os.environ.get(variable, "") if variable else "").strip()
    if not key and needed:
        msg = f"provider {name!r} needs a key: set {variable}, or pass api_key=..."
        raise ConfigurationError(msg)
    if not key.isascii() or not key.isprintable():
        msg = (
            f"the key of provider {name!r} has characters that cannot be sent in a header; check api_key or {variable}"
        )
        raise ConfigurationError(msg)
    return key or None


def _headers(key: str | None, given: Mapping[str, str]) -> dict[str, str]:
    sent = {"content-type": "application/json", "accept": "application/json, text/event-stream", "user-agent": "plait"}
    if key is not None:
        sent["authorization"] = f"Bearer {key}"
    for name, value in given.items():
        if not (isinstance(value, str) and value.isprintable() and name.isascii() and name.isprintable() and name):
            msg = f"the header {name!r} cannot be sent: its name and value must be text without line ends"
            raise ConfigurationError(msg)
        sent[name.lower()] = value
    return sent


def _secrets(key: str | None, headers: Mapping[str, str]) -> tuple[str, ...]:
    """Collect what must not appear in errors: the key, and what headers authorise with."""
    found = {key} if key else set()
    for name, value in headers.items():
        if any(word in name for word in _SECRET_HEADERS):
            found |= {value, value.rpartition(" ")[2]}
    found |= {to_json(text)[1:-1].decode() for text in found}
    found |= {text.replace("/", r"\/") for text in found}  # some write JSON so
    return tuple(sorted((text for text in found if len(text) >= _SHORTEST_SECRET), key=len, reverse=True))
