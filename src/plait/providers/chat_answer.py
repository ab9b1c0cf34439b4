"""Answers in OpenAI's chat dialect: from JSON, whole or in events, to deltas. Pure; it does no I/O.

https://platform.openai.com/docs/api-reference/chat/object and .../chat-streaming

Many servers speak this dialect, few exactly. What cannot be misread is taken as it is meant (tool arguments as an
object, calls without an index, null for nothing); what has no meaning is a `ProtocolViolation`. Text that is not
UTF-8 is one, too; a lone surrogate, which JSON can say, is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from plait.attachments import parse_data_url
from plait.events import (
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
from plait.messages import ImagePart
from plait.plain import to_json
from plait.providers.judging import Judge, fields_of, usage_of

if TYPE_CHECKING:
    from plait.events import Delta
    from plait.providers.status import Service

_ERROR: Final = "error"
_NO_CHOICE: Final = "answered without a choice"
_GROWING: Final = {"reasoning.text": "text", "reasoning.summary": "summary"}  # details, and which field grows


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: Any = None


class _SaidCall(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    extra_content: Any = None  # Google's signatures of thoughts, which it wants back


class _Said(msgspec.Struct, gc=False):
    """A message, or its growth: the fields are the same."""

    content: Any = None
    tool_calls: list[_SaidCall] | None = None
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
    logprobs: Any = None
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
    calls: _Calls | None = None
    details: _Details | None = None
    annotations: list[Any] | None = None
    logprobs: dict[str, list[Any]] | None = None


class _Call(msgspec.Struct, gc=False, eq=False):
    """A tool call that began: our index of it, its id and its name, and whether it came with all of its arguments."""

    index: int
    whole: bool
    id: str = ""
    name: str = ""


class _Calls(msgspec.Struct, gc=False, eq=False):
    """The tool calls of one choice."""

    by_index: dict[int, _Call] = msgspec.field(default_factory=dict)  # the server's index
    by_id: dict[str, _Call] = msgspec.field(default_factory=dict)
    taken: set[int] = msgspec.field(default_factory=set)  # the indexes we gave
    highest: int = -1  # of these
    last: _Call | None = None  # the one that began last

    def grow(self, said: _SaidCall, choice: int, *, whole: bool) -> ToolCallDelta:
        """Give the delta of a tool call, or of a piece of one, under an index that is its own.

        Args:
            said: what came of it.
            choice: whose call it is.
            whole: whether all of it came, in a list whose order tells calls apart, whatever their indexes say.
        """
        function = said.function or _NO_FUNCTION
        id_, name, arguments = said.id or "", function.name or "", function.arguments
        if type(arguments) is not str:
            arguments = "" if arguments is None else to_json(arguments).decode()
        index = None if whole else said.index
        call = None if whole else self._known(index, id_, name, arguments)
        if call is None:
            call = self._begin(index, whole=bool(name) and _is_whole(arguments))
        call.name = call.name or name
        if id_ and not call.id:
            call.id = id_
            self.by_id[id_] = call
        return ToolCallDelta(call.index, id_, name, arguments, choice)

    def _known(self, index: int | None, id_: str, name: str, arguments: str) -> _Call | None:
        """Find the call that a piece belongs to; None if it begins one.

        That is the call under its index; without one, the call with its id, else the last one. A name begins another
        call if the call it would belong to has another name, or under its index another id, or if both came with all
        of their arguments: Google has given every call the index 0, and no id.
        """
        if index is not None:
            call = self.by_index.get(index)
            if call is not None and name:
                another = id_ and call.id and id_ != call.id
                call = None if another or (call.whole and not id_ and _is_whole(arguments)) else call
        elif id_:
            call = self.by_id.get(id_)
        else:
            call = None if name else self.last
        return call if call is not None and (not name or call.name in ("", name)) else None

    def _begin(self, wanted: int | None, *, whole: bool) -> _Call:
        index = wanted if wanted is not None and wanted >= 0 and wanted not in self.taken else self.highest + 1
        self.taken.add(index)
        self.highest = max(self.highest, index)
        call = self.last = self.by_index[index if wanted is None else wanted] = _Call(index, whole)
        return call


class _Details(msgspec.Struct, gc=False, eq=False):
    """OpenRouter's details of what the model thinks, some of which come in pieces."""

    said: list[Any] = msgspec.field(default_factory=list)
    texts: list[str] = msgspec.field(default_factory=list)  # the pieces of the last one's text

    def add(self, item: Any) -> None:
        """Add a detail, or a piece that goes on with the last one."""
        field = _grows_by(item)
        last: Any = self.said[-1] if self.said else None
        if field and field == _grows_by(last) and _is_same(item, last):
            last |= {name: value for name, value in item.items() if value is not None}
        else:
            self.close()
            self.said.append(item)
        if field and type(item.get(field)) is str:
            self.texts.append(item[field])

    def close(self) -> list[Any]:
        """Join the text of the last detail: nothing more of it comes. Give them all."""
        if self.texts:
            last = self.said[-1]
            last[_grows_by(last)] = "".join(self.texts)
            self.texts = []
        return self.said


