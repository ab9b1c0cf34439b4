"""Who the vendors are: where they listen, which dialect they speak, and what authorises a request to them.

A vendor is a value; a new one is an entry in `VENDORS`, made here or by `plait.register_provider`. Keys are taken
from the argument, else from the vendor's usual variable; nothing is written to the environment. Knows no HTTP and
says nothing of how a dialect is written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, Literal, get_args
from urllib.parse import urlsplit

from plait.errors import ConfigurationError, excerpt
from plait.plain import EMPTY, to_json
from plait.providers.base import OUTPUT_MODES, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from plait.providers.base import OutputMode

Dialect = Literal["chat", "responses", "anthropic", "ollama"]
"""The wire formats: OpenAI's chat and Responses, Anthropic's Messages, Ollama's own."""

HIDDEN: Final = "***"
"""What is shown in place of a secret."""

_SECRET_HEADERS: Final = ("auth", "key", "token", "secret", "cookie", "password", "credential")
_SHORTEST_SECRET: Final = 6
_OLLAMA_PORT: Final = 11434
_is_header = re.compile(
    r"[\w!#$%&'*+.^`|~-]+", re.ASCII
).fullmatch  # https://www.rfc-editor.org/rfc/rfc9110#name-tokens


def _check_words(what: str, given: Iterable[str], known: Sequence[str]) -> None:
    for word in (given,) if isinstance(given, str) else given:
        if word not in known:
            msg = f"{what}: there is no {word!r:.60}; there are {', '.join(known)}"
            raise ConfigurationError(msg)


