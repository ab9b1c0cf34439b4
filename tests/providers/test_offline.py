from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, MultipleOf
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter, create_model
from typing_extensions import TypedDict

from plait.errors import ConfigurationError, RateLimited
from plait.events import Answer, Delta, FinishDelta, ModelDelta, TextDelta, ToolCallDelta, Usage, UsageDelta, fold
from plait.messages import (
    AssistantMessage,
    AudioPart,
    Message,
    ReasoningPart,
    ServerToolPart,
    TextPart,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from plait.providers.base import Request, Settings, ToolDefinition
from plait.providers.offline import OfflineProvider
from plait.schema import output_schema

HELLO = Request(messages=[UserMessage(text="Hello there")])
WEATHER = ToolDefinition(
    name="get_weather",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
    },
)
CLOCK = ToolDefinition(name="clock")


async def deltas(provider: OfflineProvider, request: Request) -> list[list[Delta]]:
    return [batch async for batch in provider.stream(request)]


async def answer(provider: OfflineProvider, request: Request) -> Answer:
    (made,) = fold(await deltas(provider, request))
    return made


def asking(*said: str | Message, **more: Any) -> Request:
    messages = [
        text if isinstance(text, Message) else UserMessage(text=text) if n % 2 == 0 else AssistantMessage(text=text)
        for n, text in enumerate(said)
    ]
    return Request(messages=messages, **more)


# --- scripted ---


async def test_a_script_is_given_in_turn() -> None:
    call = ToolCall(id="a", name="f", arguments='{"x":1}')
    whole = AssistantMessage(
        parts=[ReasoningPart(text="let me see"), TextPart(text="I look"), call], details={"signature": "s"}
    )
    provider = OfflineProvider(["first", call, [call, call.model_copy(update={"id": "b"})], whole], model="small")
    made = [await answer(provider, HELLO) for _ in range(4)]
    named: dict[str, Any] = {"provider": "offline", "model": "small"}
    assert [one.message for one in made] == [
        AssistantMessage(text="first", **named),
        AssistantMessage(parts=[call], **named),
        AssistantMessage(parts=[call, call.model_copy(update={"id": "b"})], **named),
        whole.model_copy(update=named),
    ]
    assert [one.finish_reason for one in made] == ["stop", "tool_calls", "tool_calls", "tool_calls"]
    assert provider.requests == [HELLO] * 4
    with pytest.raises(ConfigurationError, match="the script of the offline provider is used up: this is request 5"):
        await answer(provider, HELLO)


async def test_a_script_may_fail_and_go_on() -> None:
    provider = OfflineProvider([RateLimited("slow down", retry_after=1.0), "second"])
    with pytest.raises(RateLimited, match="slow down"):
        await answer(provider, HELLO)
    assert (await answer(provider, HELLO)).message.text == "second"


async def test_a_script_may_be_any_iterable() -> None:
    provider = OfflineProvider(f"answer {number}" for number in range(2))
    assert [(await answer(provider, HELLO)).message.text for _ in range(2)] == ["answer 0", "answer 1"]


async def test_a_refusal_is_streamed_as_one() -> None:
    whole = AssistantMessage(parts=[TextPart(text="I will not", refusal=True)])
    made = await answer(OfflineProvider([whole]), HELLO)
    assert (made.message.refusal, made.message.text) == ("I will not", "")


async def test_an_answer_says_why_the_model_stopped_and_what_it_used() -> None:
    used = Usage(input_tokens=7, output_tokens=9, cost=0.5)
    made = await answer(OfflineProvider([Answer(AssistantMessage(text="half an"), "length", used)]), HELLO)
    assert (made.message.text, made.finish_reason, made.usage) == ("half an", "length", used)


async def test_parts_with_a_providers_own_fields_come_as_they_are() -> None:
    parts = (
        ReasoningPart(text="let me see", details={"signature": "s"}),
        TextPart(text="I look."),
        ServerToolPart(name="web_search", details={"id": "srv_1"}),
        ReasoningPart(text="more"),
        TextPart(text="It is so.", details={"citations": [{"url": "u"}]}),
        ToolCall(id="c", name="f", arguments="{}", details={"own": 1}),
    )
    assert (await answer(OfflineProvider([AssistantMessage(parts=parts)]), HELLO)).message.parts == parts


