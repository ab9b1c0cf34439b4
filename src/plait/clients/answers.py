"""From answers to completions, and from events to chunks. Pure: no provider is asked here.

Both come of the same values: a plain client's of the `Answer`s to one request, a tool client's of a run.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from plait.attachments import image_type
from plait.clients.completions import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    Choice,
    ChoiceDelta,
    ChunkChoice,
    CompletionTokensDetails,
    DeltaFunctionCall,
    DeltaToolCall,
    FunctionCall,
    MessageToolCall,
    PromptTokensDetails,
    TokenUsage,
)
from plait.events import (
    CUT,
    DECLINED,
    AttemptDelta,
    ModelDelta,
    PartDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from plait.ids import new_id
from plait.messages import AssistantMessage, ImagePart, Message, ReasoningPart, TextPart
from plait.plain import thaw
from plait.providers.wire import data_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from plait.clients.completions import FinishReason
    from plait.events import Answer, Event, Usage
    from plait.run import RunResult

Output = TypeVar("Output")

_BETWEEN: Final = "\n\n"
_OF_CITATIONS: Final = frozenset({"url", "title", "start_index", "end_index"})


def token_usage(usage: Usage | None) -> TokenUsage | None:
    """Give tokens in OpenAI's words; None where the provider did not report any."""
    if usage is None:
        return None
    of_prompt = PromptTokensDetails(cached_tokens=usage.cache_read_tokens, cache_write_tokens=usage.cache_write_tokens)
    return TokenUsage(
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=usage.reasoning_tokens),
        prompt_tokens_details=of_prompt,
        cost=usage.cost,
    )


def finish_reason(said: str | None, *, calls: bool, cut: bool = False) -> FinishReason:
    """Give why a model stopped, in OpenAI's words.

    Args:
        said: the provider's own.
        calls: whether it stopped in order to call tools.
        cut: whether it was stopped before its answer was whole.
    """
    if said in CUT or (cut and not calls):
        return "length"
    if said in DECLINED:
        return "content_filter"
    return "tool_calls" if calls else "stop"


def answer_message(said: Message, parsed: Any = None) -> ChatCompletionMessage[Any]:
    """Give an answer in OpenAI's shape; ``parsed`` is the value that was read from it."""
    calls, text, refusal = said.tool_calls, said.text, said.refusal
    details: dict[str, Any] = thaw(said.details) if isinstance(said, AssistantMessage) else {}
    return ChatCompletionMessage(
        content=text if text or not (calls or refusal) else None,
        refusal=refusal or None,
        annotations=[item for item in details.get("annotations", ()) if _is_citation(item)] or None,
        tool_calls=[
            MessageToolCall(id=call.id, function=FunctionCall(name=call.name, arguments=call.arguments))
            for call in calls
        ]
        or None,
        reasoning=said.reasoning or None,
        reasoning_details=details.get("reasoning_details"),
        images=[_drawn(part) for part in said.parts if isinstance(part, ImagePart)] or None,
        parsed=parsed,
        said=said if isinstance(said, AssistantMessage) else None,
    )


def _is_citation(annotation: Any) -> bool:
    """Whether an annotation is of the one kind that OpenAI has; OpenRouter has others."""
    cited = annotation.get("url_citation") if isinstance(annotation, dict) else None
    return isinstance(cited, dict) and annotation.get("type") == "url_citation" and cited.keys() >= _OF_CITATIONS


def _logprobs(said: Message) -> dict[str, Any] | None:
    found = said.details.get("logprobs") if isinstance(said, AssistantMessage) else None
    return {"content": None, "refusal": None, **thaw(found)} if found else None


def _drawn(part: ImagePart) -> dict[str, Any]:
    url = part.url if part.data is None else data_url(part.data, image_type(part))
    return {"type": "image_url", "image_url": {"url": url}}


def completion_of_answers(answers: Sequence[Answer]) -> ChatCompletion[Any]:
    """Give the completion that the answers to one request make, each of them a choice."""
    first = answers[0]
    return ChatCompletion(
        id=first.response_id or new_id("chatcmpl"),
        choices=[
            Choice(
                finish_reason=finish_reason(answer.finish_reason, calls=bool(answer.message.tool_calls)),
                index=number,
                message=answer_message(answer.message),
                logprobs=_logprobs(answer.message),
                native_finish_reason=answer.finish_reason,
            )
            for number, answer in enumerate(answers)
        ],
        created=int(time.time()),
        model=first.message.model or "",
        usage=token_usage(first.usage),
        provider=first.message.provider,
    )


def completion_of_run(result: RunResult[Any], model: str, *, parsed: bool) -> ChatCompletion[Any]:
    """Give the completion that a run makes: its last answer, and the tokens of all its turns.

    Args:
        result: how the run ended.
        model: who was asked, for a run that ended before there was an answer.
        parsed: whether the run's output is a value that was read from the answer.
    """
    answered = result.model is not None or result.finish_reason is not None
    said = next((m for m in reversed(result.messages) if m.role == "assistant" and answered), AssistantMessage())
    calls = bool(said.tool_calls)
    choice = Choice(
        finish_reason=finish_reason(result.finish_reason, calls=calls, cut=result.stop_reason != "response"),
        index=0,
        message=answer_message(said, result.output if parsed else None),
        logprobs=_logprobs(said),
        native_finish_reason=result.finish_reason,
    )
    return ChatCompletion(
        id=result.run_id,
        choices=[choice],
        created=int(time.time()),
        model=result.model or model,
        usage=token_usage(result.usage),
        provider=result.provider,
        stop_reason=result.stop_reason,
    )


