"""What the chat clients give: completions and chunks, shaped as OpenAI's SDK shapes them.

https://platform.openai.com/docs/api-reference/chat/object and .../chat-streaming; the SDK's own types take what
``model_dump`` gives, and the objects themselves. Fields that are not OpenAI's are those that OpenRouter adds. There is
one chunk for each piece of an answer, so these are msgspec structs. Pure values; `answers` makes them.
"""

from __future__ import annotations

from typing import Any, Final, Generic, Literal

import msgspec
from pydantic_core import SchemaSerializer, core_schema
from typing_extensions import TypeVar

from plait.events import StopReason
from plait.messages import AssistantMessage, Message, ReasoningPart, TextPart, ToolCall
from plait.plain import thaw, to_json

Parsed = TypeVar("Parsed", default=None)

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
"""Why a model stopped, in OpenAI's words; ``native_finish_reason`` is the provider's own."""


class _Shaped(msgspec.Struct, frozen=True, kw_only=True):
    """What all of them can do: be plain data, as the SDK's objects can."""

    def model_dump(self, *, exclude_none: bool = False, mode: Literal["python", "json"] = "python") -> dict[str, Any]:
        """Give this as a dict of plain data.

        Args:
            exclude_none: leave out what is None.
            mode: ``"json"`` makes plain data of parsed values, too; ``"python"`` leaves those that have no
                ``model_dump`` as they are.
        """
        return _dumped(self, exclude_none=exclude_none, as_json=mode == "json")  # type: ignore[no-any-return]  # a struct gives a dict

    def model_dump_json(self, *, indent: int | None = None, exclude_none: bool = False) -> str:
        """Give this as JSON, with so many spaces for each level, or on one line."""
        made = to_json(self.model_dump(exclude_none=exclude_none, mode="json"))
        return made.decode() if indent is None else msgspec.json.format(made, indent=indent).decode()

    def to_dict(self) -> dict[str, Any]:
        """Give this as a dict, without what is None."""
        return self.model_dump(exclude_none=True)

    def to_json(self) -> str:
        """Give this as indented JSON, without what is None."""
        return self.model_dump_json(indent=2, exclude_none=True)

    def __repr__(self) -> str:
        shown = ((name, getattr(self, name)) for name in self.__struct_fields__ if name != _SAID)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown if value is not None)})"


_SAID: Final = "said"
_PARSED: Final = "parsed"
_ANYTHING: Final = SchemaSerializer(core_schema.any_schema())


def _dumped(value: Any, *, exclude_none: bool, as_json: bool) -> Any:
    if isinstance(value, _Shaped):
        made = {}
        for name in value.__struct_fields__:
            item = getattr(value, name)
            if name == _PARSED and item is not None:
                made[name] = _ANYTHING.to_python(item, mode="json" if as_json else "python")
            elif name == _SAID:
                if item is not None and not shows_all(item):
                    made[name] = item.to_json()
            elif item is not None or not exclude_none:
                made[name] = _dumped(item, exclude_none=exclude_none, as_json=as_json)
        return made
    if type(value) is list:
        return [_dumped(item, exclude_none=exclude_none, as_json=as_json) for item in value]
    return thaw(value)


def shows_all(said: Message) -> bool:
    """Whether text, calls and reasoning, in this order, are all of an answer, so that a dict of them is the answer."""
    if isinstance(said, AssistantMessage) and not said.details.keys() <= _SHOWN_DETAILS:
        return False
    kinds = [type(part) for part in said.parts]
    plain = sorted(kinds, key=_ORDER.index) == kinds if all(kind in _ORDER for kind in kinds) else False
    once = kinds.count(TextPart) <= 1 and kinds.count(ReasoningPart) <= 1
    return plain and once and not any(getattr(part, "details", None) for part in said.parts)


_ORDER: Final[list[type]] = [ReasoningPart, TextPart, ToolCall]
_SHOWN_DETAILS: Final = frozenset({"reasoning_details", "logprobs"})


class FunctionCall(_Shaped, frozen=True):
    """What a model wants to call: the function's name, and its arguments as the model wrote them, normally JSON."""

    arguments: str
    name: str


