"""A provider without a network, a key or chance: scripted, by a function, or by itself.

By itself it behaves as a patient model would: it calls the tools it is offered, fills the schema it is asked for,
and remembers what the thread says. The same request always gives the same answer. It is a product, not a mock: the
documented examples run on it, and so do users' tests.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from math import ceil, inf
from typing import TYPE_CHECKING, Any, Final

from plait.errors import ConfigurationError
from plait.events import (
    Answer,
    Delta,
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
from plait.frozen import Frozen
from plait.messages import AssistantMessage, ImagePart, ReasoningPart, ServerToolPart, TextPart, ToolCall

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from plait.messages import Message
    from plait.providers.base import Request

Answering = str | ToolCall | AssistantMessage | Answer | Exception | Sequence[ToolCall]
"""What a script holds or a function gives: text, tool calls, a whole message, an `Answer` that also says why the model
stopped, or an error to raise."""

AnswerFunction = Callable[["Request"], Answering | Awaitable[Answering]]

_SMALL_WORDS: Final = frozenset({"get", "the", "a", "of"})
_DEEPEST: Final = 8
_ENDLESS: Final = 50
_ITEMS_UNTIL: Final = 4
_MOST_REFERENCES: Final = 20
_PIECE: Final = re.compile(r"\s*\S+(?:\s+\Z)?|\s+")
_FACT: Final = re.compile(r"\bmy ([a-z][a-z' ]{0,40}?) (?:is|are|was) ([^.,;!?\n]{1,80})", re.IGNORECASE)
_ASKED: Final = re.compile(r"\bwhat(?:'s| is| are| was) my ([a-z][a-z' ]{0,40}?)\s*(?:\?|$|,|\.| again)", re.IGNORECASE)
_NUMBER: Final = re.compile(r"(?<!\w)-?\d+(?:\.\d+)?")
_LENGTH: Final = re.compile(r"at (least|most) (\d{1,6}) characters")
_FORMULA: Final = re.compile(r"[-+*/(). \d]+")
_NAME: Final = re.compile(r"(?<![.!?] )(?<!^)\b[A-Z][\w'-]+(?: [A-Z][\w'-]+)*")


class OfflineProvider:
    """Answers without a network.

    Args:
        script: the answers to give, one for each request: text, a `ToolCall` or several, a whole `AssistantMessage`,
            or an exception to raise. When it is used up, a further request is an error.
        function: called with each `Request`; gives such an answer. Sync or async.
        model: the name to report.
        delay: seconds between the pieces of a streamed answer.

    With neither script nor function it answers by itself.

    Attributes:
        requests: the requests it received, oldest first, for tests to look at.
    """

    name = "offline"

    def __init__(
        self,
        script: Iterable[Answering] | None = None,
        *,
        function: AnswerFunction | None = None,
        model: str = "offline",
        delay: float = 0.0,
    ) -> None:
        if callable(script):
            msg = "the script of OfflineProvider is a list of answers; a function that answers is given as function=..."
            raise ConfigurationError(msg)
        if isinstance(script, str | bytes | Mapping | Frozen) or not isinstance(script, Iterable | None):
            msg = f"the script of OfflineProvider is a list of answers, not {type(script).__name__}; put it in [...]"
            raise ConfigurationError(msg)
        if script is not None and function is not None:
            msg = "OfflineProvider takes a script or a function, not both"
            raise ConfigurationError(msg)
        self.model = model
        self.requests: list[Request] = []
        self._script = None if script is None else iter(script)
        self._function = function
        self._delay = delay

    def __repr__(self) -> str:
        return f"OfflineProvider(model={self.model!r})"

    async def stream(self, request: Request) -> AsyncGenerator[list[Delta], None]:
        """Answer: word by word, or in one list when the request is not streamed."""
        self.requests.append(request)
        answer = await self._answer(request)
        if isinstance(answer, Exception):
            raise answer
        whole = _answer(answer)
        message = whole.message
        head: list[Delta] = [ModelDelta(self.model, f"offline-{len(request.messages)}", self.name)]
        reason = whole.finish_reason or ("tool_calls" if message.tool_calls else "stop")
        used = whole.usage or Usage(input_tokens=sum(map(_size, request.messages)), output_tokens=_size(message))
        tail: list[Delta] = [FinishDelta(reason), UsageDelta(used)]
        if not request.stream:
            yield [*head, *(delta for piece in _pieces(message) for delta in piece), *tail]
            return
        yield head
        for piece in _pieces(message):
            await asyncio.sleep(self._delay)
            yield piece
        yield tail

    async def _answer(self, request: Request) -> Answering:
        if self._script is not None:
            for answer in self._script:
                return answer
            msg = f"the script of the offline provider is used up: this is request {len(self.requests)}"
            raise ConfigurationError(msg)
        if self._function is not None:
            made = self._function(request)
            return await made if inspect.isawaitable(made) else made
        return _by_itself(request)


def _answer(answer: Answering) -> Answer:
    if isinstance(answer, Answer):
        return answer
    if isinstance(answer, AssistantMessage):
        return Answer(answer)
    if isinstance(answer, str):
        return Answer(AssistantMessage(text=answer))
    calls = (answer,) if isinstance(answer, ToolCall) else answer
    if isinstance(calls, Sequence) and calls and all(isinstance(call, ToolCall) for call in calls):
        return Answer(AssistantMessage(parts=tuple(calls)))
    msg = (
        "an offline answer is text, a ToolCall, a list of ToolCalls, an AssistantMessage, an Answer or an exception, "
        f"not {type(answer).__name__}"
    )
    raise ConfigurationError(msg)


def _pieces(message: AssistantMessage) -> Iterator[list[Delta]]:
    """The message as it streams: text word by word, a call as its name and then its arguments."""
    index = 0
    exact = _has_own_fields(message)
    for part in message.parts:
        match part:
            case TextPart():
                for piece in _PIECE.findall(part.text) or [part.text]:
                    yield [RefusalDelta(piece) if part.refusal else TextDelta(piece)]
            case ReasoningPart():
                for piece in _PIECE.findall(part.text):
                    yield [ReasoningDelta(piece)]
            case ToolCall():
                yield [ToolCallDelta(index, part.id, part.name, details=dict(part.details) or None)]
                half = len(part.arguments) // 2
                for text in (part.arguments[:half], part.arguments[half:]):
                    yield [ToolCallDelta(index, arguments=text)]
                index += 1
            case ServerToolPart() | ImagePart():
                yield [PartDelta(part)]
            case _:
                msg = f"an offline answer cannot hold a {type(part).__name__}"
                raise ConfigurationError(msg)
        if exact and isinstance(part, TextPart | ReasoningPart):
            yield [PartDelta(part)]
    if message.details:
        yield [DetailsDelta(dict(message.details))]


def _has_own_fields(message: AssistantMessage) -> bool:
    """Whether the message's parts say more than pieces can, or come in an order that pieces would lose."""
    kinds = [(type(part), getattr(part, "refusal", False)) for part in message.parts if not isinstance(part, ToolCall)]
    plain = (TextPart, ReasoningPart)
    return len(set(kinds)) < len(kinds) or any(kind not in plain for kind, _ in kinds) or _details_in(message)


