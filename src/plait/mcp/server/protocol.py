"""The methods of the Model Context Protocol, answered from what a server offers. Imports the SDK.

Knows nothing of how messages come in: one `Methods` serves every connection of one transport.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import mcp_types as types
from mcp.server.connection import allowed_log_levels
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.shared.exceptions import MCPError
from mcp.shared.path_security import contains_path_traversal, is_absolute_path
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from typing_extensions import override

from plait.errors import ToolError, excerpt
from plait.executor import known_tools
from plait.mcp.server.content import fitting, to_call_result, to_content, to_contents
from plait.mcp.server.host import LEVELS, MCPHost
from plait.mcp.server.peers import Peers
from plait.mcp.server.rounds import Rounds
from plait.messages import ToolResult
from plait.toolbase import prepare

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractAsyncContextManager

    from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
    from mcp.server.models import InitializationOptions

    from plait.mcp.server.calls import Calls
    from plait.mcp.server.host import LogLevel
    from plait.mcp.server.offer import Offer, Resource
    from plait.mcp.server.peers import Peer
    from plait.mcp.server.turns import Turn
    from plait.toolbase import Tool

    Request = ServerRequestContext[Any, Any]
    Page = types.PaginatedRequestParams | None

_NO_RESOURCE: Final = -32002
"""https://modelcontextprotocol.io/specification/2025-11-25/server/resources#error-handling"""
_MAX_SUBSCRIPTIONS: Final = 1000
_MAX_COMPLETIONS: Final = 100


class _Server(Server[Any]):
    """The SDK's server, which also says that its lists may change."""

    @override
    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        changing = notification_options or NotificationOptions(
            prompts_changed=True, resources_changed=True, tools_changed=True
        )
        return super().create_initialization_options(changing, experimental_capabilities, extensions)


