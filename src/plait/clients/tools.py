"""The tool client: a chat client's model, with tools that are carried out while it answers.

The loop, the executor and the limits are those of `Agent`; a conversation is a run on a thread of its own, because the
caller keeps the messages.
"""

from __future__ import annotations

from copy import deepcopy
from threading import Lock
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar, Unpack, cast, overload

from plait.clients.asking import OF_TOOL_CLIENTS, ChatOptions, check_place, read_options, read_output
from plait.clients.chat import AsyncOpenRouterClient
from plait.clients.conversation import read_messages
from plait.clients.speaking import Running
from plait.clients.streams import AsyncChatStream
from plait.errors import ConfigurationError
from plait.options import check_options, is_stop
from plait.run import DEFAULT_LIMITS, DEFAULT_USER, RunLimits, StopPoll, StopSignal
from plait.store.base import check_name
from plait.tools import NO_TOOLS, Tool, Toolbox, as_tool, renamed

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence

    from plait.clients.completions import ChatCompletion
    from plait.interrupts import Secret
    from plait.options import RunOptions, StopFunction
    from plait.schema import OutputSchema
    from plait.tools import ToolDefinition

Output = TypeVar("Output")


class ToolChatOptions(ChatOptions, total=False):
    """What a single call of a client with tools may be given: the settings of the model, and what a run takes.

    Attributes:
        user_id: for whom the call is; tools that declare it receive it.
        deps: whatever the tools need; they find it as ``context.deps``.
        secrets: values for the tools' `Secret` parameters, by parameter name.
        limits: in place of the client's own.
        stop: a `StopSignal`, or a function that says whether to stop (`StopPoll`), ends the run; a text, or several,
            are where the model ends its answer.
    """

    user_id: str | None
    deps: Any
    secrets: Mapping[str, Secret] | None
    limits: RunLimits | None
    stop: str | Sequence[str] | StopSignal | StopPoll | asyncio.Event | StopFunction | None  # type: ignore[misc]  # wider than without tools