# --- by a function ---


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_function_sees_the_request(kind: str) -> None:
    def plain(request: Request) -> str:
        return request.messages[-1].text.upper()

    async def slow(request: Request) -> str:
        await asyncio.sleep(0)
        return plain(request)

    provider = OfflineProvider(function=plain if kind == "sync" else slow)
    assert (await answer(provider, HELLO)).message.text == "HELLO THERE"


@pytest.mark.parametrize("wrong", [None, 3, [], [3], {"text": "x"}, b"x"])
async def test_an_answer_of_the_wrong_type_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="an offline answer is text, a ToolCall, a list of ToolCalls, an "):
        await answer(OfflineProvider(function=lambda _request: wrong), HELLO)


async def test_what_cannot_be_streamed_is_refused() -> None:
    whole = AssistantMessage(parts=[AudioPart(data=b"x")])
    with pytest.raises(ConfigurationError, match="an offline answer cannot hold a AudioPart"):
        await answer(OfflineProvider([whole]), HELLO)


@pytest.mark.parametrize("script", ["hello", b"hello", {"a": "b"}, ToolCall(id="a", name="f"), ValueError("x"), 5])
def test_a_script_is_a_list(script: Any) -> None:
    with pytest.raises(ConfigurationError) as raised:
        OfflineProvider(script)
    kind = type(script).__name__
    assert str(raised.value) == f"the script of OfflineProvider is a list of answers, not {kind}; put it in [...]"


@pytest.mark.parametrize("function", [lambda request: "yes", len, OfflineProvider])
def test_a_function_is_no_script(function: Any) -> None:
    with pytest.raises(ConfigurationError) as raised:
        OfflineProvider(function)
    assert str(raised.value) == (
        "the script of OfflineProvider is a list of answers; a function that answers is given as function=..."
    )


def test_a_script_or_a_function() -> None:
    with pytest.raises(ConfigurationError, match="OfflineProvider takes a script or a function, not both"):
        OfflineProvider(["a"], function=lambda _request: "b")


# --- streaming ---


async def test_text_comes_word_by_word() -> None:
    assert await deltas(OfflineProvider(["one two  three\n"]), HELLO) == [
        [ModelDelta("offline", "offline-1", "offline")],
        [TextDelta("one")],
        [TextDelta(" two")],
        [TextDelta("  three\n")],
        [FinishDelta("stop"), UsageDelta(Usage(input_tokens=2, output_tokens=3))],
    ]


async def test_calls_come_in_pieces() -> None:
    made = await deltas(OfflineProvider([ToolCall(id="a", name="f", arguments='{"x":1}')]), HELLO)
    assert made[1:-1] == [
        [ToolCallDelta(0, "a", "f")],
        [ToolCallDelta(0, arguments='{"x')],
        [ToolCallDelta(0, arguments='":1}')],
    ]


async def test_a_request_that_is_not_streamed_is_one_list() -> None:
    whole = Request(messages=HELLO.messages, stream=False)
    (batch,) = await deltas(OfflineProvider(["one two"]), whole)
    assert batch == [delta for part in await deltas(OfflineProvider(["one two"]), HELLO) for delta in part]


@given(st.text(st.characters(codec=None), max_size=30))
def test_streamed_text_is_the_whole_text(text: str) -> None:
    whole = AssistantMessage(parts=[ReasoningPart(text=text), TextPart(text=text)])
    made = asyncio.run(answer(OfflineProvider([whole]), HELLO))
    assert (made.message.text, made.message.reasoning) == (text, text)


async def test_a_text_of_blanks_costs_no_more_than_another() -> None:
    blanks = " " * 200_000
    async with asyncio.timeout(10):
        made = await answer(OfflineProvider([blanks, blanks + "x" + blanks]), HELLO)
    assert made.message.text == blanks


# --- by itself ---


async def said(*texts: str | Message, **more: Any) -> str:
    return (await answer(OfflineProvider(), asking(*texts, **more))).message.text


