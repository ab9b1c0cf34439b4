"""`Agent`: its threads, its faces, and what it says about wrong arguments."""

from __future__ import annotations

import asyncio
import gc
import weakref
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from plait import (
    Agent,
    AgentDefinition,
    AgentTemplates,
    AssistantMessage,
    Cancelled,
    ConfigurationError,
    Delta,
    FinishDelta,
    ImagePart,
    MemoryStore,
    NothingToResume,
    OfflineProvider,
    PlaitError,
    Request,
    Retrying,
    RetryPolicy,
    RunContext,
    RunLimits,
    Secret,
    Settings,
    StoreUnavailable,
    StreamTruncated,
    TextDelta,
    TextPart,
    Tool,
    ToolCall,
    ToolDefinition,
    Usage,
    UserMessage,
    create_agent,
    open_store,
    register_tool,
    tool,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from plait.events import Delta


def texts(agent: Agent[Any, Any]) -> list[str]:
    return [message.text for message in agent.history]


async def test_chat_continues_and_new_thread_begins_anew() -> None:
    agent = Agent(provider="offline")
    await agent.chat("My name is Ada.")
    assert await agent.chat("What is my name?") == "Your name is Ada."
    agent.new_thread()
    assert agent.history == []
    assert await agent.chat("What is my name?") == "You have not told me your name."


async def test_history_is_a_copy() -> None:
    agent = Agent(provider="offline")
    await agent.chat("Hello")
    agent.history.clear()
    assert texts(agent) == ["Hello", "You said: Hello"]


async def test_users_of_one_agent_never_meet() -> None:
    agent = Agent(provider=OfflineProvider(delay=0.001))
    names = [f"User{n}" for n in range(20)]
    await asyncio.gather(*(agent.chat(f"My name is {name}.", user_id=name) for name in names))
    answers = await asyncio.gather(*(agent.chat("What is my name?", name) for name in names))
    assert answers == [f"Your name is {name}." for name in names]


async def test_run_without_a_thread_is_fresh() -> None:
    agent = Agent(provider="offline")
    await agent.run("My name is Ada.")
    assert (await agent.run("What is my name?")).output == "You have not told me your name."
    assert agent.history == []


async def test_a_named_thread_lives_in_the_default_store_and_outlives_the_agent(tmp_path: Path) -> None:
    await Agent(provider="offline").chat("My name is Ada.", thread="diary")
    assert await Agent(provider="offline").chat("What is my name?", thread="diary") == "Your name is Ada."
    assert (tmp_path / "plait.db").exists()
    assert await Agent(provider="offline").chat("What is my name?", "someone else", thread="diary") == (
        "You have not told me your name."
    )


async def test_the_store_comes_from_the_argument_else_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAIT_STORE", f"sqlite:///{tmp_path / 'named.db'}")
    await Agent(provider="offline").chat("Hi", thread="t")
    await Agent(provider="offline", store="sqlite:///given.db").chat("Hi", thread="t")
    assert [(tmp_path / name).exists() for name in ("given.db", "named.db", "plait.db")] == [True, True, False]


async def test_stream_gives_the_text_and_remembers() -> None:
    agent = Agent(provider="offline")
    assert [text async for text in agent.stream("one two")] == ["You", " said:", " one", " two"]
    assert await agent.stream("three") == "You said: three\nBefore that you said: one two"
    assert texts(agent)[::2] == ["one two", "three"]


async def test_leaving_a_stream_half_read_ends_its_run() -> None:
    closed = asyncio.Event()

    class Endless(OfflineProvider):
        async def stream(self, request: Request) -> Any:
            try:
                while request.messages[-1].text == "go":
                    yield [TextDelta("more ")]
                    await asyncio.sleep(0)
            finally:
                closed.set()
            yield [TextDelta("done"), FinishDelta("stop")]

    agent = Agent(provider=Endless())
    read = []
    async for text in agent.stream("go"):
        read.append(text)
        break
    await asyncio.wait_for(closed.wait(), 5)
    assert read == ["more "]
    assert await asyncio.wait_for(agent.chat("and?"), 5) == "done"
    assert texts(agent) == ["go", "more ", "and?", "done"]


async def test_a_run_is_read_by_many_early_and_late() -> None:
    run = Agent(provider="offline").run("one two three")

    async def read() -> list[Any]:
        return [event async for event in run]

    first, second = await asyncio.gather(read(), read())
    await run
    assert first == second == await read()
    assert await run is await run


async def test_a_reader_that_gives_up_changes_nothing() -> None:
    run = Agent(provider=OfflineProvider(["slow but sure"], delay=0.01)).run("hi")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.005):
            await run
    assert (await run).output == "slow but sure"


