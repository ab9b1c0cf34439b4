"""Asking for answers of a type: which mode for which model, the requests, and the conversations in every dialect."""

from __future__ import annotations

import asyncio
import json
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args

import pytest
from pydantic import BaseModel

from plait import (
    Agent,
    ConfigurationError,
    OutputInvalid,
    Refused,
    Request,
    Settings,
    SystemMessage,
    TextPart,
    ToolDefinition,
    UserMessage,
)
from plait.messages import ImagePart
from plait.plain import EMPTY
from plait.providers.base import OUTPUT_MODES, OutputMode
from plait.providers.catalog import get_provider, register_provider
from plait.providers.structured import Asking
from plait.providers.vendors import VENDORS, Vendor
from plait.schema import output_schema
from plait.testing import FaultServer, Reply, Said, answer, tool_calls
from plait.testing.reply import DialectName
from plait.testing.said import Call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait import Message, ToolCall
    from plait.providers.remote import HttpProvider
    from providers.conftest import Serve


class Recipe(BaseModel):
    """How to cook a dish."""

    title: str
    steps: list[str]


class Tree(BaseModel):
    """A recursive type."""

    name: str
    branches: list[Tree] = []


RECIPE = output_schema(Recipe)
TEA = Recipe(title="Tea", steps=["Boil water", "Wait"])
TEXT = TEA.model_dump_json()
LOOK = ToolDefinition(name="look", description="Look something up.")
GO = UserMessage(text="How do I make tea?")

CLASSES = {
    "chat": ("plait.providers.chat", "ChatProvider"),
    "responses": ("plait.providers.responses", "ResponsesProvider"),
    "anthropic": ("plait.providers.anthropic", "AnthropicProvider"),
    "ollama": ("plait.providers.ollama", "OllamaProvider"),
}


def provider(dialect: DialectName, base_url: str = "http://127.0.0.1:1", model: str = "fault-1") -> HttpProvider:
    module, name = CLASSES[dialect]
    made: HttpProvider = getattr(import_module(module), name)(model, base_url=base_url, api_key="k")
    return made


def asking(vendor: str, model: str) -> Asking:
    return Asking(vendor, model, VENDORS[vendor].output_modes)


def request(*messages: Message, tools: Sequence[ToolDefinition] = (), **settings: Any) -> Request:
    return Request(messages=[*messages], tools=tools, output=RECIPE, settings=Settings(**settings))


def mode_of(vendor: str, model: str, *, tools: Sequence[ToolDefinition] = (), **settings: Any) -> OutputMode:
    given = request(GO, tools=tools, **settings)
    made, tool = asking(vendor, model).form(given, RECIPE, lambda _: True)
    if made is given:
        return "native"
    assert made.output is None
    return "prompt" if tool is None else "tool"


