"""Answers in OpenAI's chat dialect: from JSON, whole or in events, to deltas. Pure; it does no I/O.

https://platform.openai.com/docs/api-reference/chat/object and .../chat-streaming

Many servers speak this dialect, few exactly. What cannot be misread is taken as it is meant (tool arguments as an
object, calls without an index, null for nothing); what has no meaning is a `ProtocolViolation`. Text that is not
UTF-8 is one, too; a lone surrogate, which JSON can say, is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from plait.events import (
    MAY_BE_EMPTY,
    DetailsDelta,
    FinishDelta,
    ModelDelta,
    PartDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from plait.frozen import assemble
from plait.messages import ImagePart
from plait.plain import to_json
from plait.providers.judging import Judge
from plait.providers.wire import dollars, parse_data_url, token_count

if TYPE_CHECKING:
    from plait.errors import TransportError
    from plait.events import Delta
    from plait.providers.status import Service

_ERROR: Final = "error"
_PIECEMEAL: Final = frozenset({"reasoning.text", "reasoning.summary"})


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: Any = None


class _Call(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    extra_content: Any = None  # Google's signatures of thoughts, which it wants back


class _Said(msgspec.Struct, gc=False):
    """A message, or its growth: the fields are the same."""

    content: Any = None
    tool_calls: list[_Call] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    reasoning_details: Any = None
    annotations: Any = None
    images: Any = None


class _Choice(msgspec.Struct, gc=False):
    index: int | None = None
    delta: _Said | None = None
    message: _Said | None = None
    finish_reason: str | None = None
    error: Any = None


class _Answer(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    message: Any = None  # what vLLM, for one, says of an error without that word, and so the next two
    code: Any = None
    type: Any = None


_NOTHING: Final = _Said()
_NO_FUNCTION: Final = _Function()


class _Progress(msgspec.Struct, gc=False, eq=False):
    """What was seen of one choice."""

    finish_reason: str | None = None
    spoke: bool = False  # text, a refusal or a tool call came
    calls: dict[int, _Known] | None = None  # by the server's index
    taken: set[int] | None = None  # the indexes we gave
    last: int = -1  # the highest of them
    details: list[Any] | None = None
    annotations: list[Any] | None = None


class _Known(msgspec.Struct, gc=False):
    """A tool call that began: our index of it, its id and its name, and whether it came with all of its arguments."""

    index: int
    id: str
    name: str
    whole: bool = False


class ChatReader(Judge[_Answer]):
    """Turns one answer's JSON into deltas, and judges at its end whether it was complete.

    End marks are given out by `end` alone, when it is sure that the answer is one.
    """

    __slots__ = ("_choices", "_expected", "_first", "_named", "_usages")

    decoder: ClassVar[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(_Answer)

    def __init__(self, service: Service, *, expected: int = 1) -> None:
        """Say who answers, and how many choices were asked for."""
        super().__init__(service)
        self._expected = expected
        self._first = 0
        self._choices: dict[int, _Progress] = {}
        self._named = False
        self._usages: list[Any] | None = None  # what was said of tokens since they were counted last

    def whole(self, body: bytes) -> list[Delta]:
        """Read an answer in one piece.

        Raises:
            ProtocolViolation: it is no answer.
            ProviderError: it holds an error instead.
            EmptyAnswer: it is complete and says nothing.
        """
        try:
            answer: _Answer = self.decoder.decode(body)
        except (ValueError, RecursionError):
            answer = self._read(body)
        self._add(answer, self._said)
        if not answer.choices:
            raise self._violation(body, what="answered without a choice")
        self._sum_up(self._said)
        return self._said + self.end(complete=True)

    def end(
        self, beginning: bytes = b"", *, complete: bool = False, broken: TransportError | None = None
    ) -> list[Delta]:
        """Judge the answer at its end; give each choice's end mark, and before it the vendor's own fields.

        Args:
            beginning: the first bytes of the stream, to show if there was no event in it.
            complete: whether it is known to be complete (it came in one piece).
            broken: how the stream broke off, if it did.

        Raises:
            StreamTruncated: a choice has no end mark, and ``[DONE]`` did not come.
            ProviderError: a choice ended with the finish reason ``"error"``, as OpenRouter calls it.
            ProtocolViolation: an event is no JSON object of this dialect, or a stream that ended cleanly held none, or
                no choice in any.
            ProviderError: an event holds an error. As with all of these, ``partial`` is the text so far.
            EmptyAnswer: it is complete and says nothing.
        """
        if self._failure is not None:
            raise self._failure
        choices = self._choices
        if not (complete or self.done or self._finished()):
            raise self._truncated(beginning, broken)
        if not choices:
            raise self._violation(beginning, what="answered without a choice")
        deltas: list[Delta] = []
        spoke = False
        for number, choice in choices.items():
            if choice.finish_reason == _ERROR:
                error = self._error({"message": "the model failed in the middle of its answer", "code": _ERROR})
                error.retryable = True
                raise error
            spoke = spoke or choice.spoke or choice.finish_reason in MAY_BE_EMPTY
            if choice.details or choice.annotations:
                details = {"reasoning_details": choice.details, "annotations": choice.annotations}
                deltas.append(DetailsDelta({name: value for name, value in details.items() if value}, number))
            # Some servers name no reason, and say only that all is done.
            deltas.append(FinishDelta(choice.finish_reason or "", number))
        if not spoke:
            raise self._empty()
        return deltas

    def _finished(self) -> bool:
        """Whether as many choices as were asked for, and all that began, have their end mark."""
        choices = self._choices
        return len(choices) >= self._expected and all(choice.finish_reason is not None for choice in choices.values())

    def _add(self, event: _Answer, deltas: list[Delta]) -> bool:
        if event.error or (event.message and (event.code or event.type)):
            raise self._error(event.error or {"message": event.message, "code": event.code, "type": event.type})
        if not self._named and (event.model or event.id):
            self._named = True
            deltas.append(ModelDelta(event.model or "", event.id or "", self._service.provider))
        if event.usage is not None:
            self._used(event.usage)
        for choice in event.choices or ():
            if choice.error:
                raise self._error(choice.error)
            number = choice.index or 0
            if number or self._first:
                number = self._ours(number)
            progress = self._choices.get(number)
            if progress is None:
                progress = self._choices[number] = _Progress()
            said = choice.delta or choice.message
            if said is None:
                said = _NOTHING
            elif said.reasoning or said.reasoning_content or said.reasoning_details or said.annotations:
                _think(said, progress, number, deltas)
            content = said.content
            if content and (text := content if type(content) is str else self._text(content, number, deltas)):
                progress.spoke = True
                deltas.append(TextDelta(text, number))
            if said.refusal:
                progress.spoke = True
                deltas.append(RefusalDelta(said.refusal, number))
            if said.tool_calls or said.images:
                progress.spoke = True
                _act(said, progress, number, deltas, whole=choice.delta is None)
            if choice.finish_reason:  # some servers say "" with every piece
                progress.finish_reason = choice.finish_reason
        return False  # the tokens may still be told

    def _ours(self, number: int) -> int:
        """Give our number of a choice: if one was asked for, the first that comes is 0, however the server counts."""
        if self._expected == 1 and not self._choices:
            self._first = number
        return 0 if number == self._first else number or self._first

    def _used(self, usage: object) -> None:
        if self._usages is None:
            self._usages = []
        self._usages.append(usage)

    def _sum_up(self, deltas: list[Delta]) -> None:
        """Give the tokens that were told last and make sense: which reads told of them must make no difference."""
        if self._usages is None:
            return
        for said in reversed(self._usages):
            if (usage := read_usage(said)) is not None:
                deltas.append(UsageDelta(usage))
                break
        self._usages = None

    def _text(self, content: object, number: int, deltas: list[Delta]) -> str:
        """Join content that comes in parts, as some vendors send it; Mistral's has what its models think in it."""
        if not isinstance(content, list):
            raise self._violation(to_json(content), what="sent content that is no text")
        thoughts = [_joined_text(part.get("thinking")) for part in content if isinstance(part, dict)]
        deltas += [ReasoningDelta(thought, number) for thought in thoughts if thought]
        return _joined_text(content)