async def test_a_timeout_round_chat_ends_its_run() -> None:
    ended = asyncio.Event()

    async def never(_: Request) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    agent = Agent(provider=OfflineProvider(function=never))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await agent.chat("hi")
    assert ended.is_set()


async def test_leaving_the_block_of_a_run_ends_it() -> None:
    agent = Agent(provider=OfflineProvider(["a b c d"], delay=0.01))
    async with agent.run("hi") as run:
        async for event in run:
            if isinstance(event, TextDelta):
                break
    with pytest.raises(Cancelled):
        await run


async def test_a_run_ends_with_the_task_that_called() -> None:
    runs: list[Any] = []

    async def caller() -> None:
        runs.append(Agent(provider=OfflineProvider(["a b c"], delay=30)).run("hi"))
        await asyncio.sleep(0)

    await asyncio.create_task(caller())
    with pytest.raises(Cancelled):
        await runs[0]


async def test_an_agent_within_a_tool_belongs_to_the_run() -> None:
    inner_ended = asyncio.Event()

    async def never(_: Request) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            inner_ended.set()
        return ""

    started = asyncio.Event()
    runs: list[Any] = []

    async def ask_a_colleague() -> str:
        runs.append(Agent(provider=OfflineProvider(function=never)).run("think"))
        started.set()
        return str((await runs[0]).output)

    outer = Agent(provider=OfflineProvider([ToolCall(id="1", name="ask_a_colleague")]), tools=[ask_a_colleague])
    async with outer.run("go"):
        await asyncio.wait_for(started.wait(), 5)
        await asyncio.sleep(0.01)
    assert inner_ended.is_set()
    with pytest.raises(Cancelled):
        await runs[0]


async def test_tools_in_every_form() -> None:
    @tool(description="Doubles.", name="double_it_for_agents")
    def double(x: int) -> int:
        return 2 * x

    class Triple(Tool):
        name = "triple_it_for_agents"
        description = "Triples."

        async def execute(self, x: int) -> int:
            return 3 * x

        def get_definition(self) -> ToolDefinition:
            schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
            return ToolDefinition(name=self.name, description=self.description, parameters=schema)

    register_tool(Triple())
    as_dict = {
        "name": "quadruple",
        "function_schema": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
        "func": lambda x: 4 * x,
    }

    def five(x: int) -> int:
        return 5 * x

    names = ["double_it_for_agents", "triple_it_for_agents", "quadruple", "five", "calculate"]
    calls = [ToolCall(id=name, name=name, arguments='{"x": 7}') for name in names[:4]]
    calls.append(ToolCall(id="c", name="calculate", arguments='{"expression": "6 * 7"}'))
    agent = Agent(
        provider=OfflineProvider([calls, "done"]),
        tools=["double_it_for_agents", "triple_it_for_agents", as_dict, five, "calculate"],
    )
    assert list(agent.tools) == names
    result = await agent.run("go")
    assert [r.text for r in result.messages[2].tool_results] == ["14", "21", "28", "35", "42"]
    assert double(4) == 8


async def test_context_and_secrets_reach_the_tools_that_ask() -> None:
    seen: list[Any] = []

    def look(x: int, context: RunContext[dict[str, int]], user_id: str, chat_id: str, token: Secret) -> str:
        seen.append((x, context.deps, user_id, chat_id == context.thread_id, token.reveal(), context.agent_name))
        return f"used {token.reveal()}"

    call = ToolCall(id="1", name="look", arguments='{"x": 1, "user_id": "mallory"}')
    agent = Agent(name="Looker", provider=OfflineProvider([call, call, "done"]), tools=[look])
    (definition,) = [tool.get_definition() for tool in agent.tools.values()]
    assert list(definition.parameters["properties"]) == ["x"]
    provider = agent.provider
    assert isinstance(provider, OfflineProvider)
    result = await agent.run("go", user_id="ada", deps={"answer": 42}, secrets={"token": Secret("s3cr3t-value")})
    assert seen in ([], [(1, {"answer": 42}, "ada", True, "s3cr3t-value", "Looker")] * 2)
    assert "s3cr3t-value" not in repr(result)