class Chunks:
    """Makes the chunks of one stream, event by event.

    Args:
        id: the completion's; the provider's own takes its place if it comes first.
        model: who is asked.
        calls: whether tool calls are told, as of a plain client; a tool client carries them out itself, and its
            reader gets the text of all its answers, parted by blank lines.
    """

    def __init__(self, model: str, *, id: str | None = None, calls: bool) -> None:  # noqa: A002  # the field's name
        self._id = id
        self._model = model
        self._created = int(time.time())
        self._calls = calls
        self._begun: set[int] = set()  # choices of which something came
        self._told: set[int] = set()  # choices of whose open text pieces came
        self._thought: set[int] = set()  # and of whose open thoughts
        self._spoken: set[int] = set()  # choices of which text came
        self._between = False  # whether the next text parts answers

    def of(self, events: Iterable[Event]) -> list[ChatCompletionChunk]:
        """Give the chunks that events make; what says nothing to a reader makes none."""
        made = []
        for event in events:
            kind = type(event)
            if kind is TextDelta:
                choice = event.choice  # type: ignore[union-attr]  # the exact type was asked for
                if choice in self._told and not self._between:  # nearly all of them
                    grown = [ChunkChoice(delta=ChoiceDelta(content=event.text), index=choice)]  # type: ignore[union-attr]
                    made.append(
                        ChatCompletionChunk(id=self._named(), choices=grown, created=self._created, model=self._model)
                    )
                else:
                    self._told.add(choice)
                    made.append(self._text(event.text, choice))  # type: ignore[union-attr]
            elif kind is ToolCallDelta:
                if self._calls:
                    made.append(self._call(event))  # type: ignore[arg-type]
                else:
                    self._between = True
            elif kind is ReasoningDelta:
                self._thought.add(event.choice)  # type: ignore[union-attr]
                made.append(self._chunk(event.choice, reasoning=event.text))  # type: ignore[union-attr]
            elif kind is RefusalDelta:
                self._told.add(event.choice)  # type: ignore[union-attr]
                made.append(self._chunk(event.choice, refusal=event.text))  # type: ignore[union-attr]
            elif kind is PartDelta:
                made += self._part(event)  # type: ignore[arg-type]
            elif kind is ModelDelta:
                self._model = event.model or self._model  # type: ignore[union-attr]
                self._id = self._id or event.response_id  # type: ignore[union-attr]
            elif kind is AttemptDelta:
                self._between = True
        return made

    def end(self, completion: ChatCompletion[Any]) -> list[ChatCompletionChunk]:
        """Give the last chunks: the finish reason of each choice, and, with the last, the tokens."""
        last = len(completion.choices) - 1
        return [
            self._last(choice, completion, whole=number == last) for number, choice in enumerate(completion.choices)
        ]

    def _last(self, choice: Choice[Any], completion: ChatCompletion[Any], *, whole: bool) -> ChatCompletionChunk:
        ended = ChunkChoice(
            delta=ChoiceDelta(role=self._role(choice.index)),
            finish_reason=choice.finish_reason,
            index=choice.index,
            logprobs=choice.logprobs,
            native_finish_reason=choice.native_finish_reason,
        )
        return ChatCompletionChunk(
            id=self._named(),
            choices=[ended],
            created=self._created,
            model=self._model,
            usage=completion.usage if whole else None,
            provider=completion.provider,
            stop_reason=completion.stop_reason if whole else None,
        )

    def _named(self) -> str:
        if not self._id:
            self._id = new_id("chatcmpl")
        return self._id

    def _role(self, choice: int) -> Any:
        if choice in self._begun:
            return None
        self._begun.add(choice)
        return "assistant"

    def _text(self, text: str, choice: int) -> ChatCompletionChunk:
        if self._between:
            self._between = False
            text = _BETWEEN + text if choice in self._spoken else text
        self._spoken.add(choice)
        return self._chunk(choice, content=text)

    def _chunk(self, choice: int, **grown: Any) -> ChatCompletionChunk:
        delta = ChoiceDelta(role=self._role(choice), **grown)
        choices = [ChunkChoice(delta=delta, index=choice)]
        return ChatCompletionChunk(id=self._named(), choices=choices, created=self._created, model=self._model)

    def _call(self, delta: ToolCallDelta) -> ChatCompletionChunk:
        function = DeltaFunctionCall(name=delta.name or None, arguments=delta.arguments)
        begins = bool(delta.id or delta.name)
        call = DeltaToolCall(
            index=delta.index, id=delta.id or None, function=function, type="function" if begins else None
        )
        return self._chunk(delta.choice, tool_calls=[call])

    def _part(self, delta: PartDelta) -> list[ChatCompletionChunk]:
        """Tell a whole part, unless its text came in pieces before."""
        part, choice = delta.part, delta.choice
        if type(part) is ImagePart:
            return [self._chunk(choice, images=[_drawn(part)])]
        told = choice in (self._told if type(part) is TextPart else self._thought)
        self._told.discard(choice)
        self._thought.discard(choice)
        if told or not isinstance(part, TextPart | ReasoningPart) or not part.text:
            return []
        if isinstance(part, ReasoningPart):
            return [self._chunk(choice, reasoning=part.text)]
        return [self._chunk(choice, refusal=part.text) if part.refusal else self._text(part.text, choice)]