# --- which mode ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vendor", "model", "mode"),
    [
        ("openai", "gpt-4o", "native"),
        ("openai", "gpt-4o-2024-08-06", "native"),
        ("openai", "gpt-4o-2024-05-13", "tool"),
        ("openai", "gpt-4o-mini", "native"),
        ("openai", "gpt-4o-mini-audio-preview", "tool"),
        ("openai", "gpt-4.1-nano", "native"),
        ("openai", "gpt-4.5-preview", "native"),
        ("openai", "gpt-4", "tool"),
        ("openai", "gpt-4-turbo-2024-04-09", "tool"),
        ("openai", "gpt-4-0613", "tool"),
        ("openai", "gpt-3.5-turbo", "tool"),
        ("openai", "ft:gpt-3.5-turbo-0125:mine::7", "tool"),
        ("openai", "ft:gpt-4o-mini-2024-07-18:mine::7", "native"),
        ("openai", "o1", "native"),
        ("openai", "o1-mini", "prompt"),
        ("openai", "o1-preview-2024-09-12", "prompt"),
        ("openai", "o3-mini", "native"),
        ("openai", "gpt-5.4-nano", "native"),
        ("openai-responses", "gpt-5", "native"),
        ("anthropic", "claude-sonnet-4-5", "native"),
        ("anthropic", "claude-opus-4-1-20250805", "native"),
        ("anthropic", "claude-haiku-4-5-20251001", "native"),
        ("anthropic", "claude-opus-5-5", "native"),
        ("anthropic", "claude-sonnet-4-20250514", "tool"),
        ("anthropic", "claude-opus-4-0", "tool"),
        ("anthropic", "claude-3-7-sonnet-latest", "tool"),
        ("anthropic", "claude-2.1", "prompt"),
        ("openrouter", "anthropic/claude-sonnet-4.5", "native"),
        ("openrouter", "anthropic/claude-sonnet-4", "tool"),
        ("openrouter", "anthropic/claude-3.5-haiku", "tool"),
        ("openrouter", "anthropic/claude-3.7-sonnet:thinking", "prompt"),
        ("openrouter", "openai/gpt-3.5-turbo", "tool"),
        ("openrouter", "openai/gpt-4o:extended", "native"),
        ("openrouter", "google/gemini-2.5-pro", "native"),
        ("ollama", "llama3.1", "native"),
        ("ollama-chat", "llama3.1:8b", "native"),
    ],
)
def test_the_mode_is_chosen_by_provider_and_model(vendor: str, model: str, mode: OutputMode) -> None:
    assert mode_of(vendor, model) == mode


@pytest.mark.parametrize(
    ("vendor", "model", "extra", "mode"),
    [
        ("anthropic", "claude-sonnet-4-0", {"thinking": {"type": "enabled", "budget_tokens": 1024}}, "prompt"),
        ("anthropic", "claude-sonnet-4-0", {"thinking": {"type": "disabled"}}, "tool"),
        ("anthropic", "claude-sonnet-4-5", {"thinking": {"type": "enabled", "budget_tokens": 1024}}, "native"),
        ("openrouter", "anthropic/claude-sonnet-4", {"reasoning": {"effort": "high"}}, "prompt"),
        ("openrouter", "anthropic/claude-sonnet-4", {"reasoning": {"enabled": False}}, "tool"),
        ("openrouter", "openai/gpt-4", {"reasoning": {"effort": "high"}}, "tool"),
    ],
)
def test_a_model_that_thinks_is_not_made_to_call_a_tool(
    vendor: str, model: str, extra: dict[str, Any], mode: OutputMode
) -> None:
    assert mode_of(vendor, model, extra=extra) == mode


@pytest.mark.parametrize(
    ("vendor", "model", "mode"),
    [
        ("openai", "gpt-4o", "native"),
        ("openai", "o3", "native"),
        ("anthropic", "claude-sonnet-4-5", "native"),
        ("openrouter", "anthropic/claude-sonnet-4.5", "native"),
        ("openrouter", "openai/gpt-oss-120b", "tool"),
        ("openrouter", "qwen/qwen3-32b", "tool"),
        ("ollama", "llama3.1", "prompt"),
        ("ollama-chat", "gpt-oss:20b", "prompt"),
    ],
)
def test_an_enforced_schema_must_not_keep_a_model_from_calling_tools(vendor: str, model: str, mode: OutputMode) -> None:
    assert mode_of(vendor, model, tools=[LOOK]) == mode
    assert mode_of(vendor, model, tools=[LOOK], tool_choice="none") == mode_of(vendor, model)
    assert mode_of(vendor, model, tools=[LOOK], output_mode="native") == "native"


def test_where_there_is_nothing_else_it_may() -> None:
    given = request(GO, tools=[LOOK])
    assert Asking("mine", "m1", ("native",)).form(given, RECIPE, lambda _: True) == (given, None)


@pytest.mark.parametrize("mode", OUTPUT_MODES)
def test_the_settings_have_the_last_word(mode: OutputMode) -> None:
    assert mode_of("openai", "gpt-4o", output_mode=mode) == mode