class City(BaseModel):
    name: str
    population: int


async def test_output_type_with_tools_and_events() -> None:
    def population(city: str) -> int:
        return 545796

    provider = OfflineProvider(
        [
            ToolCall(id="1", name="population", arguments='{"city": "Lisbon"}'),
            '{"name": "Lisbon", "population": 545796}',
        ]
    )
    agent = Agent(provider=provider, tools=[population], output=City)
    assert await agent.chat("Describe Lisbon") == City(name="Lisbon", population=545796)
    assert provider.requests[0].output is not None
    assert provider.requests[0].output.schema["required"] == ["name", "population"]


async def test_only_the_last_messages_are_sent_and_all_are_kept() -> None:
    provider = OfflineProvider(function=lambda request: f"answer {len(request.messages)}")
    agent = Agent(role="You count.", provider=provider, memory_params={"n": 3})
    for number in range(5):
        await agent.chat(f"question {number}")
    assert [m.text for m in provider.requests[-1].messages] == ["You count.", "question 3", "answer 4", "question 4"]
    assert len(agent.history) == 10


async def test_what_is_asked_for_is_sent() -> None:
    provider = OfflineProvider(["hi"])
    agent = Agent(role="r", provider=provider, temperature=0.5, max_tokens=99, settings=Settings(seed=7, max_tokens=1))
    await agent.chat("hello")
    (request,) = provider.requests
    assert request.settings == Settings(temperature=0.5, max_tokens=99, seed=7)
    assert request.output is None
    assert list(request.tools) == []


def test_system_prompt_from_a_definition() -> None:
    definition = AgentDefinition(role="You manage homes.", goal="Help.", constraints=["Be brief."], name="Host")
    agent = Agent(definition=definition, provider="offline")
    assert agent.system_prompt == "You manage homes.\n\nGoal: Help.\n\nConstraints:\n- Be brief."
    assert agent.name == "Host"
    assert Agent(definition=AgentTemplates.assistant("Helper"), provider="offline").name == "Helper"
    assert (
        create_agent("You manage homes.", "offline", goal="Help.").system_prompt == "You manage homes.\n\nGoal: Help."
    )
    assert Agent(provider="offline").system_prompt == ""


async def test_an_agent_is_freed_without_the_garbage_collector() -> None:
    agent = Agent(provider="offline", tools=["calculate"])
    await agent.chat("Calculate 1+1")
    gc.collect()
    gc.disable()
    try:
        seen = weakref.ref(agent)
        del agent
        assert seen() is None
    finally:
        gc.enable()


async def test_a_live_stream_is_few_objects_to_the_garbage_collector() -> None:
    """A full collection looks at each of them, and the event loop stands still meanwhile."""
    never = asyncio.Event()
    begun: asyncio.Queue[str] = asyncio.Queue()
    readers: list[asyncio.Task[None]] = []
    told: list[str] = []

    class Slow:
        name = model = "slow"

        async def stream(self, _request: Request) -> AsyncGenerator[list[Delta], None]:
            yield [TextDelta("word")]
            await never.wait()

    agent = Agent(provider=Slow())

    async def read(user_id: str) -> None:
        async for piece in agent.stream("Hi", user_id):
            begun.put_nowait(piece)

    async def objects_with(count: int) -> int:
        readers.extend(asyncio.create_task(read(f"user {n}")) for n in range(len(readers), count))
        async with asyncio.timeout(10):
            told.extend([await begun.get() for _ in range(count - len(told))])
        gc.collect()
        return len(gc.get_objects())

    try:
        few = await objects_with(10)
        assert (await objects_with(60) - few) / 50 < 75
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.wait(readers)


