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
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from plait.errors import ConfigurationError
from plait.events import (
    Delta,
    FinishDelta,
    ModelDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from plait.messages import AssistantMessage, ReasoningPart, TextPart, ToolCall

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from plait.messages import Message
    from plait.providers.base import Request

Answering = str | ToolCall | AssistantMessage | Exception | Sequence[ToolCall]
"""What a script holds or a function gives: text, tool calls, a whole message, or an error to raise."""

AnswerFunction = Callable[["Request"], Answering | Awaitable[Answering]]

_DEEPEST: Final = 8
_PIECE: Final = re.compile(r"\s*\S+\s*$|\s*\S+")
_FACT: Final = re.compile(r"\bmy ([a-z][a-z' ]{0,40}?) (?:is|are|was) ([^.,;!?\n]{1,80})", re.IGNORECASE)
_ASKED: Final = re.compile(r"\bwhat(?:'s| is| are| was) my ([a-z][a-z' ]{0,40}?)\s*(?:\?|$|,|\.| again)", re.IGNORECASE)
_NUMBER: Final = re.compile(r"-?\d+(?:\.\d+)?")
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
        message = _message(answer)
        head: list[Delta] = [ModelDelta(self.model, f"offline-{len(request.messages)}", self.name)]
        tail: list[Delta] = [
            FinishDelta("tool_calls" if message.tool_calls else "stop"),
            UsageDelta(Usage(input_tokens=sum(map(_size, request.messages)), output_tokens=_size(message))),
        ]
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
            answer = self._function(request)
            return await answer if inspect.isawaitable(answer) else answer
        return _by_itself(request)


def _message(answer: Answering) -> AssistantMessage:
    if isinstance(answer, AssistantMessage):
        return answer
    if isinstance(answer, str):
        return AssistantMessage(text=answer)
    calls = (answer,) if isinstance(answer, ToolCall) else answer
    if isinstance(calls, Sequence) and calls and all(isinstance(call, ToolCall) for call in calls):
        return AssistantMessage(parts=tuple(calls))
    msg = (
        "an offline answer is text, a ToolCall, a list of ToolCalls, an AssistantMessage or an exception, "
        f"not {type(answer).__name__}"
    )
    raise ConfigurationError(msg)


def _pieces(message: AssistantMessage) -> Iterator[list[Delta]]:
    """The message as it streams: text word by word, a call as its name and then its arguments."""
    index = 0
    for part in message.parts:
        match part:
            case TextPart():
                made = RefusalDelta if part.refusal else TextDelta
                yield from ([made(piece)] for piece in _PIECE.findall(part.text) or [part.text])
            case ReasoningPart():
                yield from ([ReasoningDelta(piece)] for piece in _PIECE.findall(part.text))
            case ToolCall():
                yield [ToolCallDelta(index, part.id, part.name)]
                half = len(part.arguments) // 2
                for text in (part.arguments[:half], part.arguments[half:]):
                    yield [ToolCallDelta(index, arguments=text)]
                index += 1


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
    named = [tool for tool in tools if words & (set(re.findall(r"[a-z]+", tool.name.lower())) - {"get", "the", "a", "of"})]
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

    def value(self, schema: dict[str, Any], name: str, depth: int = 0) -> Any:
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._chosen(schema["enum"])
        for key in ("anyOf", "oneOf"):
            if key in schema:
                options = [self._resolved(option) for option in schema[key]]
                if any(option.get("type") == "null" for option in options) or depth > _DEEPEST:
                    return None  # what may be left out is left out
                return self.value(options[0], name, depth)
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = "null" if "null" in kind else kind[0]
        return self._of_kind(kind, schema, name, depth)

    def _of_kind(self, kind: str, schema: dict[str, Any], name: str, depth: int) -> Any:
        match kind:
            case "object":
                needed = schema.get("required", [])
                fields = schema.get("properties", {})
                return {key: self.value(fields.get(key, {}), key, depth + 1) for key in fields if key in needed}
            case "array":
                count = max(schema.get("minItems", 0), 1 if depth < 4 else 0)
                return [self.value(schema.get("items", {}), name, depth + 1) for _ in range(count)]
            case "integer" | "number":
                return self._number(schema, whole=kind == "integer")
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return self._text(schema, name)

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        seen = 0
        while "$ref" in schema and seen < 20:
            target: Any = self._root
            for step in schema["$ref"].removeprefix("#/").split("/"):
                target = target.get(step, {}) if isinstance(target, dict) else {}
            schema, seen = target, seen + 1
        return schema

    def _chosen(self, options: list[Any]) -> Any:
        lower = self._prompt.lower()
        return next((option for option in options if isinstance(option, str) and option.lower() in lower), options[0])

    def _number(self, schema: dict[str, Any], *, whole: bool) -> float:
        low = schema.get("minimum", schema.get("exclusiveMinimum", 0) + (1 if "exclusiveMinimum" in schema else 0))
        high = schema.get("maximum", schema.get("exclusiveMaximum", low + 1e9) - (1 if "exclusiveMaximum" in schema else 0))
        number = min(max(next(self._numbers, max(low, 1)), low), high)
        step = schema.get("multipleOf")
        number = number - number % step if step else number
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
        made = made.ljust(schema.get("minLength", 0), ".")
        return made[: schema.get("maxLength", len(made))]

    def _named(self, name: str) -> str:
        if name in ("query", "question", "prompt", "text", "message", "content", "expression"):
            formula = re.search(r"[-+*/(). \d]*\d[-+*/(). \d]*", self._prompt) if name == "expression" else None
            return formula[0].strip() if formula else self._prompt
        return next(self._names, name or "text")
