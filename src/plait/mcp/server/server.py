"""`MCPServer`: plait's tools for any host of the Model Context Protocol, over stdin and stdout or over HTTP.

Owns what users write. Imports the SDK only when a server begins to serve (or gets a resource), since that costs a
second. Knows tools, and nothing of agents: an agent enters as a tool.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar
from weakref import WeakSet

from plait.errors import ConfigurationError, MissingExtra, excerpt
from plait.interrupts import Secret
from plait.mcp.server.host import Elicited, LogLevel, MCPHost, mcp_host
from plait.mcp.server.offer import Offer
from plait.run import DEFAULT_TOOLS_AT_ONCE, RunContext

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from mcp.server.lowlevel import Server
    from mcp.shared.subscriptions import ServerEvent

    from plait.mcp.server.http import App
    from plait.mcp.server.protocol import Methods
    from plait.tools import Tool, ToolForm

Function = TypeVar("Function", bound="Callable[..., Any]")
ServedOver = Literal["stdio", "http"]

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8000
DEFAULT_PATH: Final = "/mcp"
_MAX_PORT: Final = 65_535
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class MCPServer:
    """Offers tools to hosts of the Model Context Protocol: editors, assistants, agents.

    ::

        server = MCPServer("weather", "Tells the weather.", tools=[get_weather])
        server.run()  # or server.run(transport="http", port=8000)

    Calls go the way of every tool call: arguments are checked, sync functions run in threads, each has its time-out,
    and what goes wrong is a result that says so. A tool that wants to report progress, or to ask the host's model or
    person something, gets the host from `mcp_host`.

    Args:
        name: what hosts show.
        description: what the server is for.
        tools: in every form an agent takes: functions, `Tool`s, dicts with ``func``, names of registered tools.
        version: the server's own version.
        instructions: for the host's model: how to use the tools together.
        token: over HTTP, what a host must send as ``Authorization: Bearer ...``. It is never handed on to tools.
        allowed_hosts: over HTTP, the names under which browsers may reach the server, such as ``"mcp.example.com"``;
            ``["*"]`` for any. Without it, those of this machine alone, unless there is a token. It keeps web pages of
            other places out, and nobody else: a program can say any name.
        open_to_all: over HTTP, whether everybody who reaches the server may call its tools, without a token, also from
            other machines.
        deps: what tools get as ``RunContext.deps``.
        user_id: for whom the tools work.
        at_once: how many tools run at the same time on one transport; others wait. Over HTTP one host has half of these
            turns at most, so that it cannot keep all others waiting. A tool that asks its host something gives its turn
            away meanwhile, unless it is exclusive. As many prompts and resources are read beside them.

    Raises:
        ConfigurationError: a tool is no tool, two have one name, or an option is wrong.
    """

    def __init__(
        self,
        name: str,
        description: str | None = None,
        *,
        tools: Iterable[str | ToolForm] = (),
        version: str = "",
        instructions: str | None = None,
        token: str | Secret | None = None,
        allowed_hosts: Iterable[str] | None = None,
        open_to_all: bool = False,
        deps: Any = None,
        user_id: str = "default",
        at_once: int = DEFAULT_TOOLS_AT_ONCE,
    ) -> None:
        if not isinstance(name, str) or not name.strip():
            msg = f"an MCP server needs a name to show, not {excerpt(repr(name))}"
            raise ConfigurationError(msg)
        if type(at_once) is not int or at_once < 1:
            msg = f"at_once must be a whole number of at least 1, not {excerpt(repr(at_once))}"
            raise ConfigurationError(msg)
        if isinstance(allowed_hosts, str):
            msg = f"allowed_hosts is a list of names, as in allowed_hosts=[{excerpt(allowed_hosts)!r}]"
            raise ConfigurationError(msg)
        self.name = name
        self.description = description
        self.version = version
        self.instructions = instructions
        self._token = _secret(token)
        self._allowed_hosts = None if allowed_hosts is None else tuple(allowed_hosts)
        self._open_to_all = open_to_all
        self._context = RunContext(deps=deps, user_id=user_id, agent_name=name)
        self._at_once = at_once
        self._offer = Offer()
        self._offer.add_tools(tools)
        self._serving: WeakSet[Methods] = WeakSet()
        self._app: App | None = None

    def __repr__(self) -> str:
        return f"MCPServer({self.name!r}, tools={list(self._offer.tools)})"

    # --- what it offers

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools, in the order in which they were added."""
        return tuple(self._offer.tools.values())

    def add_tool(self, form: str | ToolForm) -> Tool:
        """Add a tool, in every form an agent takes; works as a decorator, too.

        Hosts see it when they next ask (see `list_changed`).

        Raises:
            ConfigurationError: it is no tool, or its name is taken by another.
        """
        return self._offer.add_tools([form])[0]

    def prompt(self, function: Function, /, *, name: str | None = None, description: str | None = None) -> Function:
        """Offer a prompt, which a person at the host chooses; works as a decorator, too.

        Args:
            function: makes the prompt from arguments that are texts: a text, a part or parts, all said by the user.
                Where a parameter has only so many values (`typing.Literal`), hosts can complete it.
            name: the prompt's name; else the function's.
            description: for the person; else the docstring.

        Returns:
            The function.

        Raises:
            ConfigurationError: the function cannot make one, or the name is taken.
        """
        self._offer.add_prompt(function, name, description)
        return function

    def resource(
        self, uri: str, *, name: str | None = None, description: str | None = None, media_type: str | None = None
    ) -> Callable[[Function], Function]:
        """Offer something to read, at an address; a decorator for the function that reads it.

        ::

            @server.resource("notes://{day}", media_type="text/markdown")
            def notes(day: str) -> str: ...

        Args:
            uri: the address; names in braces are the function's parameters. What stands for them in an address that
                a host asks for is refused where it would lead out of a folder (``..``).
            name: the resource's name; else the function's.
            description: what it holds; else the docstring.
            media_type: of what the function gives; else it is told from that.

        Raises:
            ConfigurationError: the address and the function do not fit, or the address is taken.
            MissingExtra: the ``mcp`` extra is not installed.
        """
        _load()

        def decorate(function: Function) -> Function:
            self._offer.add_resource(uri, function, name, description, media_type)
            return function

        return decorate

    async def list_changed(self, what: Literal["tools", "prompts", "resources"] = "tools") -> None:
        """Tell hosts to ask again what there is: after something was added while they are connected."""
        if self._serving:
            from mcp.shared.subscriptions import PromptsListChanged, ResourcesListChanged, ToolsListChanged

            lists: dict[str, ServerEvent] = {
                "tools": ToolsListChanged(),
                "prompts": PromptsListChanged(),
                "resources": ResourcesListChanged(),
            }
            await self._tell(lists[what])

    async def resource_updated(self, uri: str) -> None:
        """Tell the hosts that subscribed to a resource that it has changed."""
        if self._serving:
            from mcp.shared.subscriptions import ResourceUpdated

            await self._tell(ResourceUpdated(uri))

    async def _tell(self, event: ServerEvent) -> None:
        for methods in list(self._serving):
            await methods.peers.tell(event)

    # --- serving

    def run(
        self,
        transport: ServedOver = "stdio",
        *,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        path: str = DEFAULT_PATH,
    ) -> None:
        """Serve until the host closes stdin (``"stdio"``), or for ever (``"http"``); Ctrl-C and SIGTERM end it.

        Calls under way are then cancelled, and nothing is left behind.

        Args:
            transport: ``"stdio"`` for a host that started this program, ``"http"`` for streamable HTTP.
            host: where to listen, see `serve_http`.
            port: the same.
            path: the same.

        Raises:
            ConfigurationError: the transport is unknown, an event loop runs here, or as `serve_http`.
            MissingExtra: the ``mcp`` extra is not installed.
        """
        if transport == "stdio":
            serving = self.serve_stdio()
        elif transport == "http":
            serving = self.serve_http(host, port, path)
        else:
            msg = f"there is no transport {excerpt(repr(transport))}; there is 'stdio' and 'http'"
            raise ConfigurationError(msg)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            with suppress(KeyboardInterrupt):
                asyncio.run(_until_terminated(serving))
        else:
            serving.close()
            msg = "run() blocks, and an event loop runs here; use: await server.serve_stdio(), or serve_http(...)"
            raise ConfigurationError(msg)

    async def serve_stdio(self) -> None:
        """Serve the host at stdin and stdout until it closes stdin.

        Meanwhile stdout belongs to the protocol: what is printed goes to stderr, and stdin is empty.

        Raises:
            ConfigurationError: stdin or stdout is closed, or this process serves them already.
            MissingExtra: the ``mcp`` extra is not installed.
        """
        server = self.sdk_server()
        from plait.mcp.server.stdio import serve

        await serve(server)

    async def serve_http(self, host: str = DEFAULT_HOST, port: int = DEFAULT_PORT, path: str = DEFAULT_PATH) -> None:
        """Serve by streamable HTTP until cancelled; stderr says where.

        Args:
            host: the address to listen at. Beyond this machine (``"0.0.0.0"``), the server needs a token, or
                ``open_to_all``.
            port: 0 for any that is free.
            path: where the protocol is spoken; it begins with a slash.

        Raises:
            ConfigurationError: there is no such address, it cannot be listened at, or everybody could come in.
            MissingExtra: the ``mcp`` extra is not installed.
        """
        _check_address(host, port, path)
        _load()
        from plait.mcp.server.http import serve

        here = host in _LOOPBACK
        if not here and self._token is None and not self._open_to_all:
            msg = (
                f"at {excerpt(repr(host))} everybody who reaches this machine could call the tools: give MCPServer "
                "token='...', or open_to_all=True if that is what you want"
            )
            raise ConfigurationError(msg)
        await serve(self._application(path, here=here), self.name, host, port, path)

    @property
    def app(self) -> App:
        """The ASGI application, which speaks the protocol at ``/mcp``: for `uvicorn`, or to mount in another one.

        Where another one mounts it, nobody tells it of the end: let that one's lifespan end with
        ``await server.app.close()``. A web server that is told to stop may first wait for calls under way, as `uvicorn`
        does without ``timeout_graceful_shutdown``.

        Raises:
            MissingExtra: the ``mcp`` extra is not installed.
        """
        if self._app is None:
            self._app = self._application(DEFAULT_PATH, here=self._token is None and not self._open_to_all)
        return self._app

    def sdk_server(self) -> Server[Any]:
        """Give a server of the official SDK with all this one offers: for its `Client` here, or a transport of its own.

        Raises:
            MissingExtra: the ``mcp`` extra is not installed.
        """
        _load()
        return self._methods(shared=False).server

    def _application(self, path: str, *, here: bool) -> App:
        _load()
        from plait.mcp.server.http import LOOPBACK, App, Door

        hosts = self._allowed_hosts
        if hosts is None:
            hosts = LOOPBACK if here else ("*",)

        def make() -> Server[Any]:
            return self._methods(shared=True).server

        return App(make, Door(self._token, hosts), path)

    def _methods(self, *, shared: bool) -> Methods:
        from plait.mcp.server.calls import Calls
        from plait.mcp.server.protocol import Methods

        calls = Calls(self._context, self._at_once, shared=shared)
        made = Methods(self.name, self.version, self.description, self.instructions, self._offer, calls)
        self._serving.add(made)
        return made


