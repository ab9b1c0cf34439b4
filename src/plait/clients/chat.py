"""The chat client: one question to a model, and its answers.

It has no loop: what it asks is one request, retries included. Tools, turns and limits are `tools`' matter, which is a
client of this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar, Unpack, overload

from plait.clients.asking import (
    OF_PARSE,
    OF_PLAIN_CLIENTS,
    check_place,
    check_response_format,
    read_options,
    read_output,
    read_tools,
)
from plait.clients.conversation import read_messages
from plait.clients.speaking import Asking, Running
from plait.clients.streams import AsyncChatStream
from plait.errors import ConfigurationError, excerpt
from plait.providers.base import Request
from plait.providers.catalog import REPLAY, get_provider
from plait.providers.models import OpenRouterModel, list_models, model_named, register_model
from plait.providers.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plait.clients.asking import ChatOptions
    from plait.clients.completions import ChatCompletion
    from plait.messages import Message
    from plait.providers.base import Provider
    from plait.providers.http.reading import TransportLimits

Output = TypeVar("Output")

MAX_RETRIES: Final = 3
RETRY_INITIAL_DELAY: Final = 1.0
RETRY_MAX_DELAY: Final = 10.0

_MODELS_KEPT: Final = 32
"""Models that a client keeps ready beside its own, for calls that name another."""


class AsyncOpenRouterClient:
    """A chat client: ``await client.create([{"role": "user", "content": "Hello"}])``.

    It asks OpenRouter, or any other provider. What it gives has the shape of OpenAI's objects:
    ``completion.choices[0].message.content``. There is nothing to close, but ``async with`` works.

    Args:
        token: the provider's key; without one, its usual environment variable is read (``OPENROUTER_API_KEY``).
        model: the model's name, a member of `OpenRouterModel` or its name, or a registered name; for other providers
            than OpenRouter their own default, if none is given.
        base_url: where the API is; without one, the provider's own address.
        default_headers: further headers of every request.
        max_retries: the most further requests after one that failed: 0 sends exactly one.
        retry_initial_delay: seconds before the first of them; the next ones wait longer.
        retry_max_delay: the most seconds before one of them. What a server asks for with Retry-After comes first.
        provider: another provider: ``"anthropic"``, ``"ollama"``, ..., ``"anthropic:claude-sonnet-4-5"``; a list of
            these, each asked when the one before it fails; or a provider object, which is asked as it is, and has its
            own model, key and retries.
        limits: how long and how much a request may take.

    Raises:
        ConfigurationError: no key is set, the provider or model is unknown, or an argument is of the wrong type.
    """

    __slots__ = ("_given", "_others", "_provider", "_retry")

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
        self._retry = RetryPolicy(max_retries=max_retries, initial_delay=retry_initial_delay, max_delay=retry_max_delay)
        if not isinstance(token, str | None):
            msg = f"token must be a text, not {type(token).__name__}"
            raise ConfigurationError(msg)
        self._given = _Given(token, base_url, default_headers, provider, limits)
        self._others: dict[str, Provider] = {}
        own = model is not OpenRouterModel.GPT35_TURBO  # which is OpenRouter's name of a model
        if not isinstance(provider, str | Sequence) and self._retry != _USUAL:
            msg = "retries of a provider object are its own: wrap it in Retrying, or give get_provider(..., retry=...)"
            raise ConfigurationError(msg)
        self._provider = self._made(provider, _checked(model) if own or provider == "openrouter" else None)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self.model!r}, provider={self._provider.name!r})"

    @property
    def provider(self) -> Provider:
        """Who is asked."""
        return self._provider

    @property
    def model(self) -> str:
        """The model that is asked, as its provider spells it; a registered name may be assigned."""
        return self._provider.model

    @model.setter
    def model(self, name: str | OpenRouterModel) -> None:
        self._provider = self.provider_for(name)

    def set_model(self, name: str | OpenRouterModel) -> None:
        """Ask this model from now on; see `model`."""
        self.model = name

    @classmethod
    def register_model(cls, name: str, value: str) -> None:
        """Give a model a name of your own; see `plait.register_model`.

        Raises:
            ConfigurationError: the name stands for another model already; the same value twice is no error.
        """
        register_model(name, value)

    @classmethod
    def list_models(cls) -> dict[str, str]:
        """Give every name that stands for a model, with the model."""
        return list_models()

    @overload
    async def create(
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
    async def create(
        self,
        messages: str | Sequence[Any],
        *,
        model: str | None = None,
        stream: Literal[True],
        tools: Sequence[Any] | None = None,
        response_format: Mapping[str, Any] | None = None,
        **options: Unpack[ChatOptions],
    ) -> AsyncChatStream: ...

    async def create(
        self,
        messages: str | Sequence[Any],
        *,
        model: str | None = None,
        stream: bool = False,
        tools: Sequence[Any] | None = None,
        response_format: Mapping[str, Any] | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion[Any] | AsyncChatStream:
        """Ask once.

        Args:
            messages: the conversation, oldest first: OpenAI's dicts, `Message`s, earlier answers as they came
                (``completion.choices[0].message``), or a plain text. It is left as it is.
            model: another model, for this call.
            stream: give the answer while it comes.
            tools: OpenAI's dicts of functions that the model may call. The calls are for the caller to carry out; a
                `ToolClient` carries them out itself.
            response_format: a field such as ``{"type": "json_object"}``; for a type, see `parse`.
            **options: see `ChatOptions`.

        Returns:
            The completion; with ``stream=True`` its chunks, once the answer has begun.

        Raises:
            ConfigurationError: an argument is wrong; nothing was sent.
            ModelError: the model could not be asked, or its answer was no good; also named OpenRouterError.
        """
        check_response_format(response_format)
        check_place(options, OF_PLAIN_CLIENTS)
        provider = self.provider_for(model)
        settings = read_options({**options, "response_format": response_format})
        said = read_messages(messages, provider.name)
        request = Request(
            messages=said, tools=read_tools(tools), settings=settings, stream=stream, earlier=_earlier(said)
        )
        asking = Asking(provider, request)
        return await AsyncChatStream.begun(asking) if stream else await asking.whole()

    chat = create

    async def parse(
        self,
        messages: str | Sequence[Any],
        response_format: type[Output],
        *,
        model: str | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion[Output]:
        """Ask for a value of a type: ``completion.choices[0].message.parsed``.

        Args:
            messages: as for `create`.
            response_format: the type: a pydantic model, a dataclass, ``list[str]``, ...
            model: another model, for this call.
            **options: see `ChatOptions`.

        Raises:
            ConfigurationError: an argument is wrong; nothing was sent.
            OutputInvalid: the answer does not fit the type, even after it was asked for again.
            Refused: the model declined.
            ModelError: the model could not be asked.
        """
        provider = self.provider_for(model)
        check_place(options, OF_PARSE)
        said, settings = read_messages(messages, provider.name), read_options(options)
        return await Running(provider, said, settings, output=read_output(response_format)).whole()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        """Nothing is left open: connections belong to the event loop."""

    def provider_for(self, model: str | None) -> Provider:
        """Give who is asked for a model; None stands for the client's own.

        Raises:
            ConfigurationError: the client was given a provider object, which has a model already.
        """
        if model is None:
            return self._provider
        named = model_named(_checked(model))
        if named == self.model:
            return self._provider
        found = self._others.get(named)
        if found is None:
            provider = self._given.provider
            if isinstance(provider, str) and not provider.startswith(f"{REPLAY}:"):
                provider = provider.partition(":")[0]  # the model named there is another one
            if len(self._others) >= _MODELS_KEPT:
                self._others.clear()
            found = self._others[named] = self._made(provider, named)
        return found

    def _made(self, provider: str | Provider | Sequence[str | Provider], model: str | None) -> Provider:
        given = self._given
        options: dict[str, Any] = {"headers": given.default_headers, "limits": given.limits}
        return get_provider(
            provider,
            model=model,
            api_key=given.token,
            base_url=given.base_url,
            retry=self._retry if isinstance(provider, str | Sequence) else None,
            **{name: value for name, value in options.items() if value is not None},
        )


@dataclass(frozen=True, slots=True)
class _Given:
    """What every provider of a client is made with."""

    token: str | None = field(repr=False)
    base_url: str | None
    default_headers: Mapping[str, str] | None = field(repr=False)
    provider: str | Provider | Sequence[str | Provider]
    limits: TransportLimits | None


_USUAL: Final = RetryPolicy(max_retries=MAX_RETRIES, initial_delay=RETRY_INITIAL_DELAY, max_delay=RETRY_MAX_DELAY)


def _checked(model: object) -> str:
    if not isinstance(model, str) or not model.strip():
        msg = f"model must be a model's name, not {excerpt(repr(model), 60)}"
        raise ConfigurationError(msg)
    return model


def _earlier(messages: Sequence[Message]) -> int:
    """Count the messages before the last that a person said."""
    return next((number for number in range(len(messages) - 1, 0, -1) if messages[number].role == "user"), 0)