def _joined_text(parts: object) -> str:
    """Join the texts of parts; they may be one text, too."""
    if not isinstance(parts, list):
        return parts if isinstance(parts, str) else ""
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


def _act(said: _Said, progress: _Progress, number: int, deltas: list[Delta], *, whole: bool) -> None:
    for call in said.tool_calls or ():
        grown = _grow(call, progress, number, whole=whole)
        deltas.append(grown)
        if call.extra_content:
            deltas.append(ToolCallDelta(grown.index, choice=number, details={"extra_content": call.extra_content}))
    if isinstance(said.images, list):
        deltas += [PartDelta(image, number) for image in map(_image, said.images) if image is not None]


def _image(said: Any) -> ImagePart | None:
    """Read an image of an answer, as OpenRouter sends it: an address, which usually holds the image itself."""
    inner = said.get("image_url") if isinstance(said, dict) else None
    url = inner.get("url") if isinstance(inner, dict) else None
    if not isinstance(url, str) or not url:
        return None
    found = parse_data_url(url)
    return ImagePart(url=url) if found is None else ImagePart(data=found[1], media_type=found[0])


def _think(said: _Said, progress: _Progress, number: int, deltas: list[Delta]) -> None:
    thought = said.reasoning or said.reasoning_content
    if thought:
        deltas.append(ReasoningDelta(thought, number))
    if isinstance(said.annotations, list):
        annotations = progress.annotations = progress.annotations or []
        annotations += said.annotations
    if not isinstance(said.reasoning_details, list):
        return
    details = progress.details = progress.details or []
    for item in said.reasoning_details:
        last = details[-1] if details else None
        if isinstance(item, dict) and isinstance(last, dict) and _continues(item, last):
            details[-1] = _joined(last, item)
        else:
            details.append(item)