class AsyncToolClient:
    """A chat client with tools: they are carried out while the model answers.

    Args:
        openrouter_client: the chat client that is asked.
        max_turns: model requests of one call.
        max_tool_calls: tool calls of one call.

    A limit, or a stop, ends a call with the completion as far as it came; its ``stop_reason`` says so.

    Raises:
        ConfigurationError: it is no chat client, or a limit is no whole number.
    """

    __slots__ = ("_adding", "_client", "_limits", "_toolbox")

    def __init__(
        self,
        openrouter_client: AsyncOpenRouterClient,
        *,
        max_turns: int = DEFAULT_LIMITS.max_turns,
        max_tool_calls: int = DEFAULT_LIMITS.max_tool_calls,
    ) -> None:
        if not isinstance(openrouter_client, AsyncOpenRouterClient):
            kind = type(openrouter_client).__name__
            msg = f"{type(self).__name__} takes an AsyncOpenRouterClient, which it asks, not {kind}"
            raise ConfigurationError(msg)
        self._client = openrouter_client
        self._limits = RunLimits(max_turns=max_turns, max_tool_calls=max_tool_calls)
        self._toolbox = NO_TOOLS
        self._adding = Lock()  # one client may serve many threads

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._client!r}, tools={list(self.tools)})"

    @property
    def tools(self) -> Mapping[str, Tool]:
        """The tools by name."""
        return MappingProxyType(self._toolbox.tools)

    def register_tool(
        self,
        name: str,
        description: str,
        function: Callable[..., Any] | Tool,
        schema: Mapping[str, Any] | None = None,
    ) -> Tool:
        """Offer a function to the model.

        Args:
            name: for the model: letters, digits, ``_`` and ``-``, at most 64.
            description: tells it when and how to use the tool.
            function: the function, sync or async.
            schema: the JSON Schema of its parameters, used as it is; without one it is read from the signature and the
                docstring.

        Returns:
            The tool.

        Raises:
            ConfigurationError: another tool has this name, or the function cannot be offered; the other tools stay.
        """
        if not callable(function) and not isinstance(function, Tool):
            msg = f"register_tool takes a function or a Tool as its function, not {type(function).__name__}"
            raise ConfigurationError(msg)
        if schema is None and isinstance(function, Tool):
            tool = renamed(as_tool(function), name, description)
        else:
            form = {"name": name, "description": description, "func": function}
            tool = as_tool(form if schema is None else {**form, "function_schema": schema})
        with self._adding:
            self._toolbox = self._toolbox.joined([tool])
        return tool

    def _tools_now(self) -> Toolbox:
        return self._toolbox

    def get_tools(self) -> list[dict[str, Any]]:
        """Give what the model is told of the tools, in OpenAI's form."""
        return [_as_openai(definition) for definition in self._toolbox.definitions]

    @overload
    async def chat(
        self,
        messages: str | Sequence[Any],
        *,
        model: str | None = None,
        stream: Literal[False] = False,
        **options: Unpack[ToolChatOptions],
    ) -> ChatCompletion[Any]: ...

    @overload
    async def chat(
        self,
        messages: str | Sequence[Any],
        *,
        model: str | None = None,
        stream: Literal[True],
        **options: Unpack[ToolChatOptions],
    ) -> AsyncChatStream: ...

    async def chat(
        self,
        messages: str | Sequence[Any],
        *,
        model: str | None = None,
        stream: bool = False,
        **options: Unpack[ToolChatOptions],
    ) -> ChatCompletion[Any] | AsyncChatStream:
        """Ask, carry out the tools that the model calls, and ask again, until it answers.

        Args:
            messages: as for `AsyncOpenRouterClient.create`. They are left as they are.
            model: another model, for this call.
            stream: give the answer while it comes: the text of all answers of the run, parted by blank lines. Tools
                run while the stream waits.
            **options: see `ToolChatOptions`.

        Returns:
            The completion of the last answer, with the tokens of all requests; with ``stream=True`` chunks.

        Raises:
            ConfigurationError: an argument is wrong; nothing was sent.
            ModelError: the model could not be asked, or its answer was no good.
        """
        running = self._running(messages, model, options, stream=stream)
        return await AsyncChatStream.begun(running) if stream else await running.whole()

    create = chat

    async def parse(
        self,
        messages: str | Sequence[Any],
        response_format: type[Output],
        *,
        model: str | None = None,
        **options: Unpack[ToolChatOptions],
    ) -> ChatCompletion[Output]:
        """Ask for a value of a type, with tools: ``completion.choices[0].message.parsed``.

        Raises:
            ConfigurationError, ModelError: see `chat`.
            OutputInvalid: the answer does not fit the type, even after it was asked for again.
            Refused: the model declined.
        """
        return await self._running(messages, model, options, output=read_output(response_format)).whole()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        """Nothing is left open: connections belong to the event loop."""

    def _running(
        self,
        messages: str | Sequence[Any],
        model: str | None,
        options: ToolChatOptions,
        *,
        output: OutputSchema[Any] | None = None,
        stream: bool = False,
    ) -> Running:
        provider = self._client.provider_for(model)
        of_run, of_model = _parted(options)
        return Running(
            provider,
            read_messages(messages, provider.name),
            read_options(of_model),
            toolbox=self._tools_now(),
            output=output,
            stream=stream,
            limits=self._limits,
            user_id=options.get("user_id") or DEFAULT_USER,
            options=of_run,
        )


_OF_RUN: Final = frozenset({"deps", "secrets", "limits"})


def _parted(options: ToolChatOptions) -> tuple[RunOptions, dict[str, Any]]:
    """Part what a run takes from what is said to the model; None says nothing.

    Raises:
        ConfigurationError: an option of the run has the wrong type, or has another place.
    """
    given = {name: value for name, value in options.items() if value is not None}
    of_run: dict[str, Any] = {name: value for name, value in given.items() if name in _OF_RUN}
    if is_stop(given.get("stop")):
        of_run["stop"] = given["stop"]
    check_options(cast("RunOptions", of_run))
    if "user_id" in given:
        check_name(cast("str", given["user_id"]), "user id")
    of_model = {name: value for name, value in given.items() if name not in of_run and name != "user_id"}
    check_place(of_model, OF_TOOL_CLIENTS)
    return cast("RunOptions", of_run), of_model


def _as_openai(definition: ToolDefinition) -> dict[str, Any]:
    parameters = deepcopy(definition.parameters)
    function = {"name": definition.name, "description": definition.description, "parameters": parameters}
    return {"type": "function", "function": {**function, "strict": True} if definition.strict else function}
