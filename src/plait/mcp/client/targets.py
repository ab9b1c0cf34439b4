"""Where an MCP server is: an address or a command, in every form that people write.

Pure: reads and checks. Opens nothing, starts nothing and knows nothing of the protocol.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from plait.errors import ConfigurationError, excerpt
from plait.interrupts import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable

Transport = Literal["auto", "http", "sse", "stdio"]
"""How a server is spoken to; ``http`` is the protocol's streamable HTTP, ``sse`` what came before it."""

_URL_KEYS: Final = frozenset({"url", "headers", "type", "transport"})
_COMMAND_KEYS: Final = frozenset({"command", "args", "env", "cwd", "type", "transport"})
_TYPES: Final[Mapping[str, Transport]] = {
    "http": "http",
    "streamable-http": "http",
    "streamable_http": "http",
    "streamableHttp": "http",
    "sse": "sse",
    "stdio": "stdio",
}
_HEADER_NAME: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_HEADER_VALUE: Final = r"[\t\x20-\x7e\x80-\xff]*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A server at an address, as one way to speak to it.

    Attributes:
        url: the address without what may be secret: no user, no query. Errors name it.
        kind: how it is spoken to.
        query: what stands behind the address's question mark.
        headers: sent with every request to this origin, and to no other.
    """

    url: str
    kind: Literal["http", "sse"]
    query: Secret = field(default_factory=lambda: Secret(""))
    headers: Mapping[str, Secret] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A server that is started here and spoken to through its standard input and output.

    Attributes:
        argv: the program and its arguments.
        env: variables for it, beside the few harmless ones that every server gets.
        cwd: the folder it works in; None for this process's.
    """

    argv: tuple[str, ...] = field(repr=False)
    env: Mapping[str, Secret] = field(default_factory=dict)
    cwd: str | None = None


Way = Address | Command


def secrets_of(way: Way) -> Iterable[str]:
    """Give everything about a server that is not for other eyes: tokens, headers, query, password, variables."""
    if isinstance(way, Command):
        yield from (value.reveal() for value in way.env.values())
        return
    query = way.query.reveal()
    yield query
    yield from (value for _, value in parse_qsl(query))
    for value in (header.reveal() for header in way.headers.values()):
        scheme, _, credentials = value.partition(" ")
        yield from (value, credentials)
        if scheme == "Basic":
            with suppress(ValueError):
                yield base64.b64decode(credentials).decode().partition(":")[2]


def read_target(
    name: str,
    target: str | Sequence[str] | Mapping[str, Any],
    *,
    token: str | Secret | None = None,
    headers: Mapping[str, str] | None = None,
    transport: Transport = "auto",
) -> tuple[Way, ...]:
    """Give the ways in which a server may be reached, the likeliest first.

    Args:
        name: the server's name, for errors.
        target: a URL; a command as a list; or one entry of the usual ``mcpServers`` JSON: ``{"command", "args", "env",
            "cwd"}`` or ``{"url", "headers"}``.
        token: sent as ``Authorization: Bearer ...``.
        headers: further headers.
        transport: ``auto`` finds out.

    Raises:
        ConfigurationError: it is none of these, or they do not fit together.
    """
    where = f"the MCP server {name!r}"
    if transport not in {"auto", "http", "sse", "stdio"}:
        msg = f"{where}: transport must be 'auto', 'http', 'sse' or 'stdio', not {excerpt(repr(transport), 40)}"
        raise ConfigurationError(msg)
    if isinstance(target, Mapping):
        given = target.get("type", target.get("transport"))
        if given is not None and given not in _TYPES:
            msg = f"{where}: unknown type {excerpt(repr(given), 40)}; known are: {', '.join(sorted(_TYPES))}"
            raise ConfigurationError(msg)
        if transport == "auto" and given is not None:
            transport = _TYPES[given]
        _check_keys(where, target)
        if "url" in target:
            headers = {**_texts(where, "headers", target.get("headers")), **(headers or {})}
            target = target["url"]
        else:
            return (_command(where, target, transport, token, headers),)
    if isinstance(target, str):
        return _addresses(where, target, transport, _headers(where, token, headers))
    if isinstance(target, Sequence):
        return (_command(where, {"command": target[:1], "args": target[1:]}, transport, token, headers),)
    msg = f"{where} is given as {type(target).__name__}; give a URL, a command as a list, or a dict with 'command'"
    raise ConfigurationError(msg)