class Methods:
    """Answers hosts.

    Args:
        name, version, description, instructions: what hosts are told of the server.
        offer: what it offers.
        calls: carries out what they ask for.

    Attributes:
        peers: the hosts that are connected.
        server: the SDK's server, ready for connections.
    """

    def __init__(  # noqa: PLR0917
        self, name: str, version: str, description: str | None, instructions: str | None, offer: Offer, calls: Calls
    ) -> None:
        self._offer = offer
        self._calls = calls
        self.peers = Peers()
        self.server: Server[Any] = _Server(
            name,
            version=version,
            description=description,
            instructions=instructions,
            get_tool_input_schema=self._input_schema,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_prompts=self._list_prompts,
            on_get_prompt=self._get_prompt,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
            on_subscribe_resource=self._subscribe,
            on_unsubscribe_resource=self._unsubscribe,
            on_subscriptions_listen=self.peers.listen,
            on_completion=self._complete,
        )
        self.server.middleware.append(_fitting)
        # Given to the constructor it would warn: the next version of the protocol has no such request.
        self.server.add_request_handler("logging/setLevel", types.SetLevelRequestParams, self._set_level)

    # --- tools

    async def _list_tools(self, request: Request, _: Page) -> types.ListToolsResult:
        self.peers.of(request.session)  # it wants to know when this changes
        return types.ListToolsResult(tools=[_tool(tool) for tool in self._offer.tools.values()])

    def _input_schema(self, name: str) -> Mapping[str, Any] | None:
        tool = self._offer.tools.get(name)
        return None if tool is None else prepare(tool).ordinary

    async def _call_tool(
        self, request: Request, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        tool = self._offer.tools.get(params.name)
        if tool is None:
            msg = f"there is no tool {excerpt(params.name, 64)!r}; {known_tools(params.name, self._offer.tools)}"
            raise MCPError(types.INVALID_PARAMS, msg)
        try:
            turn = self._calls.tools.take(self._whose(request), alone=tool.exclusive)
            result = await self._carry_out(request, params, tool, params.arguments or {}, turn)
            return to_call_result(result) if isinstance(result, ToolResult) else result
        except ToolError as error:
            return types.CallToolResult(content=[types.TextContent(text=str(error))], is_error=True)

    def _whose(self, request: Request) -> str:
        """Give what stands for the host that asks.

        From version 2026-07-28 on each request over HTTP has a connection of its own, in the SDK's eyes: there it is
        the address it comes from, and what it calls itself.
        """
        client = getattr(request.request, "client", None)
        if client is None or request.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            return self.peers.of(request.session).thread_id
        told = request.session.client_params
        return f"{client.host} {'' if told is None else told.client_info.name}"

    async def _carry_out(
        self,
        request: Request,
        params: types.InputResponseRequestParams,
        tool: Tool,
        arguments: Mapping[str, Any],
        turn: AbstractAsyncContextManager[Turn],
    ) -> ToolResult | types.InputRequiredResult:
        peer = self.peers.of(request.session)
        rounds = Rounds(params) if request.protocol_version in MODERN_PROTOCOL_VERSIONS else None
        host = MCPHost(request, _levels(request, peer), rounds)
        enough = None if rounds is None else rounds.asked
        result = await self._calls.carry_out(tool, _text(tool, arguments), host, peer.thread_id, turn, enough)
        if result is not None:
            return result
        assert rounds is not None  # noqa: S101  # nothing else is enough
        return rounds.result()

    # --- prompts

    async def _list_prompts(self, request: Request, _: Page) -> types.ListPromptsResult:
        self.peers.of(request.session)  # it wants to know when this changes
        prompts = [
            types.Prompt(
                name=name,
                description=prepare(prompt.tool).definition.description,
                arguments=[
                    types.PromptArgument(
                        name=argument.name, description=argument.description or None, required=argument.required
                    )
                    for argument in prompt.arguments
                ],
            )
            for name, prompt in self._offer.prompts.items()
        ]
        return types.ListPromptsResult(prompts=prompts)

    async def _get_prompt(
        self, request: Request, params: types.GetPromptRequestParams
    ) -> types.GetPromptResult | types.InputRequiredResult:
        prompt = self._offer.prompts.get(params.name)
        if prompt is None:
            raise MCPError(types.INVALID_PARAMS, f"there is no prompt {excerpt(params.name, 64)!r}")
        result = await self._made(request, params, prompt.tool, params.arguments or {})
        if isinstance(result, types.InputRequiredResult):
            return result
        try:
            messages = [types.PromptMessage(role="user", content=to_content(part)) for part in result.parts]
        except ToolError as error:
            raise MCPError(types.INTERNAL_ERROR, str(error)) from None
        return types.GetPromptResult(description=prepare(prompt.tool).definition.description, messages=messages)

    async def _made(
        self, request: Request, params: types.InputResponseRequestParams, tool: Tool, arguments: Mapping[str, Any]
    ) -> ToolResult | types.InputRequiredResult:
        """Carry out what has no error results: what goes wrong is an error of the protocol."""
        try:
            prepare(tool).validate(_text(tool, arguments))
            turn = self._calls.readings.take(self._whose(request))
            result = await self._carry_out(request, params, tool, arguments, turn)
        except ToolError as error:
            raise MCPError(types.INVALID_PARAMS, str(error)) from None
        if isinstance(result, ToolResult) and result.is_error:
            raise MCPError(types.INTERNAL_ERROR, result.text)
        return result

    # --- resources

    async def _list_resources(self, request: Request, _: Page) -> types.ListResourcesResult:
        self.peers.of(request.session)  # it wants to know when this changes
        resources = [
            types.Resource(
                uri=resource.uri,
                name=resource.tool.name,
                description=prepare(resource.tool).definition.description,
                mime_type=resource.media_type,
            )
            for resource in self._offer.resources.values()
            if resource.template is None
        ]
        return types.ListResourcesResult(resources=resources)

    async def _list_templates(self, _: Request, __: Page) -> types.ListResourceTemplatesResult:
        templates = [
            types.ResourceTemplate(
                uri_template=resource.uri,
                name=resource.tool.name,
                description=prepare(resource.tool).definition.description,
                mime_type=resource.media_type,
            )
            for resource in self._offer.resources.values()
            if resource.template is not None
        ]
        return types.ListResourceTemplatesResult(resource_templates=templates)

    async def _read_resource(
        self, request: Request, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult | types.InputRequiredResult:
        uri = str(params.uri)
        resource, arguments = self._resource_at(uri)
        result = await self._made(request, params, resource.tool, arguments)
        if isinstance(result, types.InputRequiredResult):
            return result
        try:
            contents = [to_contents(part, uri, resource.media_type) for part in result.parts]
        except ToolError as error:
            raise MCPError(types.INTERNAL_ERROR, str(error)) from None
        return types.ReadResourceResult(contents=contents)

    def _resource_at(self, uri: str) -> tuple[Resource, Mapping[str, Any]]:
        exact = self._offer.resources.get(uri)
        if exact is not None and exact.template is None:
            return exact, {}
        for resource in self._offer.resources.values():
            found = None if resource.template is None else resource.template.match(uri)
            if found is not None and not any(map(_escapes, _values(found))):
                return resource, found
        raise MCPError(_NO_RESOURCE, "there is no such resource", {"uri": excerpt(uri)})

    async def _subscribe(self, request: Request, params: types.SubscribeRequestParams) -> types.EmptyResult:
        subscribed = self.peers.of(request.session).subscribed
        if len(subscribed) >= _MAX_SUBSCRIPTIONS:
            raise MCPError(types.INVALID_PARAMS, f"one host may subscribe to {_MAX_SUBSCRIPTIONS:,} resources")
        subscribed.add(str(params.uri))
        return types.EmptyResult()

    async def _unsubscribe(self, request: Request, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
        self.peers.of(request.session).subscribed.discard(str(params.uri))
        return types.EmptyResult()

    # --- the rest

    async def _set_level(self, request: Request, params: types.SetLevelRequestParams) -> types.EmptyResult:
        self.peers.of(request.session).level = params.level
        return types.EmptyResult()

    async def _complete(self, _: Request, params: types.CompleteRequestParams) -> types.CompleteResult:
        """Complete an argument that has only so many values."""
        if isinstance(params.ref, types.PromptReference):
            prompt = self._offer.prompts.get(params.ref.name)
            arguments = () if prompt is None else prompt.arguments
        else:
            resource = self._offer.resources.get(params.ref.uri)
            arguments = () if resource is None else resource.arguments
        begun = params.argument.value
        fitting = [
            choice
            for argument in arguments
            if argument.name == params.argument.name
            for choice in argument.choices
            if choice.startswith(begun)
        ]
        shown = fitting[:_MAX_COMPLETIONS]
        found = types.Completion(values=shown, total=len(fitting), has_more=len(shown) < len(fitting))
        return types.CompleteResult(completion=found)


async def _fitting(ctx: Request, call_next: CallNext) -> HandlerResult:
    """Have a request answered with texts that can be sent: one that cannot would end the whole connection."""
    try:
        result = await call_next(ctx)
    except MCPError as error:
        raise MCPError(error.code, fitting(error.message), fitting(error.data)) from None
    return fitting(result) if isinstance(result, dict) else result


def _tool(tool: Tool) -> types.Tool:
    prepared = prepare(tool)
    return types.Tool(
        name=tool.name,
        description=prepared.definition.description,
        input_schema={"type": "object", **prepared.ordinary},
        annotations=types.ToolAnnotations(idempotent_hint=tool.idempotent),
    )


def _levels(request: Request, peer: Peer) -> frozenset[LogLevel]:
    """Give the levels of log records that a host wants, of the connection or, in new versions, of the call."""
    allowed = allowed_log_levels(request.protocol_version, request.meta)
    return frozenset(level for level in LEVELS[LEVELS.index(peer.level) :] if level in allowed)


def _text(tool: Tool, arguments: Mapping[str, Any]) -> str:
    """Give arguments as the JSON text that the executor checks, as it checks a model's.

    Raises:
        ToolError: they hold a number of too many digits.
    """
    try:
        return json.dumps(arguments)
    except ValueError:
        msg = f"wrong arguments for {tool.name!r}: a number has too many digits"
        raise ToolError(msg) from None


def _values(found: Mapping[str, str | list[str]]) -> Iterable[str]:
    for value in found.values():
        yield from (value,) if isinstance(value, str) else value


def _escapes(value: str) -> bool:
    """Whether a value out of an address leads out of a folder it is put behind."""
    return "\0" in value or contains_path_traversal(value) or is_absolute_path(value)