@pytest.mark.parametrize(
    ("vendor", "model", "mode", "extra", "sentence"),
    [
        (
            "ollama",
            "llama3.1",
            "tool",
            {},
            "model 'llama3.1' of 'ollama' cannot do output_mode='tool'; it can do 'native' and 'prompt'",
        ),
        (
            "openai",
            "gpt-3.5-turbo",
            "native",
            {},
            "model 'gpt-3.5-turbo' of 'openai' cannot do output_mode='native'; it can do 'tool' and 'prompt'",
        ),
        (
            "anthropic",
            "claude-opus-5-5",
            "tool",
            {},
            "model 'claude-opus-5-5' of 'anthropic' cannot do output_mode='tool'; it can do 'native' and 'prompt'",
        ),
        (
            "anthropic",
            "claude-sonnet-4-0",
            "tool",
            {"thinking": {"type": "adaptive"}},
            (
                "model 'claude-sonnet-4-0' of 'anthropic' cannot do output_mode='tool' while it thinks; "
                "it can do 'prompt'"
            ),
        ),
    ],
)
def test_a_mode_that_cannot_be_is_refused(
    vendor: str, model: str, mode: OutputMode, extra: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        mode_of(vendor, model, output_mode=mode, extra=extra)
    assert str(caught.value) == sentence


def test_a_vendor_with_a_single_mode_may_have_none_for_a_model() -> None:
    with pytest.raises(ConfigurationError, match=r"^model 'gpt-4' of 'mine' cannot do an output type$"):
        Asking("mine", "gpt-4", ("native",)).form(request(GO), RECIPE, lambda _: True)


def test_a_mode_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings(output_mode=cast("Any", "json"))
    assert str(caught.value) == "Settings(output_mode=...) takes 'native', 'tool' or 'prompt', not 'json'"


async def test_a_refusal_sends_nothing() -> None:
    with FaultServer() as server:
        agent = Agent(
            provider=provider("ollama", server.url_for("ollama")), output=Recipe, settings=Settings(output_mode="tool")
        )
        with pytest.raises(ConfigurationError, match="cannot do output_mode='tool'"):
            await agent.chat("How do I make tea?")
        assert server.requests == []


@pytest.mark.usefixtures("registry")
async def test_a_registered_vendor_says_what_it_can_do() -> None:
    register_provider("jsonless", Vendor(base_url="http://127.0.0.1:1", key_needed=False, output_modes=("prompt",)))
    with FaultServer(answer(TEXT)) as server:
        asked = get_provider("jsonless:m1", base_url=server.url)
        assert await Agent(provider=asked, output=Recipe).chat("How do I make tea?") == TEA
        assert "response_format" not in server.requests[0]
        assert server.requests[0]["messages"][0]["role"] == "system"


@pytest.mark.parametrize("model", ["fault-1", "claude-sonnet-4-5"])
async def test_a_schema_that_anthropic_cannot_enforce_is_asked_for_by_a_tool(model: str) -> None:
    with FaultServer(tool_calls("Tree", {"name": "oak"})) as server:
        agent = Agent(provider=provider("anthropic", server.url_for("anthropic"), model), output=Tree)
        assert await agent.chat("Which tree?") == Tree(name="oak")
        assert server.requests[0]["tool_choice"] == {"type": "tool", "name": "Tree"}


# --- what is sent ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", get_args(DialectName))
def test_without_an_output_type_or_natively_the_request_is_sent_as_it_is(dialect: DialectName) -> None:
    given = request(GO)
    made, tool = asking("openai", "gpt-4o").form(given, RECIPE, lambda _: True)
    assert made is given
    assert tool is None
    assert provider(dialect).enforces(RECIPE)


def test_the_prompt_comes_after_the_system_text() -> None:
    system = SystemMessage(text="Be brief.", metadata={"a": 1})
    made, tool = asking("openai", "gpt-4o").form(request(system, GO, output_mode="prompt"), RECIPE, lambda _: True)
    first, *rest = made.messages
    assert (rest, tool, made.output) == ([GO], None, None)
    assert first == SystemMessage(text=first.text, metadata={"a": 1})
    before, _, schema = first.text.rpartition("\n\n")
    assert before.startswith("Be brief.\n\nYour final answer is one JSON object that fits the JSON Schema below.")
    assert json.loads(schema) == RECIPE.schema


def test_without_system_text_the_prompt_is_one() -> None:
    made, _ = asking("openai", "gpt-4o").form(request(GO, output_mode="prompt"), RECIPE, lambda _: True)
    assert [message.role for message in made.messages] == ["system", "user"]
    assert made.messages[0].text.startswith("Your final answer is")
    empty, _ = asking("openai", "gpt-4o").form(
        request(SystemMessage(), GO, output_mode="prompt"), RECIPE, lambda _: True
    )
    assert empty.messages[0].text == made.messages[0].text


def test_the_prompt_does_not_change_another_part() -> None:
    image = ImagePart(data=b"x", media_type="image/png")
    made, _ = asking("openai", "gpt-4o").form(
        request(SystemMessage(parts=(image,)), GO, output_mode="prompt"), RECIPE, lambda _: True
    )
    assert made.messages[0].parts[0] is image
    assert isinstance(made.messages[0].parts[1], TextPart)


@pytest.mark.parametrize("mode", ["tool", "prompt"])
@pytest.mark.parametrize("dialect", ["chat", "anthropic", "responses"])
def test_requests_of_one_thread_begin_with_the_same_bytes(dialect: DialectName, mode: OutputMode) -> None:
    asked, system, settings = provider(dialect), SystemMessage(text="Be brief."), Settings(output_mode=mode)
    made = []
    for number in range(3):
        messages = [system, GO, *(UserMessage(text=f"and {at}?") for at in range(number))]
        given = Request(messages=messages, tools=[LOOK], output=RECIPE, settings=settings)
        formed, _ = asked._asking.form(given, RECIPE, asked.enforces)  # noqa: SLF001  # as its `stream` does
        made.append((formed.messages[0], formed.tools, formed.settings, asked.encode(formed)))
    for one, other in pairwise(made):
        assert one[0] is other[0]
        assert all(left is right for left, right in zip(one[1], other[1], strict=True))
        assert one[2] is other[2]
        end = one[3].index(b"How do I make tea?")
        assert one[3][:end] == other[3][:end]


def tools_of(*tools: ToolDefinition, **settings: Any) -> tuple[list[str], str | None, str | None]:
    made, tool = asking("openai", "gpt-4o").form(
        request(GO, tools=tools, output_mode="tool", **settings), RECIPE, lambda _: True
    )
    return [one.name for one in made.tools], made.settings.tool_choice, tool


@pytest.mark.parametrize(
    ("given", "sent"),
    [(None, "required"), ("auto", "required"), ("required", "required"), ("none", "Recipe"), ("look", "look")],
)
def test_a_call_is_required_among_tools(given: str | None, sent: str) -> None:
    assert tools_of(LOOK, tool_choice=given) == (["look", "Recipe"], sent, "Recipe")


def test_the_only_tool_is_demanded() -> None:
    assert tools_of() == (["Recipe"], "Recipe", "Recipe")


def test_the_tool_takes_no_name_of_another() -> None:
    others = [ToolDefinition(name=name) for name in ("Recipe", "Recipe_2")]
    assert tools_of(*others) == (["Recipe", "Recipe_2", "Recipe_3"], "required", "Recipe_3")


def test_the_tool_says_what_the_type_says() -> None:
    made, _ = asking("openai", "gpt-4o").form(request(GO, output_mode="tool"), RECIPE, lambda _: True)
    tool = made.tools[-1]
    assert (tool.parameters, tool.strict) == (RECIPE.schema, True)
    assert tool.description.endswith("\n\nHow to cook a dish.")
    assert made.settings.extra is EMPTY


# --- conversations ---------------------------------------------------------------------------------------------------

CASES = [
    (dialect, mode, streamed)
    for dialect in get_args(DialectName)
    for mode in OUTPUT_MODES
    for streamed in (False, True)
    if (dialect, mode) != ("ollama", "tool")
]
IDS = [f"{dialect} {mode}{' streamed' if streamed else ''}" for dialect, mode, streamed in CASES]
every_case = pytest.mark.parametrize(("dialect", "mode", "streamed"), CASES, ids=IDS)


def said(mode: OutputMode, text: str, **more: Any) -> Reply:
    """What a model says in a mode, in pieces of three characters where the text is streamed."""
    if mode == "tool":
        return Reply(said=Said(calls=(Call(name="Recipe", arguments=text),), **more))
    return answer(f"```json\n{text}\n```" if mode == "prompt" else text, piece=3, **more)


class Talk(NamedTuple):
    """What came of a run."""

    output: Recipe
    history: tuple[Message, ...]


async def ask(
    server: FaultServer, dialect: DialectName, mode: OutputMode, *, streamed: bool, tools: Sequence[Any] = ()
) -> Talk:
    agent: Agent[Any, Recipe] = Agent(
        provider=provider(dialect, server.url_for(dialect)),
        tools=tools,
        output=Recipe,
        settings=Settings(output_mode=mode),
    )
    if streamed:
        result = await agent.run("How do I make tea?")
        return Talk(result.output, result.history)
    output = await agent.chat("How do I make tea?")
    return Talk(output, tuple(agent.history))


@every_case
async def test_an_answer_is_a_value(dialect: DialectName, mode: OutputMode, streamed: bool) -> None:
    with FaultServer(said(mode, TEXT)) as server:
        result = await ask(server, dialect, mode, streamed=streamed)
        assert result.output == TEA
        assert [part.type for part in result.history[-1].parts] == ["text"]
        assert (server.requests[0].get("stream") or False) == streamed
        sent = json.dumps(server.requests[0])
        native = {
            "chat": "response_format",
            "responses": '"format"',
            "anthropic": "output_config",
            "ollama": '"format"',
        }
        assert (native[dialect] in sent, '"tools"' in sent) == (mode == "native", mode == "tool")


@pytest.mark.fault("L53")
@every_case
async def test_an_answer_that_does_not_fit_is_asked_for_again(
    dialect: DialectName, mode: OutputMode, streamed: bool
) -> None:
    with FaultServer(said(mode, '{"title":"Tea"}'), said(mode, TEXT)) as server:
        result = await ask(server, dialect, mode, streamed=streamed)
        assert result.output == TEA
        first, second = server.requests
        assert len(second["messages" if dialect != "responses" else "input"]) == (
            len(first["messages" if dialect != "responses" else "input"]) + 2
        )
        assert "'steps' is missing" in json.dumps(second)
        assert [message.role for message in result.history] == ["user", "assistant", "user", "assistant"]
        assert '{"title":"Tea"}' in result.history[1].text


@pytest.mark.fault("L53")
@every_case
async def test_an_answer_that_never_fits_is_an_error(dialect: DialectName, mode: OutputMode, streamed: bool) -> None:
    texts = [f'{{"title":{number}}}' for number in range(4)]
    with FaultServer(*[said(mode, text) for text in texts]) as server:
        with pytest.raises(
            OutputInvalid, match="'title' should be a valid string, got 2; 'steps' is missing"
        ) as caught:
            await ask(server, dialect, mode, streamed=streamed)
        assert texts[2] in caught.value.text
        assert len(server.requests) == 3


@every_case
async def test_a_cut_answer_is_an_error(dialect: DialectName, mode: OutputMode, streamed: bool) -> None:
    with FaultServer(said(mode, TEXT[:30], finish_reason="length")) as server:
        with pytest.raises(OutputInvalid, match="reached its token limit") as caught:
            await ask(server, dialect, mode, streamed=streamed)
        assert TEXT[:30] in caught.value.text
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("dialect", "mode", "streamed"),
    [case for case in CASES if case[0] != "ollama"],  # which has no word for it
)
async def test_a_refusal_is_an_error(dialect: DialectName, mode: OutputMode, streamed: bool) -> None:
    with FaultServer(Reply(said=Said(refusal="I will not."))) as server:
        with pytest.raises(Refused, match=r"I will not\."):
            await ask(server, dialect, mode, streamed=streamed)
        assert len(server.requests) == 1