def _check_keys(where: str, target: Mapping[str, Any]) -> None:
    known = _URL_KEYS if "url" in target else _COMMAND_KEYS
    strange = sorted(map(str, target.keys() - known))
    if strange or ("url" not in target and "command" not in target):
        found = f"unknown keys {excerpt(', '.join(strange))}" if strange else "neither 'url' nor 'command'"
        msg = f"{where} has {found}; known are 'command', 'args', 'env' and 'cwd', or 'url' and 'headers'"
        raise ConfigurationError(msg)


def _command(
    where: str,
    given: Mapping[str, Any],
    transport: Transport,
    token: str | Secret | None,
    headers: Mapping[str, str] | None,
) -> Command:
    if transport not in {"auto", "stdio"}:
        msg = f"{where} is a command, which is spoken to over stdio, not {transport!r}"
        raise ConfigurationError(msg)
    if token is not None or headers:
        msg = f"{where} is a command, which takes no token and no headers; give it what it needs in 'env'"
        raise ConfigurationError(msg)
    command, rest = given["command"], given.get("args") or ()
    argv = [] if isinstance(rest, str) else [*([command] if isinstance(command, str) else command), *rest]
    if not argv or not all(isinstance(word, str) and word and "\0" not in word for word in argv):
        msg = f"{where}: a command is a program and its arguments, each a text that is not empty"
        raise ConfigurationError(msg)
    cwd = given.get("cwd")
    env = {name: Secret(value) for name, value in _texts(where, "env", given.get("env")).items()}
    return Command(argv=tuple(argv), env=env, cwd=None if cwd is None else str(cwd))


def _texts(where: str, what: str, given: Any) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(text, str) for pair in given.items() for text in pair):
        msg = f"{where}: {what!r} must be a mapping of texts to texts"
        raise ConfigurationError(msg)
    return dict(given)


def _headers(where: str, token: str | Secret | None, given: Mapping[str, str] | None) -> dict[str, Secret]:
    headers = _texts(where, "headers", given)
    if token is not None:
        headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
        headers["Authorization"] = f"Bearer {token.reveal() if isinstance(token, Secret) else token}"
    for header, value in headers.items():
        if not re.fullmatch(_HEADER_NAME, header) or not re.fullmatch(_HEADER_VALUE, value):
            msg = f"{where}: the header {excerpt(header, 60)!r} or its value holds characters that no header can hold"
            raise ConfigurationError(msg)
    return {name: Secret(value) for name, value in headers.items()}


def _addresses(where: str, url: str, transport: Transport, headers: Mapping[str, Secret]) -> tuple[Address, ...]:
    if transport == "stdio":
        msg = f"{where} is an address, which is not spoken to over stdio; give the command as a list"
        raise ConfigurationError(msg)
    hint = "give a URL such as 'http://localhost:8000/mcp', or a command as a list: ['python', 'server.py']"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in {"http", "https"} or not host or re.search(r"[\s\x00-\x1f\x7f\\]", url):
        shown = excerpt(re.sub(r"(?<=://)[^/@]*@|[?#].*", "", url), 100)  # a password or key is not for an error
        msg = f"{where}: {shown!r} is no URL that begins with http:// or https://; {hint}"
        raise ConfigurationError(msg)
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers = {"Authorization": Secret(f"Basic {base64.b64encode(user).decode()}"), **headers}
    at = f"[{host}]" if ":" in host else host
    base = f"{parts.scheme}://{at}{'' if port is None else f':{port}'}"
    first = Address(url=base + parts.path, kind="http", query=Secret(parts.query), headers=headers)
    return tuple(_ways(first, base, transport))


def _ways(first: Address, base: str, transport: Transport) -> Iterable[Address]:
    """Give the ways to an address; people leave the path away, and servers have the usual ones."""
    bare = first.url in {base, f"{base}/"}
    if transport != "sse":
        yield first
    if transport != "http":
        yield replace(first, kind="sse")
    if bare and transport != "sse":
        yield replace(first, url=f"{base}/mcp")
    if bare and transport != "http":
        yield replace(first, kind="sse", url=f"{base}/sse")