def _details_in(message: AssistantMessage) -> bool:
    return any(part.details for part in message.parts if isinstance(part, TextPart | ReasoningPart))


def _size(message: Message) -> int:
    """About how many tokens a message has: a quarter of its characters, at least one."""
    return max(1, sum(len(getattr(part, "text", "")) for part in message.parts) // 4)


def _by_itself(request: Request) -> Answering:
    users = [message.text for message in request.messages if message.role == "user"]
    prompt = users[-1] if users else ""
    last = request.messages[-1] if request.messages else None
    if last is not None and last.role == "tool":
        if request.output is not None:
            return _filled(request.output.schema, f"{prompt} {_results(last)}")
        return f"{_results(last)}"
    if request.output is None and (known := _remembered(prompt, users[:-1])):
        return known
    wanted = request.settings.tool_choice
    tools = [tool for tool in request.tools if wanted in (None, "auto", "required", tool.name)]
    if tools:
        return [
            ToolCall(
                id=f"call_{len(request.messages)}_{number}",
                name=tool.name,
                arguments=_filled(tool.parameters, prompt),
            )
            for number, tool in enumerate(_meant(tools, prompt), 1)
        ]
    if request.output is not None:
        return _filled(request.output.schema, prompt)
    return _said(prompt, users[:-1])


def _meant(tools: Sequence[Any], prompt: str) -> Sequence[Any]:
    """The tools a prompt speaks of, by their names' words; all of them where it speaks of none."""
    words = set(re.findall(r"[a-z]+", prompt.lower()))
    named = [tool for tool in tools if words & (set(re.findall(r"[a-z]+", tool.name.lower())) - _SMALL_WORDS)]
    return named or tools


def _results(message: Message) -> str:
    said = [
        f"{result.name} failed: {result.text}" if result.is_error else f"{result.name} says: {result.text}"
        for result in message.tool_results
    ]
    return "\n".join(said)


def _remembered(prompt: str, earlier: Sequence[str]) -> str | None:
    """The answer to "what is my ...?" from what the user said before."""
    asked = _ASKED.search(prompt)
    if asked is None:
        return None
    thing = asked[1].lower()
    for text in reversed(earlier):
        for fact in _FACT.finditer(text):
            if fact[1].lower() == thing:
                return f"Your {thing} is {fact[2].strip()}."
    return f"You have not told me your {thing}."


def _said(prompt: str, earlier: Sequence[str]) -> str:
    answer = f"You said: {prompt}"
    return f"{answer}\nBefore that you said: {earlier[-1]}" if earlier else answer


def _filled(schema: dict[str, Any], prompt: str) -> str:
    return json.dumps(_Filler(schema, prompt).value(schema, ""), ensure_ascii=False)


class _Filler:
    """Fills a JSON Schema with values, taken from the prompt where they fit: numbers in order, names in order."""

    def __init__(self, root: dict[str, Any], prompt: str) -> None:
        self._root = root
        self._prompt = prompt
        self._numbers = iter([float(number) for number in _NUMBER.findall(prompt)])
        self._names = iter(_NAME.findall(prompt))

    def value(self, schema: Any, name: str, depth: int = 0) -> Any:
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._chosen(schema["enum"])
        options = [self._resolved(option) for key in ("anyOf", "oneOf") for option in schema.get(key, ())]
        if any(option.get("type") == "null" for option in options):
            return None  # what may be left out is left out
        if options:
            flat = [option for option in options if option.get("type") not in ("object", "array")]
            return self.value((flat or options)[0] if depth > _DEEPEST else options[0], name, depth)
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = "null" if "null" in kind else kind[0]
        return self._of_kind(kind, schema, name, depth)

    def _of_kind(self, kind: str, schema: dict[str, Any], name: str, depth: int) -> Any:
        match kind:
            case "object":
                needed = () if depth > _ENDLESS else schema.get("required", ())
                fields = schema.get("properties", {})
                return {key: self.value(fields[key], key, depth + 1) for key in fields if key in needed}
            case "array":
                first = schema.get("prefixItems", ())
                wanted = 1 if depth < _ITEMS_UNTIL else 0
                count = max(schema.get("minItems", 0), min(wanted, schema.get("maxItems", wanted)), len(first))
                items = [*first, *[schema.get("items", {})] * (count - len(first))]
                return [self.value(item, name, depth + 1) for item in items]
            case "integer" | "number":
                return self._number(schema, whole=kind == "integer")
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return self._text(schema, name)

    def _resolved(self, schema: Any) -> dict[str, Any]:
        """The schema itself, with what it refers to; ``true`` stands for one that takes anything."""
        for _ in range(_MOST_REFERENCES):
            if not isinstance(schema, dict):
                break
            if "$ref" in schema:
                target: Any = self._root
                for step in schema["$ref"].removeprefix("#/").split("/"):
                    target = target.get(step, {}) if isinstance(target, dict) else {}
                schema = target
            elif "allOf" in schema:
                parts = [self._resolved(part) for part in schema["allOf"]]
                schema = {key: item for part in (schema, *parts) for key, item in part.items() if key != "allOf"}
            else:
                return schema
        return {}

    def _chosen(self, options: list[Any]) -> Any:
        lower = self._prompt.lower()
        return next((option for option in options if isinstance(option, str) and option.lower() in lower), options[0])

    def _number(self, schema: dict[str, Any], *, whole: bool) -> float:
        """The prompt's next number, or 1, brought within the schema's bounds."""
        step = schema.get("multipleOf") or (1 if whole else 0)
        low = max(schema.get("minimum", -inf), schema.get("exclusiveMinimum", -inf))
        high = min(schema.get("maximum", inf), schema.get("exclusiveMaximum", inf))
        number = min(max(next(self._numbers, 1.0), low), high)
        if step:
            number = ceil(number / step) * step
            number += step if number == schema.get("exclusiveMinimum") else 0
            if number > high or number == schema.get("exclusiveMaximum"):
                number = (
                    (ceil(high / step) - 1) * step if high == schema.get("exclusiveMaximum") else high // step * step
                )
        elif number in (schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")):
            number = (max(low, high - 2) + min(high, low + 2)) / 2
        return int(number) if whole else number

    def _text(self, schema: dict[str, Any], name: str) -> str:
        fixed = {
            "date": "2024-01-01",
            "date-time": "2024-01-01T12:00:00Z",
            "time": "12:00:00Z",
            "uuid": "00000000-0000-4000-8000-000000000000",
            "email": "someone@example.com",
            "uri": "https://example.com/",
            "duration": "PT1H",
        }
        made = fixed.get(schema.get("format", ""))
        if made is None:
            made = self._named(name)
        # The strict flavour of a schema says lengths in its description only, see `plait.strict`.
        told = {bound: int(length) for bound, length in _LENGTH.findall(str(schema.get("description", "")))}
        made = made.ljust(schema.get("minLength", told.get("least", 0)), ".")
        return made[: schema.get("maxLength", told.get("most", len(made)))]

    def _named(self, name: str) -> str:
        if name in ("query", "question", "prompt", "text", "message", "content", "expression"):
            runs = _FORMULA.findall(self._prompt) if name == "expression" else ()
            return next((run.strip() for run in runs if any(map(str.isdigit, run))), self._prompt)
        return next(self._names, name or "text")