def _sendable(headers: Mapping[str, str]) -> dict[str, str]:
    """Give headers by lower-case name.

    Raises:
        ConfigurationError: one of them cannot be sent.
    """
    if not isinstance(headers, Mapping):
        msg = f"headers must be a dict of names and values, not {type(headers).__name__}"
        raise ConfigurationError(msg)
    for name, value in headers.items():
        if not (isinstance(name, str) and _is_header(name) and isinstance(value, str) and value.isprintable()):
            msg = f"the header {name!r:.60} cannot be sent: its name and value must be text without line ends"
            raise ConfigurationError(msg)
    return {name.lower(): value for name, value in headers.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatForm:
    """What vendors that speak the chat dialect read differently.

    Attributes:
        provider: the vendor's name, which is filled in; its own fields of a message go back to no other.
        reasoning: the field in which a vendor takes back what its model thought, as text.
        details: its own fields of an answer that are kept, and sent back unchanged.
        images: whether it takes back the images that its models made.
        takes: the kinds of parts that it takes beside text.
        image_urls: whether an image may be the address of one.
        file_urls: whether a file may be the address of one.
        file_types: the media types of the files that it takes; none stands for all.
        ignores: the settings that it passes over, and that are refused therefore.
        max_tokens: the field for the most tokens of an answer.
        longest_id: the most letters of a call's id that it takes; other providers use more.
    """

    provider: str = ""
    reasoning: str | None = None
    details: tuple[str, ...] = ("reasoning_details",)
    images: bool = False
    takes: frozenset[str] = frozenset({"image", "audio", "file"})
    image_urls: bool = True
    file_urls: bool = False
    file_types: frozenset[str] = frozenset()
    ignores: frozenset[str] = frozenset()
    max_tokens: str = "max_tokens"
    longest_id: int | None = None

    def __post_init__(self) -> None:
        """Check the words in it.

        Raises:
            ConfigurationError: a kind of part, or a setting, is none.
        """
        _check_words("takes of a ChatForm", self.takes, ("image", "audio", "file"))
        _check_words("ignores of a ChatForm", self.ignores, [field.name for field in fields(Settings)])


PLAIN_FORM: Final = ChatForm()


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """A service with models behind it.

    Attributes:
        base_url: where its API is.
        dialect: what it speaks.
        key_variable: the environment variable its key is usually in.
        key_needed: whether it answers nobody without one.
        key_header: the header that carries the key; in ``authorization`` it is a bearer token.
        headers: what else is sent with every request.
        base_url_variable: the environment variable that names another address.
        unreachable: what to do when nobody answers there.
        get_model: the command that gets a model which is not there, but for its name.
        output_modes: how it can be asked for an answer of an output type, best first; see `Settings.output_mode`. Leave
            ``"native"`` out where a JSON Schema is not enforced, and ``"tool"`` where no call can be demanded.
        form: what it reads differently in the chat dialect.
    """

    base_url: str
    dialect: Dialect = "chat"
    key_variable: str | None = None
    key_needed: bool = True
    key_header: str = "authorization"
    headers: Mapping[str, str] = EMPTY
    base_url_variable: str | None = None
    unreachable: str = "check the network, and base_url if you gave one"
    get_model: str = ""
    output_modes: tuple[OutputMode, ...] = OUTPUT_MODES
    form: ChatForm = PLAIN_FORM

    def __post_init__(self) -> None:
        """Check what is said of it; names of headers are told apart without regard to case.

        Raises:
            ConfigurationError: something in it makes no sense.
        """
        for name in ("base_url", "key_header"):
            if not isinstance(value := getattr(self, name), str) or not value:
                msg = f"{name} of a Vendor must be a text that is not empty, not {value!r:.60}"
                raise ConfigurationError(msg)
        _check_words("dialect of a Vendor", [self.dialect], get_args(Dialect))
        _check_words("output_modes of a Vendor", self.output_modes, OUTPUT_MODES)
        if not isinstance(self.form, ChatForm):
            msg = f"form of a Vendor must be a ChatForm, not {type(self.form).__name__}"
            raise ConfigurationError(msg)
        object.__setattr__(self, "key_header", self.key_header.lower())
        object.__setattr__(self, "headers", _sendable(self.headers))


_OPENROUTER: Final = "https://openrouter.ai/api/v1"
_PULL: Final = "ollama pull"
_OF_OLLAMA: Final[tuple[OutputMode, ...]] = ("native", "prompt")  # it takes no tool_choice
_START_OLLAMA: Final = "start Ollama there (ollama serve), or correct OLLAMA_HOST or base_url"

VENDORS: Final[dict[str, Vendor]] = {
    "openai": Vendor(
        base_url="https://api.openai.com/v1",
        key_variable="OPENAI_API_KEY",
        base_url_variable="OPENAI_BASE_URL",
        # Its newer models take no max_tokens. https://developers.openai.com/api/docs/guides/file-inputs: PDF only.
        form=ChatForm(max_tokens="max_completion_tokens", file_types=frozenset({"application/pdf"}), longest_id=40),
    ),
    "openai-responses": Vendor(
        base_url="https://api.openai.com/v1",
        dialect="responses",
        key_variable="OPENAI_API_KEY",
        base_url_variable="OPENAI_BASE_URL",
    ),
    "anthropic": Vendor(
        base_url="https://api.anthropic.com",
        dialect="anthropic",
        key_variable="ANTHROPIC_API_KEY",
        key_header="x-api-key",
        headers={"anthropic-version": "2023-06-01"},
        base_url_variable="ANTHROPIC_BASE_URL",
    ),
    "openrouter": Vendor(
        base_url=_OPENROUTER,
        key_variable="OPENROUTER_API_KEY",
        base_url_variable="OPENROUTER_BASE_URL",
        form=ChatForm(reasoning="reasoning", details=("reasoning_details", "annotations"), images=True, file_urls=True),
    ),
    "openrouter-responses": Vendor(
        base_url=_OPENROUTER,
        dialect="responses",
        key_variable="OPENROUTER_API_KEY",
        base_url_variable="OPENROUTER_BASE_URL",
    ),
    "ollama": Vendor(
        base_url="http://localhost:11434",
        dialect="ollama",
        key_variable="OLLAMA_API_KEY",
        key_needed=False,
        base_url_variable="OLLAMA_HOST",
        unreachable=_START_OLLAMA,
        get_model=_PULL,
        output_modes=_OF_OLLAMA,
    ),
    "ollama-chat": Vendor(
        base_url="http://localhost:11434/v1",
        key_variable="OLLAMA_API_KEY",
        key_needed=False,
        base_url_variable="OLLAMA_HOST",
        unreachable=_START_OLLAMA,
        get_model=_PULL,
        output_modes=_OF_OLLAMA,
        # https://github.com/ollama/ollama/blob/main/openai/openai.go: "invalid message format" for all else.
        form=ChatForm(
            reasoning="reasoning",
            takes=frozenset({"image"}),
            image_urls=False,
            ignores=frozenset({"n", "tool_choice", "parallel_tool_calls"}),
        ),
    ),
}
"""Every vendor by its name, in the order in which keys are looked for."""


def find_vendor(name: str, dialect: Dialect, base_url: str | None) -> Vendor:
    """Give the vendor of a name; any other name is a server at ``base_url`` that speaks the dialect.

    Raises:
        ConfigurationError: there is none of that name, and no address; or it speaks another dialect.
    """
    vendor = VENDORS.get(name)
    if vendor is not None and vendor.dialect != dialect:
        msg = (
            f"{name!r} speaks the dialect {vendor.dialect!r}, not {dialect!r}; "
            f"get_provider({name!r}) makes the right one"
        )
        raise ConfigurationError(msg)
    if vendor is not None:
        return vendor
    if base_url is None:
        msg = f"there is no vendor {name!r}; name one of {', '.join(VENDORS)}, or give a base_url"
        raise ConfigurationError(msg)
    like = next(one for one in VENDORS.values() if one.dialect == dialect)
    return Vendor(
        base_url=base_url,
        dialect=dialect,
        key_needed=False,
        key_header=like.key_header,
        headers=like.headers,
        output_modes=like.output_modes,
    )


def address_for(vendor: Vendor, base_url: str | None) -> str:
    """Give where a vendor is asked: the address given, else what its variable says, else its own."""
    return (base_url or _from_environment(vendor) or vendor.base_url).rstrip("/")


def _from_environment(vendor: Vendor) -> str | None:
    """Read the vendor's address variable; Ollama's own form of it (``host``, ``:port``, ``host:port``) is completed."""
    value = os.environ.get(vendor.base_url_variable, "").strip() if vendor.base_url_variable else ""
    if not value or vendor.base_url_variable != "OLLAMA_HOST":
        return value or None
    scheme, _, rest = value.rpartition("://")
    host, _, path = rest.partition("/")
    if host.startswith(":"):
        host = f"localhost{host}"
    try:
        port = urlsplit(f"//{host}").port
    except ValueError as error:
        msg = f"{vendor.base_url_variable} names no address: {excerpt(value, 60)!r}; correct it, or pass base_url"
        raise ConfigurationError(msg) from error
    if not scheme and port is None:
        host = f"{host}:{_OLLAMA_PORT}"
    host = host.replace("0.0.0.0", "127.0.0.1")  # noqa: S104  # where it listens is no address to ask
    own = urlsplit(vendor.base_url).path
    return f"{scheme or 'http'}://{host}/{path}".rstrip("/").removesuffix("/v1") + own


def key_of(name: str, vendor: Vendor, given: str | None, *, needed: bool) -> str | None:
    """Give the key for a vendor: the one given, else that of its usual variable; None when there is none.

    Raises:
        ConfigurationError: one is needed and there is none, or it cannot be sent.
    """
    variable = vendor.key_variable
    key = (given if given is not None else os.environ.get(variable, "") if variable else "").strip()
    if not key and needed:
        msg = f"provider {name!r} needs a key: set {variable}, or pass the key"
        raise ConfigurationError(msg)
    if not key.isascii() or not key.isprintable():
        msg = (
            f"the key of provider {name!r} has characters that cannot be sent in a header; check api_key or {variable}"
        )
        raise ConfigurationError(msg)
    return key or None


def headers_for(vendor: Vendor, key: str | None, given: Mapping[str, str]) -> dict[str, str]:
    """Give the headers of every request, by lower-case name; those given take the place of ours.

    Raises:
        ConfigurationError: one of them cannot be sent.
    """
    sent = {"content-type": "application/json", "accept": "application/json, text/event-stream", "user-agent": "plait"}
    if key is not None:
        sent[vendor.key_header] = f"Bearer {key}" if vendor.key_header == "authorization" else key
    return {**sent, **vendor.headers, **_sendable(given)}


def authorises(header: str) -> bool:
    """Whether a header of this name, in lower case, is one that authorises, so that its value is shown to nobody."""
    return any(word in header for word in _SECRET_HEADERS)


def secrets_in(key: str | None, headers: Mapping[str, str]) -> tuple[str, ...]:
    """Collect what must not appear in errors: the key, and what headers authorise with."""
    found = {key} if key else set()
    for name, value in headers.items():
        if authorises(name):
            found |= {value, value.rpartition(" ")[2]}
    found |= {to_json(text)[1:-1].decode() for text in found}
    found |= {text.replace("/", r"\/") for text in found}  # some write JSON so
    return tuple(sorted((text for text in found if len(text) >= _SHORTEST_SECRET), key=len, reverse=True))