@every_case
async def test_tools_are_called_first(dialect: DialectName, mode: OutputMode, streamed: bool) -> None:
    asked = []

    def look(what: str) -> str:
        """Look something up."""
        asked.append(what)
        return "Water boils at 100 degrees."

    with FaultServer(tool_calls("look", {"what": "water"}, text="Let me see."), said(mode, TEXT)) as server:
        result = await ask(server, dialect, mode, streamed=streamed, tools=[look])
        assert (result.output, asked) == (TEA, ["water"])
        assert [message.role for message in result.history] == ["user", "assistant", "tool", "assistant"]
        assert result.history[1].text == "Let me see."


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("dialect", ["chat", "anthropic", "responses"])
async def test_an_answer_beside_a_call_is_not_the_answer_yet(dialect: DialectName, streamed: bool) -> None:
    def look(what: str) -> str:
        """Look something up."""
        return f"{what}: nothing"

    early = tool_calls(("look", {"what": "water"}), ("Recipe", {"title": "Not yet", "steps": []}))
    with FaultServer(early, said("tool", TEXT)) as server:
        result = await ask(server, dialect, "tool", streamed=streamed, tools=[look])
        assert result.output == TEA
        calls: tuple[ToolCall, ...] = result.history[1].tool_calls
        assert [call.name for call in calls] == ["look"]
        assert json.loads(result.history[1].text) == {"title": "Not yet", "steps": []}