async def test_it_repeats_and_remembers() -> None:
    assert await said("Hello there") == "You said: Hello there"
    assert await said("Hello", "You said: Hello", "Again") == "You said: Again\nBefore that you said: Hello"
    thread = ("My favourite colour is dark green.", "I see", "What's my favourite colour?")
    assert await said(*thread) == "Your favourite colour is dark green."
    assert await said("What is my name?") == "You have not told me your name."
    assert (
        await said("My name is Ada", "Hi", "my name is Grace!", "Hi", "What is my name again?") == "Your name is Grace."
    )
    assert await said() == "You said: "


async def test_the_same_request_gives_the_same_answer() -> None:
    request = asking("What is the weather in Oslo for 3 days?", tools=[WEATHER, CLOCK])
    assert await deltas(OfflineProvider(), request) == await deltas(OfflineProvider(), request)
    provider = OfflineProvider()
    assert await deltas(provider, request) == await deltas(provider, request)


async def test_it_calls_the_tools_it_is_offered() -> None:
    request = asking("What is the weather in Oslo for 3 days?", tools=[WEATHER, CLOCK])
    made = (await answer(OfflineProvider(), request)).message.tool_calls
    assert [(call.name, call.arguments) for call in made] == [("get_weather", '{"city": "Oslo", "days": 3}')]
    made = (await answer(OfflineProvider(), asking("Anything", tools=[WEATHER, CLOCK]))).message.tool_calls
    assert [call.name for call in made] == ["get_weather", "clock"]
    assert len({call.id for call in made}) == 2


@pytest.mark.parametrize(
    ("choice", "called"),
    [("none", []), ("auto", ["get_weather", "clock"]), ("required", ["get_weather", "clock"]), ("clock", ["clock"])],
)
async def test_it_obeys_tool_choice(choice: str, called: list[str]) -> None:
    request = asking("Anything", tools=[WEATHER, CLOCK], settings=Settings(tool_choice=choice))
    assert [call.name for call in (await answer(OfflineProvider(), request)).message.tool_calls] == called


async def test_it_answers_with_what_the_tools_gave() -> None:
    call, other = ToolCall(id="a", name="get_weather"), ToolCall(id="b", name="clock")
    results = [
        ToolResult(call_id="a", name="get_weather", text="sunny"),
        ToolResult(call_id="b", name="clock", text="broken", is_error=True),
    ]
    thread = ("Weather?", AssistantMessage(parts=[call, other]), ToolMessage(parts=results))
    assert await said(*thread, tools=[WEATHER]) == "get_weather says: sunny\nclock failed: broken"
    filled = await said(*thread, tools=[WEATHER], output=output_schema(Weather))
    assert output_schema(Weather).validate(filled) == Weather(city="city", degrees=1.0)


class Weather(BaseModel):
    city: str
    degrees: float


class Kind(Enum):
    RAIN = "rain"
    SNOW = "snow"


class Node(BaseModel):
    name: str
    children: list[Node]
    parent: Node | None = None


class Address(TypedDict):
    street: str
    zip: Annotated[str, MinLen(5), MaxLen(5)]


@dataclass
class Order:
    items: list[str]
    count: int = 1


class Everything(BaseModel):
    text: str
    word: Annotated[str, MaxLen(2)]
    number: int
    ratio: Annotated[float, Gt(0), Lt(1)]
    even: Annotated[int, Ge(5), Le(9), MultipleOf(4)]
    above: Annotated[int, Gt(10)]
    below: Annotated[int, Lt(-3)]
    between: Annotated[float, Ge(2.5), Le(2.75)]
    yes: bool
    kind: Kind
    literal: Literal["b", "a"]
    one: Literal["only"]
    nothing: None
    optional: int | None
    either: int | str
    pair: tuple[int, str]
    few: Annotated[list[int], MinLen(2), MaxLen(3)]
    none: Annotated[list[int], MaxLen(0)]
    table: dict[str, int]
    address: Address
    order: Order
    node: Node
    day: date
    moment: datetime
    id: UUID
    defaulted: int = 3
    described: str = Field(description="what it is")