def use_store(url: str) -> Callable[[], object]:
    return lambda: open_store(url)


anything: Any = Agent  # for arguments that a type checker would refuse


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: anything(provider="opnai"),
            "there is no provider 'opnai'; the providers are .* Did you mean 'openai'?",
        ),
        (
            Agent,
            "no provider is named and no key is set: set OPENAI_API_KEY, ANTHROPIC_API_KEY or OPENROUTER_API_KEY, or",
        ),
        (lambda: anything(provider="openai"), "provider 'openai' needs a key: set OPENAI_API_KEY, or pass the key"),
        (
            lambda: anything(provider="openai:a", model="b"),
            "two models are named: 'a' in provider, and 'b' in model; name one",
        ),
        (lambda: anything(provider=7), "provider must be a name such as 'openai'"),
        (lambda: anything(provider="offline", model=7), "model must be a text, not int"),
        (
            lambda: anything(provider="offline", tools=["calculat"]),
            "there is no tool 'calculat'; the tools are: calculate",
        ),
        (lambda: anything(provider="offline", tools=[7]), "tool"),
        (lambda: anything("You are nice.", provider="offline"), "takes an AgentDefinition, not str; a text is role="),
        (lambda: anything(role=7, provider="offline"), "takes a text, not int"),
        (
            lambda: anything(AgentDefinition(role="a"), role="b", provider="offline"),
            "takes a definition or 'role', not both",
        ),
        (lambda: anything(provider="offline", max_turns=0), "max_turns must be a whole number of at least 1, not 0"),
        (lambda: anything(provider="offline", temperature="hot"), "takes a number of at least 0, not 'hot'"),
        (lambda: anything(provider="offline", memory_strategy="all"), "there is no memory strategy 'all'"),
        (lambda: anything(provider="offline", memory_params={"m": 1}), "has no parameter 'm'"),
        (lambda: anything(provider="offline", hooks={"on_befor": print}), "there is no hook 'on_befor'; the hooks are"),
        (lambda: anything(provider="offline", hooks={"on_before_request": 1}), "must be a function of one event"),
        (use_store("postgres://x"), "there is no store for 'postgres' URLs"),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence) as raised:
        make()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("use", "sentence"),
    [
        (lambda agent: agent.run(7), "a prompt or message is text, a Message, or"),
        (lambda agent: agent.run([]), "the prompt is empty"),
        (lambda agent: agent.run(" \n"), "the prompt is empty"),
        (lambda agent: agent.run(UserMessage()), "the prompt is empty"),
        (lambda agent: agent.run([{"role": "robot", "content": "x"}]), "a message needs a role"),
        (
            lambda agent: agent.run("x", limit=3),
            "a run has no option 'limit'; it has thread, user_id, deps, secrets, stop, limits, if_busy",
        ),
        (lambda agent: agent.run("x", limits=3), "the option 'limits' takes a RunLimits, not 3"),
        (lambda agent: agent.run("x", secrets={"a": "b"}), "takes a mapping of names to Secret values"),
        (lambda agent: agent.run("x", if_busy="wait"), "takes 'queue' or 'reject' or 'interrupt', not 'wait'"),
        (lambda agent: agent.run("x", thread=""), "thread name"),
        (lambda agent: agent.run("x", thread="a\x00b"), "thread name"),
        (lambda agent: agent.run("x", thread=7), "thread name"),
        (lambda agent: agent.chat("x", user_id="", thread="t"), "user id"),
    ],
)
async def test_wrong_arguments_of_a_run_are_refused(use: Callable[[Agent[Any, Any]], Any], sentence: str) -> None:
    agent = Agent(provider="offline", store=MemoryStore())
    with pytest.raises(ConfigurationError, match=sentence) as raised:
        await use(agent)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a/b\\c", "'; DROP TABLE threads; --", "%_*", "日本 🧶", " spaced "]
)
async def test_odd_thread_names_are_just_names(name: str) -> None:
    agent = Agent(provider="offline")
    await agent.chat("My name is Ada.", thread=name)
    assert await Agent(provider="offline").chat("What is my name?", thread=name) == "Your name is Ada."