async def test_values_come_while_the_tool_is_called(serve: Serve) -> None:
    def piece(arguments: str, **more: Any) -> bytes:
        call = {"index": 0, **more, "function": {"arguments": arguments, **({"name": "Recipe"} if more else {})}}
        return serve.event(serve.chunk(tool_calls=[call]))

    seen = asyncio.Event()
    end = serve.event(serve.chunk(finish="tool_calls"))
    server = await serve(serve.stream(piece(TEXT[:20], id="c1"), seen, piece(TEXT[20:]), end))
    agent = Agent(provider=provider("chat", server.url), output=Recipe, settings=Settings(output_mode="tool"))
    made = []
    async with asyncio.timeout(10):
        async for value in agent.stream_output("How do I make tea?"):
            made.append(value)
            seen.set()
    assert (made[0].title, made[-1]) == ("Tea", TEA)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("dialect", ["chat", "anthropic", "responses"])
async def test_a_model_that_ignores_the_tool_may_answer_in_text(dialect: DialectName, streamed: bool) -> None:
    with FaultServer(answer(TEXT, piece=2)) as server:
        assert (await ask(server, dialect, "tool", streamed=streamed)).output == TEA


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("dialect", ["chat", "anthropic", "responses"])
async def test_what_is_said_before_the_answer_is_no_part_of_it(dialect: DialectName, streamed: bool) -> None:
    with FaultServer(tool_calls("Recipe", TEXT, text="Here it is:")) as server:
        result = await ask(server, dialect, "tool", streamed=streamed)
        assert result.output == TEA
        assert (result.history[-1].text, result.history[-1].reasoning) == (TEXT, "Here it is:")
