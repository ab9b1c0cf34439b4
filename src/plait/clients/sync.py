"""The chat clients for sync callers: each holds its async form, and each method is one line on the portal.

They work wherever a caller stands: in a script, in a notebook or under any other event loop, in a sync tool, in many
threads. ``acreate``, ``achat`` and ``aparse`` are the async form's own methods, for the caller's event loop.
"""

from __future__ import annotations

from inspect import isfunction
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, overload

from plait.clients.chat import MAX_RETRIES, RETRY_INITIAL_DELAY, RETRY_MAX_DELAY, AsyncOpenRouterClient
from plait.clients.streams import ChatStream
from plait.clients.tools import AsyncToolClient
from plait.errors import ConfigurationError
from plait.portal import PORTAL
from plait.providers.models import OpenRouterModel, list_models, register_model
from plait.run import DEFAULT_LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from plait.clients.asking import ChatOptions
    from plait.clients.completions import ChatCompletion
    from plait.clients.streams import AsyncChatStream
    from plait.clients.tools import ToolChatOptions
    from plait.providers.base import Provider
    from plait.providers.http.reading import TransportLimits
    from plait.tools import Tool

Output = TypeVar("Output")


class OpenRouterClient:
    """A chat client: ``client.create([{"role": "user", "content": "Hello"}])``; see `AsyncOpenRouterClient`."""

    __slots__ = ("_client",)

    def __init__(  # noqa: PLR0917  # the order that is documented
        self,
        token: str | None = None,
        model: str | OpenRouterModel = OpenRouterModel.GPT35_TURBO,
        base_url: str | None = None,
        default_headers: Mapping[str, str] | None = None,
        max_retries: int = MAX_RETRIES,
        retry_initial_delay: float = RETRY_INITIAL_DELAY,
        retry_max_delay: float = RETRY_MAX_DELAY,
        *,
        provider: str | Provider | Sequence[str | Provider] = "openrouter",
        limits: TransportLimits | None = None,
    ) -> None:
        self._client = AsyncOpenRouterClient(
            token,
            model,
            base_url,
            default_headers,
            max_retries,
            retry_initial_delay,
            retry_max_delay,
            provider=provider,
            limits=limits,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self.model!r}, provider={self.provider.name!r})"

    @property
    def provider(self) -> Provider:
        """See `AsyncOpenRouterClient.provider`."""
        return self._client.provider

    @property
    def model(self) -> str:
        """See `AsyncOpenRouterClient.model`."""
        return self._client.model

    @model.setter
    def model(self, name: str | OpenRouterModel) -> None:
        self._client.model = name

    def set_model(self, name: str | OpenRouterModel) -> None:
        """See `AsyncOpenRouterClient.set_model`."""
        self._client.set_model(name)

    @classmethod
    def register_model(cls, name: str, value: str) -> None:
        """See `AsyncOpenRouterClient.register_model`."""
        register_model(name, value)

    @classmethod
    def list_models(cls) -> dict[str, str]:
        """See `AsyncOpenRouterClient.list_models`."""
        return list_models()

    @overload
    def create(
        self,
        messages: str | Sequence[Any],
        *,
        model: str | None = None,
        stream: Literal[False] = False,
        tools: Sequence[Any] | None = None,
        response_format: Mapping[str, Any] | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion[Any]: ...

    @overload
    def create(
        self,
        messages: str | Sequence[Any],
        *,
        model: str | None = None,
        stream: Literal[True],
        tools: Sequence[Any] | None = None,
        response_format: Mapping[str, Any] | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatStream: ...

    def create(
        self,
        messages: str | Sequence[Any],
        *,
        model: str | None = None,
        stream: bool = False,
        tools: Sequence[Any] | None = None,
        response_format: Mapping[str, Any] | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion[Any] | ChatStream:
        """See `AsyncOpenRouterClient.create`."""
        if stream:
            return ChatStream(
                lambda: self._client.create(
                    messages, model=model, stream=True, tools=tools, response_format=response_format, **options
                )
            )
        return PORTAL.call(
            lambda: self._client.create(messages, model=model, tools=tools, response_format=response_format, **options)
        )

    chat = create

    def parse(
        self,
        messages: str | Sequence[Any],
        response_format: type[Output],
        *,
        model: str | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion[Output]:
        """See `AsyncOpenRouterClient.parse`."""
        return PORTAL.call(lambda: self._client.parse(messages, response_format, model=model, **options))

    @overload
    async def acreate(
        self,
        messages: str | Sequence[Any],
        *,
        model: str | None = None,
        stream: Literal[False] = False,
        tools: Sequence[Any] | None = None,
        response_format: Mapping[str, Any] | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion[Any]: ...

    @overload
    async def acreate(
        self,
        messages: str | Sequence[Any],
        *,
        model: str | None = None,
        stream: Literal[True],
        tools: Sequence[Any] | None = None,
        response_format: Mapping[str, Any] | None = None,
        **options: Unpack[ChatOptions],
    ) -> AsyncChatStream: ...

    async def acreate(
        self,
        messages: str | Sequence[Any],
        *,
        model: str | None = None,
        stream: bool = False,
        tools: Sequence[Any] | None = None,
        response_format: Mapping[str, Any] | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion[Any] | AsyncChatStream:
        """See `AsyncOpenRouterClient.create`."""
        if stream:
            return await self._client.create(
                messages, model=model, stream=True, tools=tools, response_format=response_format, **options
            )
        return await self._client.create(messages, model=model, tools=tools, response_format=response_format, **options)

    achat = acreate

    async def aparse(
        self,
        messages: str | Sequence[Any],
        response_format: type[Output],
        *,
        model: str | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion[Output]:
        """See `AsyncOpenRouterClient.parse`."""
        return await self._client.parse(messages, response_format, model=model, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        """Nothing is left open: connections belong to the event loop."""


class ToolClient:
    """A chat client with tools; see `AsyncToolClient`."""

    __slots__ = ("_client",)

    _client: AsyncToolClient

    def __init__(
        self,
        openrouter_client: OpenRouterClient,
        *,
        max_turns: int = DEFAULT_LIMITS.max_turns,
        max_tool_calls: int = DEFAULT_LIMITS.max_tool_calls,
    ) -> None:
        client = async_form(openrouter_client, type(self).__name__)
        self._client = AsyncToolClient(client, max_turns=max_turns, max_tool_calls=max_tool_calls)

    def __repr__(self) -> str:
        inside = repr(self._client).removeprefix(type(self._client).__name__)
        return f"{type(self).__name__}{inside.replace('(Async', '(', 1)}"

    @property
    def tools(self) -> Mapping[str, Tool]:
        """See `AsyncToolClient.tools`."""
        return self._client.tools

    def register_tool(
        self,
        name: str,
        description: str,
        function: Callable[..., Any] | Tool,
        schema: Mapping[str, Any] | None = None,
    ) -> Tool:
        """See `AsyncToolClient.register_tool`."""
        return self._client.register_tool(name, description, function, schema)

    def get_tools(self) -> list[dict[str, Any]]:
        """See `AsyncToolClient.get_tools`."""
        return self._client.get_tools()

    @overload
    def chat(
        self,
        messages: str | Sequence[Any],
        *,
        model: str | None = None,
        stream: Literal[False] = False,
        **options: Unpack[ToolChatOptions],
    ) -> ChatCompletion[Any]: ...

    @overload
    def chat(
        self,
        messages: str | Sequence[Any],
        *,
        model: str | None = None,
        stream: Literal[True],
        **options: Unpack[ToolChatOptions],
    ) -> ChatStream: ...

    def chat(
        self,
        messages: str | Sequence[Any],
        *,
        model: str | None = None,
        stream: bool = False,
        **options: Unpack[ToolChatOptions],
    ) -> ChatCompletion[Any] | ChatStream:
        """See `AsyncToolClient.chat`."""
        if stream:
            return ChatStream(lambda: self._client.chat(messages, model=model, stream=True, **options))
        return PORTAL.call(lambda: self._client.chat(messages, model=model, **options))

    create = chat

    def parse(
        self,
        messages: str | Sequence[Any],
        response_format: type[Output],
        *,
        model: str | None = None,
        **options: Unpack[ToolChatOptions],
    ) -> ChatCompletion[Output]:
        """See `AsyncToolClient.parse`."""
        return PORTAL.call(lambda: self._client.parse(messages, response_format, model=model, **options))

    @overload
    async def achat(
        self,
        messages: str | Sequence[Any],
        *,
        model: str | None = None,
        stream: Literal[False] = False,
        **options: Unpack[ToolChatOptions],
    ) -> ChatCompletion[Any]: ...

    @overload
    async def achat(
        self,
        messages: str | Sequence[Any],
        *,
        model: str | None = None,
        stream: Literal[True],
        **options: Unpack[ToolChatOptions],
    ) -> AsyncChatStream: ...

    async def achat(
        self,
        messages: str | Sequence[Any],
        *,
        model: str | None = None,
        stream: bool = False,
        **options: Unpack[ToolChatOptions],
    ) -> ChatCompletion[Any] | AsyncChatStream:
        """See `AsyncToolClient.chat`."""
        if stream:
            return await self._client.chat(messages, model=model, stream=True, **options)
        return await self._client.chat(messages, model=model, **options)

    acreate = achat

    async def aparse(
        self,
        messages: str | Sequence[Any],
        response_format: type[Output],
        *,
        model: str | None = None,
        **options: Unpack[ToolChatOptions],
    ) -> ChatCompletion[Output]:
        """See `AsyncToolClient.parse`."""
        return await self._client.parse(messages, response_format, model=model, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        """Nothing is left open: connections belong to the event loop."""


def async_form(client: OpenRouterClient, owner: str) -> AsyncOpenRouterClient:
    """Give the async form of a chat client.

    Raises:
        ConfigurationError: it is none; the sentence names the owner, who takes one.
    """
    if not isinstance(client, OpenRouterClient):
        msg = f"{owner} takes an OpenRouterClient, which it asks, not {type(client).__name__}"
        raise ConfigurationError(msg)
    return client._client  # noqa: SLF001  # sync forms are of one kind


for _sync, _of in ((OpenRouterClient, AsyncOpenRouterClient), (ToolClient, AsyncToolClient)):
    for _name, _method in vars(_sync).items():  # what is said of a method is the same on both sides: for help()
        _twin = getattr(_of, _name, None) or getattr(_of, _name.removeprefix("a"), None)
        if isfunction(_method) and _twin is not None and not _name.startswith("_"):
            _method.__doc__ = _twin.__doc__