def _secret(token: str | Secret | None) -> Secret | None:
    made = Secret(token) if isinstance(token, str) else token
    if made is not None and not (isinstance(made, Secret) and made.reveal().strip()):
        msg = "token must be a text or a Secret that is not empty, or None for no such check"
        raise ConfigurationError(msg)
    return made


def _check_address(host: object, port: object, path: object) -> None:
    if not isinstance(host, str) or not _is_name(host):
        msg = f"host must be an address of this machine, such as '127.0.0.1', not {excerpt(repr(host))}"
    elif type(port) is not int or not 0 <= port <= _MAX_PORT:
        msg = f"port must be a whole number from 0, for any that is free, to 65535, not {excerpt(repr(port))}"
    elif not isinstance(path, str) or not path.startswith("/"):
        msg = f"path must begin with a slash, as {DEFAULT_PATH!r} does, not be {excerpt(repr(path))}"
    else:
        return
    raise ConfigurationError(msg)


def _is_name(host: str) -> bool:
    try:
        host.encode("idna")  # as the socket does
    except UnicodeError:
        return False
    return "\0" not in host


def _load() -> None:
    """Import the SDK.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import mcp.server  # noqa: F401
    except ImportError as error:
        extra = "mcp"
        raise MissingExtra(extra, "an MCP server") from error


async def _until_terminated(serving: Coroutine[Any, Any, None]) -> None:
    """Serve; SIGTERM ends it as Ctrl-C does."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  # asyncio.run runs it
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        task.cancel()

    with suppress(NotImplementedError, RuntimeError, ValueError):  # not on this system, or not in this thread
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
    try:
        await serving
    except asyncio.CancelledError:
        if not terminated:
            raise


__all__ = ["Elicited", "LogLevel", "MCPHost", "MCPServer", "mcp_host"]