class MessageToolCall(_Shaped, frozen=True):
    """A model's wish to call a tool."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class ChatCompletionMessage(_Shaped, Generic[Parsed], frozen=True):
    """What a model answered.

    Put it back among the messages of the next call as it is: it then goes back to the provider as it came, with
    signatures and other details that its fields do not show.

    Attributes:
        content: the text; None where there is none beside tool calls or a refusal.
        refusal: the words with which the model declined.
        tool_calls: what it wants to call.
        annotations: what the text refers to, as the provider says it.
        reasoning: what the model thought.
        images: images that the model made, each ``{"type": "image_url", "image_url": {"url": ...}}``.
        parsed: the value of the type that ``parse`` was asked for.
        said: the answer as a `Message`. It is part of the plain data, as ``Message.to_json`` gives it, only where the
            other fields do not show all of it.
    """

    content: str | None = None
    refusal: str | None = None
    role: Literal["assistant"] = "assistant"
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: list[MessageToolCall] | None = None
    reasoning: str | None = None
    reasoning_details: list[Any] | None = None
    images: list[dict[str, Any]] | None = None
    parsed: Parsed | None = None
    said: AssistantMessage | None = None


class CompletionTokensDetails(_Shaped, frozen=True):
    """What is part of the tokens that came out."""

    reasoning_tokens: int | None = None


class PromptTokensDetails(_Shaped, frozen=True):
    """What is part of the tokens that went in: what came from the provider's cache, and what was written to it."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class TokenUsage(_Shaped, frozen=True):
    """Tokens of a completion: ``prompt_tokens`` went in, ``completion_tokens`` came out.

    ``cost`` is what the provider says it cost, in US dollars; None when it says nothing.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    completion_tokens_details: CompletionTokensDetails | None = None
    prompt_tokens_details: PromptTokensDetails | None = None
    cost: float | None = None


class Choice(_Shaped, Generic[Parsed], frozen=True):
    """One answer of those that were asked for with ``n``."""

    finish_reason: FinishReason
    index: int
    message: ChatCompletionMessage[Parsed]
    logprobs: dict[str, Any] | None = None
    native_finish_reason: str | None = None


class ChatCompletion(_Shaped, Generic[Parsed], frozen=True):
    """A whole answer, or several.

    Attributes:
        id: the provider's id of the answer; of a tool client, the id of the run.
        choices: the answers: ``completion.choices[0].message.content``.
        created: when it was made, in seconds since 1970.
        model: which model answered, as the provider names it.
        usage: the tokens of all requests; None when the provider did not report any.
        provider: who answered.
        stop_reason: of a tool client, why the run ended: ``"response"``, or the limit or stop that ended it before
            the model had given its answer.
    """

    id: str
    choices: list[Choice[Parsed]]
    created: int
    model: str
    object: Literal["chat.completion"] = "chat.completion"
    service_tier: None = None
    system_fingerprint: None = None
    usage: TokenUsage | None = None
    provider: str | None = None
    stop_reason: StopReason | None = None


class DeltaFunctionCall(_Shaped, frozen=True, gc=False):
    """The name of a function, or a piece of its arguments."""

    arguments: str | None = None
    name: str | None = None


class DeltaToolCall(_Shaped, frozen=True, gc=False):
    """The beginning of a tool call, or more of its arguments; ``index`` tells the calls of one answer apart."""

    index: int
    id: str | None = None
    function: DeltaFunctionCall | None = None
    type: Literal["function"] | None = None


class ChoiceDelta(_Shaped, frozen=True, gc=False):
    """What an answer grows by."""

    content: str | None = None
    function_call: None = None
    refusal: str | None = None
    role: Literal["assistant"] | None = None
    tool_calls: list[DeltaToolCall] | None = None
    reasoning: str | None = None
    images: list[dict[str, Any]] | None = None


class ChunkChoice(_Shaped, frozen=True, gc=False):
    """More of one answer; the last has a ``finish_reason``."""

    delta: ChoiceDelta
    finish_reason: FinishReason | None = None
    index: int = 0
    logprobs: dict[str, Any] | None = None
    native_finish_reason: str | None = None


class ChatCompletionChunk(_Shaped, frozen=True, gc=False):
    """A piece of a streamed answer: ``chunk.choices[0].delta.content``.

    Every chunk has a choice. The last one of each choice has its ``finish_reason``, and all of its ``logprobs``, where
    they were asked for; the very last has the ``usage``.
    """

    id: str
    choices: list[ChunkChoice]
    created: int
    model: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    service_tier: None = None
    system_fingerprint: None = None
    usage: TokenUsage | None = None
    provider: str | None = None
    stop_reason: StopReason | None = None