@pytest.mark.parametrize(
    "kind",
    [
        Everything,
        Weather,
        Node,
        Address,
        Order,
        Kind,
        int,
        list[str],
        dict[str, int],
        Weather | Order,
        str | None,
        Decimal,
    ],
)
@pytest.mark.parametrize("prompt", ["", "It is -7.5 degrees in New York on 2024-05-06, rain, 12 times", "3 4 5"])
async def test_it_fills_the_schema_it_is_asked_for(kind: Any, prompt: str) -> None:
    schema = output_schema(kind)
    made = schema.validate(await said(prompt, output=schema))
    assert TypeAdapter(kind).validate_python(made, strict=True) == made


async def test_what_it_fills_in_comes_from_the_prompt() -> None:
    schema = output_schema(Weather)
    made = schema.validate(await said("In Bergen it is -7.5 degrees", output=schema))
    assert made == Weather(city="Bergen", degrees=-7.5)
    chosen = output_schema(Literal["red", "green"])
    assert chosen.validate(await said("I like GREEN", output=chosen)) == "green"


def schema_of(kind: Any) -> dict[str, Any]:
    return TypeAdapter(kind).json_schema()


@pytest.mark.parametrize("numbers", ["", "0", "7", "-3", "1000000", "0.25"])
@pytest.mark.parametrize(
    "kind",
    [
        Annotated[int, Ge(3)],
        Annotated[int, Gt(3), Lt(5)],
        Annotated[int, Ge(-9), Le(-9)],
        Annotated[int, MultipleOf(7)],
        Annotated[int, Gt(0), MultipleOf(7)],
        Annotated[int, Lt(14), MultipleOf(7)],
        Annotated[int, Le(22), Ge(15), MultipleOf(7)],
        Annotated[float, Gt(0)],
        Annotated[float, Lt(0)],
        Annotated[float, Gt(0), Lt(1)],
        Annotated[float, Gt(0.5), Le(0.75)],
        Annotated[float, Ge(0), Le(1), MultipleOf(0.5)],
    ],
)
async def test_numbers_keep_their_bounds(kind: Any, numbers: str) -> None:
    tool = ToolDefinition(
        name="f", parameters={"type": "object", "properties": {"x": schema_of(kind)}, "required": ["x"]}
    )
    (call,) = (await answer(OfflineProvider(), asking(f"say {numbers}", tools=[tool]))).message.tool_calls
    arguments = create_model("Arguments", x=kind).model_validate_json(call.arguments)
    assert arguments.model_dump() == json.loads(call.arguments)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"properties": {"a": True, "b": {}}, "required": ["a", "b", "c"]},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/no"}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}},
        {"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}}, {"required": ["a"]}]},
        {"type": "array", "items": True},
        {"type": "object", "properties": {"a": {"enum": []}}, "required": ["a"]},
        {"type": ["string", "null"]},
        {"type": "unheard of"},
    ],
)
async def test_odd_schemas_do_no_harm(schema: dict[str, Any]) -> None:
    tool = ToolDefinition(name="f", parameters=schema)
    (call,) = (await answer(OfflineProvider(), asking("go", tools=[tool]))).message.tool_calls
    assert call.name == "f"


async def test_all_of_is_everything_together() -> None:
    schema = {"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}}, {"required": ["a"]}]}
    tool = ToolDefinition(name="f", parameters=schema)
    (call,) = (await answer(OfflineProvider(), asking("go 5", tools=[tool]))).message.tool_calls
    assert call.arguments == '{"a": 5}'


async def test_a_formula_is_taken_from_the_prompt() -> None:
    tool = ToolDefinition(
        name="calculate",
        parameters={"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
    )
    (call,) = (await answer(OfflineProvider(), asking("What is (2 + 3) * 4?", tools=[tool]))).message.tool_calls
    assert call.arguments == '{"expression": "(2 + 3) * 4"}'
    async with asyncio.timeout(10):
        await answer(OfflineProvider(), asking("(" * 100_000, tools=[tool]))


def test_repr() -> None:
    assert repr(OfflineProvider(["secret"], model="small")) == "OfflineProvider(model='small')"