async def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("These are my notes, not a database. " * 100)
    before = path.read_bytes()
    agent = Agent(provider="offline", store="sqlite:///notes.db")
    with pytest.raises(StoreUnavailable, match=r"notes\.db"):
        await agent.chat("Hi", thread="t")
    assert path.read_bytes() == before
    assert await agent.chat("Hi") == "You said: Hi"


def test_every_error_of_an_agent_is_one_of_ours() -> None:
    assert issubclass(ConfigurationError, PlaitError)
    assert issubclass(ConfigurationError, ValueError)
    assert RunLimits().max_turns == 10
    assert UserMessage(text="x").role == "user"


async def test_awaiting_a_stream_gives_the_answer_and_reading_it_all_that_was_said() -> None:
    def script() -> OfflineProvider:
        call = ToolCall(id="1", name="calculate", arguments='{"expression": "1"}')
        return OfflineProvider([AssistantMessage(parts=(TextPart(text="Let me look."), call)), "It is 1."])

    assert await Agent(provider=script(), tools=["calculate"]).chat("?") == "It is 1."
    assert await Agent(provider=script(), tools=["calculate"]).stream("?") == "It is 1."
    pieces = [text async for text in Agent(provider=script(), tools=["calculate"]).stream("?")]
    assert "".join(pieces) == "Let me look.\n\nIt is 1."


