"""`Agent.stream_output`: the values an answer grows into, with tools, repairs, retries and stops."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from growing import VALUES, may_become
from plait import (
    Agent,
    AssistantMessage,
    Cancelled,
    ConfigurationError,
    Delta,
    FinishDelta,
    OfflineProvider,
    OutputInvalid,
    Refused,
    Request,
    RunLimits,
    Settings,
    StopSignal,
    TextDelta,
    TextPart,
    ToolCall,
)
from plait.events import AttemptDelta, PartDelta
from plait.providers.base import OUTPUT_MODES, OutputMode
from plait.providers.catalog import get_provider
from plait.testing import FaultServer, answer, tool_calls
from plait.testing.reply import DialectName

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

PATIENCE = 10.0


class Recipe(BaseModel):
    title: str
    steps: list[str]


TEA = Recipe(title="Tea", steps=["Boil water", "Wait"])
TEXT = TEA.model_dump_json()


class Says:
    """A provider that gives these batches, and then its end mark; then the next."""

    name = "says"
    model = "m"

    def __init__(self, *answers: Sequence[Sequence[Delta]]) -> None:
        self.answers = list(answers)
        self.requests: list[Request] = []
        self.open = 0

    async def stream(self, request: Request) -> AsyncGenerator[list[Delta], None]:
        self.requests.append(request)
        self.open += 1
        try:
            for batch in self.answers.pop(0):
                await asyncio.sleep(0)
                yield [*batch]
            yield [FinishDelta("stop")]
        finally:
            self.open -= 1


def letters(text: str, size: int = 1) -> list[list[Delta]]:
    return [[TextDelta(text[at : at + size])] for at in range(0, len(text), size)]


async def pieces(agent: Agent[Any, Any], **options: Any) -> list[Any]:
    async with asyncio.timeout(PATIENCE):
        return [value async for value in agent.stream_output("How do I make tea?", **options)]


def recipe(title: str | None = None, *steps: str, begun: bool = True) -> Recipe:
    return Recipe.model_construct(title=title, steps=list(steps) if begun else None)


async def test_an_answer_grows_into_its_output() -> None:
    made = await pieces(Agent(provider=Says(letters(TEXT, 5)), output=Recipe))
    assert made == [
        recipe(begun=False),
        recipe("", begun=False),
        recipe("Tea", begun=False),
        recipe("Tea", ""),
        recipe("Tea", "Boil "),
        recipe("Tea", "Boil water"),
        recipe("Tea", "Boil water", "Wa"),
        TEA,
    ]


async def test_awaiting_gives_the_whole() -> None:
    agent = Agent(provider=Says(letters(TEXT)), output=Recipe)
    stream = agent.stream_output("How do I make tea?")
    assert await stream == TEA
    assert [value async for value in stream][-1] == TEA
    assert agent.history[-1].text == TEXT


async def test_batches_are_lists_of_values() -> None:
    stream = Agent(provider=Says(letters(TEXT)), output=Recipe).stream_output("How do I make tea?")
    assert [value async for batch in stream.batches() for value in batch][-1] == TEA


async def test_an_answer_that_comes_at_once_is_one_piece() -> None:
    assert await pieces(Agent(provider=Says([[TextDelta(TEXT)]]), output=Recipe)) == [TEA]
    assert await pieces(Agent(provider=Says([[TextDelta('{"result": 7}')]]), output=int)) == [7]


async def test_nothing_may_be_the_answer() -> None:
    kind = cast("type[Recipe]", Recipe | None)
    assert await pieces(Agent(provider=Says(letters('{"result": null}')), output=kind)) == [None]


@pytest.mark.parametrize("output", [None, str])
async def test_without_an_output_type_there_is_text_only(output: Any) -> None:
    agent = Agent(name="Cook", provider="offline", output=output)
    with pytest.raises(ConfigurationError) as caught:
        _ = agent.stream_output("How do I make tea?")
    assert str(caught.value) == (
        "agent 'Cook' has no output type, so what it gives is text: use stream, or Agent(output=...)"
    )


async def test_a_thread_goes_on() -> None:
    provider = Says(letters(TEXT), letters(TEXT))
    agent = Agent(provider=provider, output=Recipe, store="sqlite:///:memory:")
    await pieces(agent, thread="tea")
    await pieces(agent, thread="tea")
    assert [len(request.messages) for request in provider.requests] == [1, 3]


async def test_options_are_checked_at_once() -> None:
    agent = Agent(provider="offline", output=Recipe)
    with pytest.raises(ConfigurationError, match="a run has no option 'speed'"):
        _ = agent.stream_output("Hello", **cast("Any", {"speed": 1}))
    with pytest.raises(ConfigurationError, match="the prompt is empty"):
        _ = agent.stream_output([])


# --- answers that begin anew -----------------------------------------------------------------------------------------


@pytest.mark.fault("L53")
async def test_a_repair_begins_anew() -> None:
    agent = Agent(provider=Says(letters('{"title": "Coffee"}', 6), letters(TEXT, 12)), output=Recipe)
    assert [(one.title, one.steps) for one in await pieces(agent)] == [
        (None, None),
        ("C", None),
        ("Coffee", None),
        ("Te", None),
        ("Tea", []),
        ("Tea", ["Boil water"]),
        ("Tea", ["Boil water", "Wait"]),
    ]


@pytest.mark.fault("L53")
async def test_what_never_fits_raises_after_its_pieces() -> None:
    stream = Agent(provider=Says(*[letters('{"title": "T"}', 14)] * 3), output=Recipe).stream_output("Tea?")
    values = aiter(stream)
    assert await anext(values) == recipe("T", begun=False)
    with pytest.raises(OutputInvalid, match="'steps' is missing") as caught:
        await anext(values)
    assert (caught.value.text, caught.value.provider) == ('{"title": "T"}', "says")
    with pytest.raises(OutputInvalid):
        await stream


async def test_a_superseded_attempt_begins_anew() -> None:
    said: list[list[Delta]] = [*letters('{"title": "Coffee', 17), [AttemptDelta(2)], *letters(TEXT, 20)]
    assert await pieces(Agent(provider=Says(said), output=Recipe)) == [
        recipe("Coffee", begun=False),
        recipe("Tea", begun=False),
        recipe("Tea", "Boil water", "Wa"),
        TEA,
    ]


async def test_a_whole_part_repeats_its_pieces() -> None:
    part = PartDelta(TextPart(text=TEXT))
    ways: list[list[list[Delta]]] = [[*letters(TEXT, 10), [part]], [[part]], [[TextDelta(TEXT), part]]]
    for said in ways:
        assert (await pieces(Agent(provider=Says(said), output=Recipe)))[-1] == TEA


async def test_other_choices_are_not_mixed_in() -> None:
    said: list[list[Delta]] = [[TextDelta('{"title": "Coffee"', 1), TextDelta(TEXT, 0), FinishDelta("stop", 1)]]
    assert await pieces(Agent(provider=Says(said), output=Recipe, settings=Settings(n=2))) == [TEA]


async def test_a_refusal_raises() -> None:
    refusal = AssistantMessage(parts=(TextPart(text="I will not.", refusal=True),))
    with pytest.raises(Refused, match=r"I will not\."):
        await pieces(Agent(provider=OfflineProvider([refusal]), output=Recipe))


# --- tools, limits, stops --------------------------------------------------------------------------------------------


def look(what: str) -> str:
    """Look something up."""
    return f"{what}: it boils at 100 degrees"


async def test_what_is_said_before_a_call_is_no_value() -> None:
    call = AssistantMessage(
        parts=(TextPart(text="Let me look."), ToolCall(id="c1", name="look", arguments='{"what": "water"}'))
    )
    agent = Agent(provider=OfflineProvider([call, TEXT]), tools=[look], output=Recipe)
    made = await pieces(agent)
    assert made[-1] == TEA
    assert all(may_become(one, TEA) for one in made)
    assert [message.role for message in agent.history] == ["user", "assistant", "tool", "assistant"]


async def test_a_run_that_reaches_a_limit_has_no_output() -> None:
    call = ToolCall(id="c1", name="look", arguments='{"what": "water"}')
    agent = Agent(provider=OfflineProvider([call]), tools=[look], output=Recipe)
    stream = agent.stream_output("How do I make tea?", limits=RunLimits(max_turns=1))
    assert [value async for value in stream] == []
    assert await stream is None


async def test_a_stop_ends_it_without_an_output() -> None:
    stop = StopSignal()
    agent = Agent(provider=OfflineProvider([TEXT], delay=0.001), output=Recipe)
    stream = agent.stream_output("How do I make tea?", stop=stop)
    async with asyncio.timeout(PATIENCE):
        async for value in stream:
            if value.title:
                stop.set()
        assert await stream is None


async def test_leaving_early_ends_the_run() -> None:
    provider = Says(letters(TEXT), letters(TEXT))
    agent = Agent(provider=provider, output=Recipe)
    stream = agent.stream_output("How do I make tea?")
    async with asyncio.timeout(PATIENCE):
        async for value in stream:
            if value.title == "T":
                break
        with pytest.raises(Cancelled):
            await stream
        assert await agent.chat("And now?") == TEA
    assert provider.open == 0
    assert agent.history[1].text == '{"title":"T'


# --- every mode and dialect ------------------------------------------------------------------------------------------

NAMES: dict[DialectName, str] = {
    "chat": "openai",
    "anthropic": "anthropic",
    "ollama": "ollama",
    "responses": "openai-responses",
}
CASES = [
    (dialect, mode)
    for dialect in get_args(DialectName)
    for mode in OUTPUT_MODES
    if (dialect, mode) != ("ollama", "tool")
]


@pytest.mark.parametrize(("dialect", "mode"), CASES)
async def test_structured_output_tools_and_streaming_together(dialect: DialectName, mode: OutputMode) -> None:
    last = tool_calls("Recipe", TEXT, text="Here it is:") if mode == "tool" else answer(TEXT, piece=4)
    if mode == "prompt":
        last = answer(f"```json\n{TEXT}\n```", piece=4)
    with FaultServer(tool_calls("look", {"what": "water"}, text="Let me see."), last) as server:
        provider = get_provider(NAMES[dialect], model="fault-1", base_url=server.url_for(dialect), api_key="k")
        agent: Agent[Any, Recipe] = Agent(
            provider=provider, tools=[look], output=Recipe, settings=Settings(output_mode=mode)
        )
        made = await pieces(agent)
    assert made[-1] == TEA
    assert all(may_become(one, other) for one, other in pairwise(made))


# --- any value, cut anywhere -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "values"), [pytest.param(*item, id=str(item[0])) for item in VALUES.items() if item[0] is not str]
)
@settings(max_examples=30)
@given(data=st.data())
def test_the_last_piece_is_the_whole(output: Any, values: st.SearchStrategy[Any], data: st.DataObject) -> None:
    whole = data.draw(values)
    plain = TypeAdapter(output).dump_python(whole, mode="json", by_alias=True)
    text = json.dumps(plain, ensure_ascii=data.draw(st.booleans()))
    text = f"```json\n{text}\n```" if data.draw(st.booleans()) else text
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=20)) | {0, len(text)})
    said: list[list[Delta]] = [[TextDelta(text[a:b])] for a, b in pairwise(cuts)]
    made = asyncio.run(pieces(Agent(provider=Says(said), output=output)))
    assert made[-1] == whole
    assert all(may_become(one, other) for one, other in pairwise(made))
    assert all(one != other for one, other in pairwise(made))