def _grows_by(detail: Any) -> str:
    """Give the field by which a detail of this type grows; empty if it comes whole."""
    kind = detail.get("type") if type(detail) is dict else None
    return _GROWING.get(kind, "") if type(kind) is str else ""


def _is_same(piece: dict[str, Any], detail: dict[str, Any]) -> bool:
    return piece.get("index") == detail.get("index") and piece.get("id") in (None, detail.get("id"))


def _is_whole(arguments: str) -> bool:
    """Whether arguments look like a whole object; no piece of one begins and ends so, but for one with others in it."""
    return arguments[:1] == "{" and arguments[-1:] == "}"


class ChatReader(Judge[_Answer]):
    """Turns one answer's JSON into deltas, and judges at its end whether it was complete."""

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

    def _take(self, answer: _Answer, body: bytes, deltas: list[Delta]) -> bool:
        self._add(answer, deltas)
        if not answer.choices:
            raise self._violation(body, what=_NO_CHOICE)
        return True

    def _is_complete(self) -> bool:
        """Whether all was said to be done, or each choice: as many as were asked for, and all that began."""
        choices = self._choices.values()
        enough = len(choices) >= self._expected
        return self.done or (enough and all(choice.finish_reason is not None for choice in choices))

    def _endings(self, beginning: bytes) -> list[Delta]:
        """Give each choice's end mark, and before it the vendor's own fields."""
        if not self._choices:
            raise self._violation(beginning, what=_NO_CHOICE)
        endings: list[Delta] = []
        for number, choice in self._choices.items():
            if choice.finish_reason == _ERROR:  # as OpenRouter says it
                error = self._error({"message": "the model failed in the middle of its answer", "code": _ERROR})
                error.retryable = True
                raise error
            details = choice.details and choice.details.close()
            if details or choice.annotations or choice.logprobs:
                said = {
                    "reasoning_details": details,
                    "annotations": choice.annotations,
                    "logprobs": choice.logprobs,
                }
                kept = self._kept({name: value for name, value in said.items() if value})
                endings.append(DetailsDelta(kept, number))
            # Some servers name no reason, and say only that all is done.
            endings.append(FinishDelta(choice.finish_reason or "", number))
        return endings

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
                self._spoke = True
                deltas.append(TextDelta(text, number))
            if said.refusal:
                self._spoke = True
                deltas.append(RefusalDelta(said.refusal, number))
            if said.tool_calls or said.images:
                self._spoke = True
                self._act(said, progress, number, deltas, whole=choice.delta is None)
            if choice.finish_reason or choice.logprobs:  # some servers say "" with every piece
                progress.finish_reason = choice.finish_reason or progress.finish_reason
                _weigh(choice.logprobs, progress)
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

    def _act(self, said: _Said, progress: _Progress, number: int, deltas: list[Delta], *, whole: bool) -> None:
        if said.tool_calls:
            calls = progress.calls = progress.calls or _Calls()
            for call in said.tool_calls:
                grown = calls.grow(call, number, whole=whole)
                deltas.append(grown)
                if call.extra_content:
                    details = self._kept({"extra_content": call.extra_content})
                    deltas.append(ToolCallDelta(grown.index, choice=number, details=details))
        if isinstance(said.images, list):
            deltas += [PartDelta(image, number) for image in map(_image, said.images) if image is not None]

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


def _image(said: Any) -> ImagePart | None:
    """Read an image of an answer, as OpenRouter sends it: an address, which usually holds the image itself."""
    inner = said.get("image_url") if isinstance(said, dict) else None
    url = inner.get("url") if isinstance(inner, dict) else None
    if not isinstance(url, str) or not url:
        return None
    found = parse_data_url(url)
    return ImagePart(url=url) if found is None else ImagePart(data=found.data, media_type=found.media_type)


def _think(said: _Said, progress: _Progress, number: int, deltas: list[Delta]) -> None:
    thought = said.reasoning or said.reasoning_content
    if thought:
        deltas.append(ReasoningDelta(thought, number))
    if isinstance(said.annotations, list):
        annotations = progress.annotations = progress.annotations or []
        annotations += said.annotations
    if isinstance(said.reasoning_details, list):
        details = progress.details = progress.details or _Details()
        for item in said.reasoning_details:
            details.add(item)


def _weigh(logprobs: Any, progress: _Progress) -> None:
    """Add what the model said of the probabilities of its tokens, which comes in pieces, as they do."""
    if isinstance(logprobs, dict):
        kept = progress.logprobs = progress.logprobs or {}
        for name, items in logprobs.items():
            if isinstance(items, list) and items:
                kept.setdefault(name, []).extend(items)


def read_usage(said: object) -> Usage | None:
    """Read the tokens of a request; see `usage_of`."""
    told = fields_of(said)
    of_input, of_output = fields_of(told.get("prompt_tokens_details")), fields_of(told.get("completion_tokens_details"))
    return usage_of(
        told.get("prompt_tokens"),
        told.get("completion_tokens"),
        read=of_input.get("cached_tokens"),
        written=of_input.get("cache_write_tokens"),
        thought=of_output.get("reasoning_tokens"),
        cost=told.get("cost"),
    )