async def test_leaving_the_batches_of_a_stream_ends_its_run_too() -> None:
    stream = Agent(provider=OfflineProvider(["a b c d"], delay=30)).stream("hi")
    batches = stream.batches()
    task = asyncio.ensure_future(anext(aiter(batches)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    del batches, task
    gc.collect()
    with pytest.raises(Cancelled):
        await stream


async def test_looking_for_a_thread_creates_none() -> None:
    store = MemoryStore()
    agent = Agent(provider="offline", store=store)
    assert await agent.log("typo") == []
    with pytest.raises(NothingToResume, match="there is no thread 'typo' of user 'default'"):
        await agent.resume("typo")
    with pytest.raises(ConfigurationError):
        await agent.chat("x", thread="typo", limit=3)  # type: ignore[call-arg]
    assert await store.find("typo") is None
    assert await store.find("typo", "default") is None


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: anything(provider="offline", tools="calculate"),
            "tools takes a list of tools, not str",
        ),
        (
            lambda: anything(provider="offline", tools=print),
            "tools takes a list of tools, not builtin",
        ),
        (
            lambda: anything(provider="offline", store=5),
            "store takes a URL such as .*, not int",
        ),
        (lambda: anything(provider="offline", settings={"top_p": 1}), "settings takes a Settings, not dict"),
        (
            lambda: anything(provider="offline").run([AssistantMessage(text="x")]),
            "with a message of role 'assistant'",
        ),
    ],
)
def test_more_wrong_arguments(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        make()


def test_an_attribute_an_agent_does_not_have_cannot_be_set() -> None:
    agent = Agent(provider="offline")
    with pytest.raises(AttributeError):
        agent.role = "other"  # type: ignore[attr-defined]


class TwoAtOnce:
    """A provider that gives two choices, whose pieces come by turns."""

    name, model = "two", "m"

    async def stream(self, _request: Request) -> AsyncGenerator[list[Delta], None]:
        yield [TextDelta("A", 0), TextDelta("B", 1), TextDelta("a", 0), TextDelta("b", 1)]
        yield [FinishDelta("stop", 0), FinishDelta("stop", 1)]


async def test_of_several_choices_the_stream_gives_the_first() -> None:
    agent = Agent(provider=TwoAtOnce(), settings=Settings(n=2))
    stream = agent.stream("hi")
    assert [text async for text in agent.stream("hi")] == ["A", "a"]
    assert await stream == "Aa"


class _CutOnce(OfflineProvider):
    """Answers in two pieces, and breaks off after the first of them once."""

    async def stream(self, request: Request) -> Any:
        self.requests.append(request)
        yield [TextDelta("old ")]
        if len(self.requests) == 1:
            msg = "the stream ended before the answer did"
            raise StreamTruncated(msg, partial="old ")
        yield [TextDelta("and new"), FinishDelta("stop")]


async def test_an_answer_that_begins_anew_is_parted_from_what_it_makes_void() -> None:
    again = RetryPolicy(restarts=1, initial_delay=0.0)

    def agent() -> Agent[Any, str]:
        return Agent(provider=Retrying(_CutOnce(), again))

    assert [piece async for piece in agent().stream("hi")] == ["old ", "\n\n", "old ", "and new"]
    assert await agent().stream("hi") == await agent().chat("hi") == "old and new"
    run = agent().run("hi")
    assert [type(event).__name__ async for event in run if "Delta" in type(event).__name__] == [
        "TextDelta",
        "AttemptDelta",
        "TextDelta",
        "TextDelta",
        "FinishDelta",
    ]
    assert (await run).usage == Usage(requests=1)  # the void one; neither told its tokens


async def test_texts_and_parts_in_a_list_are_one_message() -> None:
    image = ImagePart(data=b"x")
    agent = Agent(provider="offline")
    await agent.chat(["What is this?", image, "And this?"])
    await agent.chat(image)
    assert [message.parts for message in agent.history if message.role == "user"] == [
        (TextPart(text="What is this?"), image, TextPart(text="And this?")),
        (image,),
    ]
    with pytest.raises(ConfigurationError) as raised:
        await agent.chat([UserMessage(text="hi"), image])
    assert str(raised.value) == (
        "a prompt is a list of messages, or a list of texts and parts that are one message; this one has both parts "
        "and UserMessage"
    )


# --- an agent as a tool -----------------------------------------------------------------------------------------------


async def test_an_agent_is_a_tool_for_another() -> None:
    helper = Agent(
        role="You know the way.", goal="Help travellers.", name="Way finder", provider=OfflineProvider(["Left."])
    )
    made = helper.as_tool()
    assert (made.name, made.description, made.timeout) == ("Way_finder", "You know the way. Help travellers.", inf)
    assert list(made.get_definition().parameters["properties"]) == ["prompt"]
    provider = OfflineProvider([ToolCall(id="c", name="Way_finder", arguments='{"prompt": "Where to?"}'), "Go left."])
    assert await Agent(role="You lead.", provider=provider, tools=[made]).chat("Where to?") == "Go left."
    assert provider.requests[-1].messages[-1].tool_results[0].text == "Left."
    named = helper.as_tool("ask_the_way", "Ask for the way.")
    assert (named.name, named.description) == ("ask_the_way", "Ask for the way.")


async def test_an_agent_as_a_tool_works_for_the_caller_s_user_and_remembers_nothing() -> None:
    seen = []

    def look(user_id: str) -> str:
        """Look who asks."""
        seen.append(user_id)
        return "seen"

    def answer(request: Request) -> str | ToolCall:
        return "done" if request.messages[-1].role == "tool" else ToolCall(id="c", name="look")

    helper = Agent(role="You look.", name="helper", provider=OfflineProvider(function=answer), tools=[look])
    call = ToolCall(id="c", name="helper", arguments='{"prompt": "Look."}')
    leader = Agent(role="You lead.", provider=OfflineProvider([call, "Done.", call, "Done."]), tools=[helper.as_tool()])
    for user in ("ann", "bob"):
        assert await leader.chat("Go.", user) == "Done."
    assert (seen, helper.history) == (["ann", "bob"], [])


async def test_an_agent_as_a_tool_that_reached_its_limit_gives_an_error() -> None:
    calling = OfflineProvider(
        function=lambda _request: ToolCall(id="c", name="calculate", arguments='{"expression": "1"}')
    )
    helper = Agent(role="You count.", name="helper", provider=calling, tools=["calculate"], max_turns=2)
    provider = OfflineProvider([ToolCall(id="c", name="helper", arguments='{"prompt": "Count."}'), "I see."])
    assert await Agent(role="You lead.", provider=provider, tools=[helper.as_tool()]).chat("Count.") == "I see."
    result = provider.requests[-1].messages[-1].tool_results[0]
    assert (result.is_error, result.text) == (True, "helper ended before it had an answer (max_turns)")