def _continues(item: dict[str, Any], last: dict[str, Any]) -> bool:
    """Whether a piece of reasoning text goes on with the last one, as OpenRouter cuts it."""
    same = all(item.get(key) == last.get(key) for key in ("type", "index"))
    return same and item.get("type") in _PIECEMEAL and item.get("id") in (None, last.get("id"))


def _joined(last: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    made = {**last, **{key: value for key, value in item.items() if value is not None}}
    for key in ("text", "summary"):
        if isinstance(last.get(key), str) and isinstance(item.get(key), str):
            made[key] = last[key] + item[key]
    return made


def _grow(call: _Call, progress: _Progress, number: int, *, whole: bool) -> ToolCallDelta:
    """Give the delta of a tool call, or of a piece of one, under an index that is its own.

    A piece belongs to the call under its index; without one, to the call with its id, else to the last call. A
    name begins another call if the call it would belong to has another name, or under its index another id, or if
    both came with all of their arguments: Google has given every call the index 0, and no id.
    """
    function = call.function or _NO_FUNCTION
    name, new_id = function.name or "", call.id or ""
    arguments = function.arguments
    if type(arguments) is not str:
        arguments = "" if arguments is None else to_json(arguments).decode()
    known: _Known | None = None
    calls = progress.calls
    if calls is None:
        calls = progress.calls = {}
    if whole:  # the calls are in order, whatever their indexes say
        progress.last += 1
        calls[progress.last] = _Known(progress.last, new_id, name)
        return ToolCallDelta(progress.last, new_id, name, arguments, number)
    if call.index is not None:
        known = calls.get(call.index)
        if known is not None and name:
            another_id = new_id and known.id and new_id != known.id
            known = None if another_id or (known.whole and not new_id and _is_whole(arguments)) else known
    elif new_id:
        known = next((one for one in reversed(calls.values()) if one.id == new_id), None)
    elif not name and calls:
        known = next(reversed(calls.values()))
    if known is not None and (not name or known.name in ("", name)):
        known.id, known.name = known.id or new_id, known.name or name
        return ToolCallDelta(known.index, new_id, name, arguments, number)
    wanted = call.index
    taken = progress.taken
    if taken is None:
        taken = progress.taken = set()
    index = wanted if wanted is not None and wanted >= 0 and wanted not in taken else progress.last + 1
    taken.add(index)
    progress.last = max(progress.last, index)
    calls[index if wanted is None else wanted] = _Known(index, new_id, name, bool(name) and _is_whole(arguments))
    return ToolCallDelta(index, new_id, name, arguments, number)


def _is_whole(arguments: str) -> bool:
    """Whether arguments look like a whole object; no piece of one begins and ends so, but for one with others in it."""
    return arguments[:1] == "{" and arguments[-1:] == "}"


def read_usage(said: object) -> Usage | None:
    """Read the tokens of a request; None when they make no sense, which is not the same as zero."""
    if not isinstance(said, dict):
        return None
    sent, received = token_count(said.get("prompt_tokens")), token_count(said.get("completion_tokens"))
    if sent is None or received is None:
        return None
    found: dict[str, Any] = {"input_tokens": sent, "output_tokens": received}
    if type(of_input := said.get("prompt_tokens_details")) is dict:
        if read := token_count(of_input.get("cached_tokens")):
            found["cache_read_tokens"] = read
        if written := token_count(of_input.get("cache_write_tokens")):
            found["cache_write_tokens"] = written
    if type(of_output := said.get("completion_tokens_details")) is dict and (
        thought := token_count(of_output.get("reasoning_tokens"))
    ):
        found["reasoning_tokens"] = thought
    if (cost := dollars(said.get("cost"))) is not None:
        found["cost"] = cost
    return assemble(Usage, found)
