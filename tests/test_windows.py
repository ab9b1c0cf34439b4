"""Windows as users meet them: whole runs over many turns, and what their requests really held."""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypedDict

import pytest

from plait import (
    Agent,
    Answer,
    AssistantMessage,
    Budget,
    ConfigurationError,
    ContextNote,
    ContextWindow,
    EmptyAnswer,
    Guardrails,
    ImagePart,
    LimitExceeded,
    MemoryStore,
    OfflineProvider,
    ProviderError,
    ReasoningPart,
    Request,
    StopSignal,
    SystemMessage,
    TextPart,
    ToolCall,
    Usage,
    UserMessage,
    get_memory_strategy,
    hidden,
    history,
    open_store,
    tool,
    usage,
)
from plait.context.bounds import DROPPED_NOTE, OVERFLOW_NOTE
from plait.context.summaries import SUMMARY
from plait.counting import message_tokens, output_tokens, tools_tokens
from plait.entries import MessageEntry
from plait.estimates import SIMPLE, Correction
from plait.tools import Toolbox, as_tool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from plait import ContextOverflow, Message, MessagesDropped, Store, ToolDefinition

ROLE: Final = "You look things up in a library, and say what you found."
TASK: Final = "Answer with the summary alone"
LONG: Final = "a line that was found in some book\n" * 12


@tool
def search(query: str) -> str:
    """Look something up in the library."""
    return f"{query}: {LONG}"


def is_summary(request: Request) -> bool:
    return TASK in request.messages[0].text


def counted(request: Request) -> int:
    """What is sent: messages, definitions of tools, and the form of the answer."""
    form = 0 if request.output is None else output_tokens(request.output, SIMPLE)
    return sum(message_tokens(one, SIMPLE) for one in request.messages) + tools_tokens(request.tools, SIMPLE) + form


@dataclass
class Library:
    """A model that looks every third question up, reports the tokens as they were counted, and remembers all of it."""

    times: float = 1.0
    requests: list[Request] = field(default_factory=list)
    summaries: list[Request] = field(default_factory=list)
    told: list[Any] = field(default_factory=list)
    """What hooks were told, each with how many requests there had been."""
    summary: Callable[[Request], Any] | None = None

    def answer(self, request: Request) -> Any:
        if is_summary(request):
            self.summaries.append(request)
            said = self.summary(request) if self.summary else f"Summary {len(self.summaries)}: books were looked for."
            return said if isinstance(said, Exception) else self.whole(request, TextPart(text=said))
        self.requests.append(request)
        last = request.messages[-1]
        asked = last.role == "user" and "look up" in last.text
        if asked and request.tools:
            call = ToolCall(id=f"call {len(self.requests)}", name="search", arguments='{"query": "books"}')
            return self.whole(request, call)
        return self.whole(request, TextPart(text=f"Answer {len(self.requests)}, which goes on for a while. " * 3))

    def whole(self, request: Request, part: TextPart | ToolCall) -> Answer:
        used = Usage(input_tokens=round(counted(request) * self.times), output_tokens=7)
        reason = "tool_calls" if isinstance(part, ToolCall) else "stop"
        return Answer(AssistantMessage(parts=(part,)), usage=used, finish_reason=reason)

    def hook(self, event: Any) -> None:
        self.told.append((len(self.requests), event))

    def agent(self, strategy: Any, params: Any = None, **options: Any) -> Agent[Any, Any]:
        hooks = {"on_context_overflow": self.hook, "on_message_dropped": self.hook, **options.pop("hooks", {})}
        options = {"role": ROLE, "provider": OfflineProvider(function=self.answer), "tools": [search], **options}
        return Agent(memory_strategy=strategy, memory_params=params, hooks=hooks, **options)

    def dropped(self) -> list[tuple[int, MessagesDropped]]:
        return [(at, event) for at, event in self.told if hasattr(event, "total")]

    def overflows(self) -> list[tuple[int, ContextOverflow]]:
        return [(at, event) for at, event in self.told if hasattr(event, "limit")]


def question(number: int) -> str:
    verb = "look up" if number % 3 == 0 else "tell me about"
    return f"Question {number}: {verb} this and that" + " and something else" * (number % 5) + ", please."


def pairs_are_kept(messages: Sequence[Message]) -> bool:
    """Whether each call is followed by its results, and each result follows its call."""
    open_calls: set[str] = set()
    for message in messages:
        results = {result.call_id for result in message.tool_results}
        if results != open_calls:
            return False
        open_calls = {call.id for call in message.tool_calls}
    return not open_calls


STRATEGIES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "last_n": ("last_n", {"n": 6}),
    "first_last": ("first_last", {"first": 2, "last": 5}),
    "token_window": ("token_window", {"max_tokens": 600}),
    "simple": ("simple", {"max_tokens": 300, "last": 7, "max_tokens_per_message": 60}),
    "bare": ("simple", {"max_tokens": 600, "keep_tool_calls": False}),
    "summary_dropping": ("summary_dropping", {"max_tokens": 700}),
    "short summaries": ("summary_dropping", {"max_tokens": 360, "last": 8, "summary_tokens": 50, "trim_to": 0.7}),
}


@pytest.mark.parametrize(("name", "params"), STRATEGIES.values(), ids=STRATEGIES)
async def test_every_request_keeps_what_its_window_promises(name: str, params: dict[str, Any]) -> None:
    library = Library()
    agent = library.agent(name, params)
    seen: list[tuple[Request, list[Message]]] = []
    library_answer = library.answer

    def answer(request: Request) -> Any:
        if not is_summary(request):
            seen.append((request, agent.history))
        return library_answer(request)

    agent = library.agent(name, params, provider=OfflineProvider(function=answer))
    for number in range(40):
        await agent.chat(question(number))
    assert len(seen) == 54
    window = get_memory_strategy(name, **params)
    gone: list[Message] = []
    overflowed = False
    for at, (request, said) in enumerate(seen):
        told = [event for when, event in library.told if when == at]
        gone += [message for event in told for message in getattr(event, "messages", ())]
        overflowed = overflowed or any(hasattr(event, "limit") for event in told)
        check(request, said, window, gone, overflowed=overflowed)
        for event in told:
            assert event.context.thread_id
            if hasattr(event, "total"):
                assert event.total == len(gone)
            else:
                assert (event.limit, event.tokens <= event.limit) == (window.max_tokens, True)
    assert len(gone) > 30
    assert overflowed == (window.max_tokens is not None)
    assert len(agent.history) == 40 + 54 + 14


def check(
    request: Request, said: Sequence[Message], window: ContextWindow, gone: Sequence[Message], *, overflowed: bool
) -> None:
    """Check one request against the thread as it was when it was sent."""
    sent = request.messages
    assert sent[0] == SystemMessage(text=ROLE)
    assert pairs_are_kept(sent)
    if window.max_tokens is not None:
        assert counted(request) <= window.max_tokens
    prompt = [message for message in said if message.role == "user"][-1]
    assert any(message.role == "user" and message.text[:12] == prompt.text[:12] for message in sent)
    assert sent[-1].role == said[-1].role
    notes = [message.text for message in sent[1:] if message.role == "system"]
    assert (DROPPED_NOTE in notes) == (bool(gone) and window.dropped_note is not None)
    assert (OVERFLOW_NOTE in notes) == overflowed
    assert len({id(message) for message in gone}) == len(gone), "what is left out is told once"
    own = [one for one in sent if one.role != "system" and SUMMARY not in one.metadata]
    run = next(at for at in range(len(said) - 1, -1, -1) if said[at].role == "user")
    bare = {id(one) for one in said[:run] if not window.keep_tool_calls and (one.tool_calls or one.tool_results)}
    kept = [one for one in said if id(one) not in {id(message) for message in gone} and id(one) not in bare]
    assert [message.role for message in own] == [message.role for message in kept]
    for one, whole in zip(own, kept, strict=True):
        assert one is whole or message_tokens(one, SIMPLE) < message_tokens(whole, SIMPLE)
        if window.max_tokens_per_message is not None:
            assert message_tokens(one, SIMPLE) <= window.max_tokens_per_message


@pytest.mark.parametrize("kept", ["memory", "file"])
@pytest.mark.parametrize(
    ("name", "params"), [STRATEGIES[one] for one in STRATEGIES if one not in ("short summaries", "bare")]
)
async def test_a_thread_that_is_opened_anew_for_each_run_is_sent_as_if_it_had_been_open(
    name: str, params: dict[str, Any], kept: str, tmp_path: Path
) -> None:
    def stored(file: str) -> Store:
        return MemoryStore() if kept == "memory" else open_store(f"sqlite:///{tmp_path / file}.db")

    once, again = Library(), Library()
    agent = once.agent(name, params, store=stored("once"))
    store = stored("again")
    for number in range(20):
        await agent.chat(question(number), thread="books")
        await again.agent(name, params, store=store).chat(question(number), thread="books")
    assert [request.messages for request in again.requests] == [request.messages for request in once.requests]
    assert [request.earlier for request in again.requests] == [request.earlier for request in once.requests]
    assert [request.messages for request in again.summaries] == [request.messages for request in once.summaries]
    assert plainly(again.told) == plainly(once.told) != []
    for one in (agent.store, store):
        if not isinstance(one, MemoryStore):
            await one.close()


def plainly(told: Sequence[tuple[int, Any]]) -> list[Any]:
    """What hooks were told, without whose run it was."""
    said = []
    for at, event in told:
        values = {name: getattr(event, name) for name in event.__struct_fields__ if name != "context"}
        said.append((at, type(event).__name__, values))
    return said


async def test_what_is_left_out_is_told_once_though_the_run_failed_and_went_on_elsewhere() -> None:
    """Every request fails once; another agent goes on."""
    once, again = Library(), Library()
    failed: set[int] = set()

    def answer(request: Request) -> Any:
        number = len(again.requests)
        if number not in failed:
            failed.add(number)
            return ProviderError("no", provider="offline", status=400)
        return again.answer(request)

    params = {"max_tokens": 500}
    store = MemoryStore()
    agent = once.agent("token_window", params)
    for number in range(12):
        await agent.chat(question(number))
        other = again.agent("token_window", params, store=store, provider=OfflineProvider(function=answer))
        with pytest.raises(ProviderError):
            await other.run(question(number), thread="books")
        while True:
            other = again.agent("token_window", params, store=store, provider=OfflineProvider(function=answer))
            try:
                await other.resume("books")
            except ProviderError:
                continue
            break
    assert [request.messages for request in again.requests] == [request.messages for request in once.requests]
    dropped = [id(message) for _, event in once.dropped() for message in event.messages]
    assert len(set(dropped)) == len(dropped) > 10
    # A request that failed may have been told of; one that was answered is not told of again.
    texts = {(at, message.text) for at, event in again.dropped() for message in event.messages}
    assert texts == {(at, message.text) for at, event in once.dropped() for message in event.messages}


async def test_a_resume_in_the_middle_of_a_run_tells_only_what_is_new() -> None:
    library = Library()
    store = MemoryStore()
    params = {"max_tokens": 300}
    agent = library.agent("token_window", params, store=store)
    for number in (1, 2, 4, 5, 7, 8, 10):
        await agent.chat(question(number), thread="books")
    earlier = library.dropped()[-1][1].total
    library.told.clear()
    first = await library.agent("token_window", params, store=store, max_turns=1).run(question(3), thread="books")
    assert first.stop_reason == "max_turns"
    before = library.dropped()
    assert before
    again = library.agent("token_window", params, store=store)
    result = await again.resume("books")
    assert result.stop_reason == "response"
    after = library.dropped()[len(before) :]
    told = [message.text for _, event in (*before, *after) for message in event.messages]
    assert len(set(told)) == len(told)
    total = after[-1][1].total if after else before[-1][1].total
    assert total == earlier + len(told)


async def test_an_overflow_is_told_when_it_happens_and_not_while_the_note_is_there() -> None:
    library = Library()
    agent = library.agent("simple", {"max_tokens": 400, "last": 4})
    await agent.chat("Tell me about all of this: " + "one more thing, " * 100)
    for number in (1, 2, 4, 5, 7):
        await agent.chat(question(number))
    assert [at for at, _ in library.overflows()] == [0, 1], "the prompt is cut, and then makes room for the next"
    assert [at for at, _ in library.dropped()] == [1, 3, 4, 5]
    notes = [[one.text for one in request.messages if one.role == "system"] for request in library.requests]
    assert all(OVERFLOW_NOTE in note for note in notes)


# --- summaries ---


async def summarised(library: Library, turns: int = 12, **options: Any) -> Agent[Any, Any]:
    agent = library.agent("summary_dropping", {"max_tokens": 700}, **options)
    for number in range(turns):
        await agent.chat(question(number), thread="books")
    return agent


async def test_a_summary_is_an_entry_that_names_what_it_hides() -> None:
    library = Library()
    agent = await summarised(library, store=MemoryStore())
    log = await agent.log("books")
    notes = [entry.body for entry in log if isinstance(entry.body, ContextNote)]
    assert [note.summary for note in notes] == [
        f"Summary {number}: books were looked for." for number in range(1, len(library.summaries) + 1)
    ]
    assert len(notes) >= 2
    said = history(log)
    assert len(said) == 12 + len(library.requests) + 4, "the log keeps everything"
    last = library.requests[-1].messages
    assert notes[-1].summary in last[3].text
    assert last[3].metadata == {SUMMARY: True}
    covered = hidden(log, notes[-1])
    assert covered == said[: len(covered)]
    assert len(covered) == len(said) - len(last[4:]) - 1  # the answer to it
    assert [one for one in said if one in covered and one in last] == []
    assert all(hidden(log, earlier) == covered[: len(hidden(log, earlier))] for earlier in notes)
    asked = library.summaries[-1]
    assert f'"earlier_summary":"{notes[-2].summary}"' in asked.messages[1].text
    assert asked.settings.max_tokens == 1_087  # with room to think
    assert (asked.tools, asked.output, asked.stream) == ((), None, False)


async def test_what_a_summary_took_is_part_of_the_run_s_usage() -> None:
    library = Library()
    agent = library.agent("summary_dropping", {"max_tokens": 700}, store=MemoryStore())
    prices = {"offline": {"input": 1, "output": 1}}
    priced = library.agent("summary_dropping", {"max_tokens": 700}, prices=prices, store=agent.store)
    for number in range(12):
        before = len(library.requests), len(library.summaries)
        result = await (priced if number > 5 else agent).run(question(number), thread="books")
        asked = [*library.requests[before[0] :], *library.summaries[before[1] :]]
        assert result.usage is not None
        assert result.usage.input_tokens == sum(map(counted, asked))
        assert result.usage.output_tokens == 7 * len(asked)
        if number > 5:
            cost = (result.usage.input_tokens + result.usage.output_tokens) / 1e6
            assert result.usage.cost == pytest.approx(cost)
    assert len(library.summaries) >= 2
    total = usage(await agent.log("books"))
    assert total is not None
    assert total.input_tokens == sum(map(counted, [*library.requests, *library.summaries]))


@pytest.mark.parametrize("said", [ProviderError("no", provider="offline", status=400), "  "], ids=["fails", "empty"])
async def test_a_summary_that_cannot_be_made_leaves_a_line_in_the_program_s_log(
    said: Any, caplog: pytest.LogCaptureFixture
) -> None:
    library = Library(summary=lambda _: said)
    caplog.set_level(logging.WARNING, "plait.run")
    agent = await summarised(library, store=MemoryStore())
    assert len(caplog.messages) == len(library.summaries) >= 2
    assert {message.partition(":")[0] for message in caplog.messages} == {
        "earlier messages could not be summarised and are left out"
    }
    assert len({request.messages[1].text for request in library.summaries}) == len(library.summaries), "nothing new"
    notes = [entry.body for entry in await agent.log("books") if isinstance(entry.body, ContextNote)]
    assert [note.summary for note in notes if note.summary] == []
    assert not [one for request in library.requests for one in request.messages if SUMMARY in one.metadata]
    assert all(counted(request) <= 700 and pairs_are_kept(request.messages) for request in library.requests)
    library.summary = None
    for number in range(12, 18):
        await agent.chat(question(number), thread="books")
    log = await agent.log("books")
    note = next(entry.body for entry in log if isinstance(entry.body, ContextNote) and entry.body.summary)
    assert hidden(await agent.log("books"), note)[0].text == question(0), "the next one takes all of it in"


async def test_a_summary_has_the_reserved_part_of_a_budget(caplog: pytest.LogCaptureFixture) -> None:
    free, poor, rich = Library(), Library(), Library()
    numbers = iter(range(20))
    agent = free.agent("summary_dropping", {"max_tokens": 700}, store=MemoryStore())
    while not free.summaries:
        await agent.chat(question(next(numbers)), thread="books")
    turns = next(numbers)
    used = sum(counted(request) + 7 for request in free.requests[:-1])
    for library, reserved in ((poor, 0), (rich, 1_000)):
        budget = Budget(max_tokens=used + 150, reserved_tokens=reserved)
        params: dict[str, Any] = {"store": MemoryStore(), "budget": budget, "max_tokens": 8}
        agent = library.agent("summary_dropping", {"max_tokens": 700}, **params)
        reasons = [(await agent.run(question(number), thread="books")).stop_reason for number in range(turns)]
        assert reasons[-1] == "budget"
    assert (len(poor.summaries), len(rich.summaries)) == (0, 1)
    assert caplog.messages == ["earlier messages could not be summarised and are left out: NoRoom"]


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_a_summary_that_was_stopped_is_made_when_the_run_goes_on(how: str) -> None:
    library = Library()
    asked, signal = asyncio.Event(), StopSignal()

    async def answer(request: Request) -> Any:
        if is_summary(request) and not asked.is_set():
            asked.set()
            await asyncio.Event().wait()
        return library.answer(request)

    agent = library.agent(
        "summary_dropping", {"max_tokens": 700}, store=MemoryStore(), provider=OfflineProvider(function=answer)
    )

    async def ask() -> int:
        for number in range(12):
            result = await agent.run(question(number), thread="books", stop=signal)
            if result.stop_reason == "user_stop":
                return number
        return -1

    asking = asyncio.create_task(ask())
    await asyncio.wait_for(asked.wait(), 5)
    if how == "stop":
        signal.set()
        assert await asyncio.wait_for(asking, 5) > 0
    else:
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asking, 5)
    notes = [entry.body for entry in await agent.log("books") if isinstance(entry.body, ContextNote)]
    assert (library.summaries, [note.summary for note in notes if note.summary]) == ([], [])
    told = len(library.told)
    result = await asyncio.wait_for(agent.resume("books"), 5)
    assert (result.stop_reason, len(library.summaries), len(library.told)) == ("response", 1, told)
    assert SUMMARY in library.requests[-1].messages[3].metadata


async def test_two_agents_on_one_thread_each_keep_their_own_window() -> None:
    wide, narrow = Library(), Library()
    store = MemoryStore()
    one = wide.agent("summary_dropping", {"max_tokens": 1500}, store=store)
    other = narrow.agent("summary_dropping", {"max_tokens": 500}, store=store)
    for number in range(30):
        await (other if number % 2 else one).chat(question(number), thread="books")
    assert all(counted(request) <= 1500 for request in wide.requests)
    assert all(counted(request) <= 500 for request in narrow.requests)
    assert all(pairs_are_kept(request.messages) for request in (*wide.requests, *narrow.requests))
    assert wide.summaries
    assert narrow.summaries
    log = await one.log("books")
    said = history(log)
    assert len(said) == 30 + len(wide.requests) + len(narrow.requests) + 10
    for entry in log:
        if isinstance(entry.body, ContextNote):
            covered = hidden(log, entry.body)
            assert covered == said[: len(covered)] != []


async def test_a_thread_without_the_calls_of_earlier_runs_is_hidden_as_far_as_it_was_summarised() -> None:
    library = Library()
    store = MemoryStore()
    params = {"max_tokens": 500, "keep_tool_calls": False}
    for number in range(24):
        await library.agent("summary_dropping", params, store=store).chat(question(number), thread="books")
    agent = library.agent("summary_dropping", params, store=store)
    log = await agent.log("books")
    said = history(log)
    notes = [entry.body for entry in log if isinstance(entry.body, ContextNote)]
    assert len(notes) > 2
    lengths = [len(hidden(log, note)) for note in notes]
    assert lengths == sorted(set(lengths))
    for note in notes:
        covered = hidden(log, note)
        assert covered == said[: len(covered)]
        assert said[len(covered)].role != "tool"
    for request in library.requests:
        texts = [message.text for message in request.messages if message.text]
        assert len(set(texts)) == len(texts), "nothing is sent twice"


async def test_calls_of_earlier_runs_stay_paired_where_the_log_holds_more_than_is_sent() -> None:
    """Runs that ended in the middle, with system text of their own, and an answer that said nothing."""
    library = Library()

    def answer(request: Request) -> Any:
        if "think" in request.messages[-1].text:
            return AssistantMessage(parts=(ReasoningPart(text="So it is."),))
        return library.answer(request)

    agent = library.agent(
        "simple",
        {"max_tokens": 5_000, "keep_tool_calls": False},
        provider=OfflineProvider(function=answer),
        max_turns=1,
        store=MemoryStore(),
    )
    prompts: list[Any] = [
        "Only think.",
        [SystemMessage(text="It is Monday."), UserMessage(text="Please look up one.")],
        [SystemMessage(text="It is Tuesday."), UserMessage(text="Please look up another.")],
        "Well?",
    ]
    for prompt in prompts:
        with suppress(EmptyAnswer):
            await agent.run(prompt, thread="books")
    assert all(pairs_are_kept(request.messages) for request in library.requests)
    assert [message.text for message in library.requests[-1].messages] == [
        ROLE,
        "It is Monday.",
        "It is Tuesday.",
        "Only think.",
        "Please look up one.",
        "Please look up another.",
        "Well?",
    ]


# --- stops, images, tools, outputs ---


@pytest.mark.parametrize("thinking", [False, True], ids=["text", "thoughts"])
async def test_an_answer_that_was_stopped_is_asked_for_again_with_its_prompt(*, thinking: bool) -> None:
    library = Library()
    said, signal = asyncio.Event(), StopSignal()
    part = ReasoningPart(text="I think " * 50) if thinking else TextPart(text="I say " * 50)
    stopping = False

    def answer(request: Request) -> Any:
        if stopping and not said.is_set():
            return AssistantMessage(parts=(part, TextPart(text="never")))
        return library.answer(request)

    slow = OfflineProvider(function=answer, delay=0.001)
    agent = library.agent("token_window", {"max_tokens": 400}, store=MemoryStore(), provider=slow)
    for number in (1, 2, 4, 5, 7):
        await agent.chat(question(number), thread="books")
    stopping = True
    run = agent.run(question(8), thread="books", stop=signal)
    pieces = 0
    async for event in run:
        pieces += hasattr(event, "text")
        if pieces == 5:
            said.set()
            signal.set()
    assert (await run).stop_reason == "user_stop"
    before = len(library.requests)
    result = await agent.resume("books")
    assert result.stop_reason == "response"
    sent = library.requests[before]
    assert sent.messages[-1].text == question(8)
    assert counted(sent) <= 400
    await agent.chat("Thanks.", thread="books")
    roles = [message.role for message in library.requests[-1].messages[-4:]]
    assert roles[-3:] == ["user", "assistant", "user"] or roles == ["user", "assistant", "assistant", "user"]


async def test_what_was_said_before_the_run_is_told_apart_in_any_window() -> None:
    """Providers that have no place for an image refuse one of the prompt, and only name an earlier one."""
    library = Library()
    image = ImagePart(data=b"\x89PNG", media_type="image/png")
    windows = ("last_n", {"n": 4}), ("token_window", {"max_tokens": 1500}), ("first_last", {"first": 1, "last": 2})
    for name, params in windows:
        agent = library.agent(name, params)
        for number in range(12):
            library.requests.clear()
            await agent.run(question(number)) if number == 11 else await agent.chat([question(number), image])
            for request in library.requests:
                if number == 11:
                    assert request.earlier == 1
                    continue
                prompt = next(at for at, one in enumerate(request.messages) if one.text == question(number))
                assert prompt >= request.earlier
                assert all(one.role == "system" or one.text != question(number) for one in request.messages[:prompt])
                old = [one for one in agent.history if one.role == "user"][:-1]
                assert all(one not in old for one in request.messages[request.earlier :])


class Mine:
    """A strategy of one's own: the last exchange and the prompt."""

    def choose(self, messages: Sequence[Message]) -> Sequence[Message]:
        users = [at for at, message in enumerate(messages) if message.role == "user"]
        return messages[users[-2] if len(users) > 1 else 0 :]


async def test_a_strategy_of_one_s_own() -> None:
    library = Library()
    agent = library.agent(Mine())
    for number in range(8):
        await agent.chat(question(number))
    assert [message.role for message in library.requests[-1].messages] == [
        "system",
        *("user", "assistant", "tool", "assistant"),
        "user",
    ]
    assert library.requests[-1].earlier == 5
    assert library.told == []
    shown = await agent.explain("And now?")
    assert [part.origin for part in shown.parts] == ["system prompt", "tool search", "prompt"]


async def test_tools_that_come_and_go_change_the_room_for_messages() -> None:
    library = Library()
    agent = library.agent("token_window", {"max_tokens": 600}, store=MemoryStore(), tools=[])

    def wordy(query: str) -> str:
        return query

    wordy.__doc__ = "Look something up, " + "slowly and with care, " * 50
    many = Toolbox.of({"wordy": as_tool(wordy), "search": as_tool(search)})
    none = Toolbox.of({})
    sizes = []
    for number in range(24):
        thread = await agent.outfit.opened("books", "ann")
        run = await agent.outfit.made((UserMessage(text=question(1)),), thread, {})
        run.toolbox = many if 8 <= number < 16 else none
        async for _ in run.events():
            pass
        sizes.append(len(library.requests[-1].messages))
    definitions: Sequence[ToolDefinition] = many.definitions
    assert tools_tokens(definitions, SIMPLE) > 200
    assert all(counted(request) <= 600 and pairs_are_kept(request.messages) for request in library.requests)
    assert sizes[8] < sizes[7]
    assert sizes[23] > sizes[15]


class Book(TypedDict):
    title: str


async def test_answers_of_a_form_are_asked_for_again_within_the_window() -> None:
    library = Library()
    asked: list[Request] = []

    def answer(request: Request) -> Any:
        asked.append(request)
        repaired = "title" in request.messages[-1].text and request.messages[-1].role == "user"
        return library.whole(request, TextPart(text='{"title": "Emma"}' if repaired else '{"name": "Emma"}'))

    agent = library.agent(
        "token_window",
        {"max_tokens": 250},
        provider=OfflineProvider(function=answer),
        output=Book,
        tools=[],
    )
    for number in (1, 2, 4, 5, 7, 8, 10, 11):
        assert await agent.chat(question(number)) == {"title": "Emma"}
    assert len(asked) == 16
    assert all(counted(request) <= 250 for request in asked)
    for number, request in enumerate(asked):
        roles = [message.role for message in request.messages]
        assert roles[-3:] == ["user", "assistant", "user"] if number % 2 else roles[-1] == "user"
    assert library.dropped()


async def test_what_cannot_be_made_small_enough_ends_the_run_with_the_numbers() -> None:
    library = Library()
    call = ToolCall(id="a", name="search", arguments=f'{{"query": "{"why? " * 400}"}}')
    agent = library.agent("token_window", {"max_tokens": 300}, provider=OfflineProvider([call]))
    with pytest.raises(LimitExceeded, match=r"what must be sent takes [\d,]+ tokens, and at most 300 may be sent"):
        await agent.chat("Look it up.")


# --- counting ---


class Tally:
    """Counts words, and how often each text was counted."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}

    def count(self, text: str) -> int:
        self.calls[text] = self.calls.get(text, 0) + 1
        return len(text.split())


async def test_a_message_is_counted_once_over_four_hundred_turns() -> None:
    library, tally = Library(), Tally()
    agent = library.agent("token_window", {"max_tokens": 500, "counting": tally}, max_turns=3)
    for number in range(400):
        await agent.chat(question(number))
    said = {part.text for message in agent.history[:-1] for part in message.parts if isinstance(part, TextPart)}
    assert said <= set(tally.calls)
    own = {text: times for text, times in tally.calls.items() if text in said}
    assert set(own.values()) == {1}
    assert max(tally.calls.values()) <= 135, "calls and results with the same words are messages of their own"
    assert sum(tally.calls.values()) < 400 * 2 + 134 * 4 + 30


async def test_what_providers_report_corrects_the_estimate() -> None:
    library = Library(times=1.5)
    agent = library.agent("token_window", {"max_tokens": 900})
    for number in range(40):
        await agent.chat(question(number))
    late = library.requests[-20:]
    reported = [counted(request) * 1.5 for request in late]
    assert max(reported) <= 900 * 1.06
    assert max(reported) > 900 * 0.75
    assert max(counted(request) for request in library.requests[:25]) > 600
    events = library.overflows()
    assert all(event.tokens <= event.limit == 900 for _, event in events)
    correction = Correction()
    for request in library.requests:
        correction.learn("offline", "offline", counted(request), round(counted(request) * 1.5))
    assert correction.factor("offline", "offline") == pytest.approx(1.5, abs=0.02)


async def test_windows_that_count_exactly(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tables))
    from plait.counting import accurate

    counter = accurate("gpt-4o")
    sent: list[Request] = []

    def answer(request: Request) -> Any:
        sent.append(request)
        used = sum(message_tokens(message, counter) for message in request.messages)
        return Answer(AssistantMessage(text="Yes, this is so. " * 10), usage=Usage(input_tokens=used, output_tokens=9))

    provider = OfflineProvider(function=answer, model="gpt-4o")
    params = {"max_tokens": 400, "counting": "Accurate"}
    agent = Agent(role=ROLE, provider=provider, memory_strategy="token_window", memory_params=params)
    for number in range(30):
        await agent.chat(question(number))
    tokens = [sum(message_tokens(message, counter) for message in request.messages) for request in sent]
    assert 330 < max(tokens) <= 400


def test_combinations_that_cannot_be_are_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigurationError, match=r"max_tokens_per_message is 900 and max_tokens only 500"):
        Library().agent("simple", {"max_tokens": 500, "max_tokens_per_message": 900})
    with pytest.raises(ConfigurationError, match=r"take [\d,]+ tokens, and at most 64 may be sent: there is no room"):
        Library().agent("token_window", {"max_tokens": 64})


def test_entries_of_a_trimmed_thread_are_messages() -> None:
    library = Library()
    agent = library.agent("last_n", {"n": 2}, store=MemoryStore())
    for number in range(4):
        agent.run_sync(question(number), thread="books")
    log = agent.log_sync("books")
    assert sum(isinstance(entry.body, MessageEntry) for entry in log) == 4 + len(library.requests)


async def test_a_message_that_is_said_again_and_again_is_hidden_where_it_was_said() -> None:
    store = MemoryStore()
    go_on = UserMessage(text="continue please, with all that belongs to it " * 4)
    library = Library()
    agent = library.agent("summary_dropping", {"max_tokens": 900}, store=store)
    for _ in range(30):
        await agent.chat(go_on, thread="books")
    log = await agent.log("books")
    notes = [entry.body for entry in log if isinstance(entry.body, ContextNote)]
    assert len(notes) > 1
    assert all(note.first == notes[0].first < note.last for note in notes)
    assert [note.last for note in notes] == sorted({note.last for note in notes})
    before = library.requests[-1].messages
    again = library.agent("summary_dropping", {"max_tokens": 900}, store=store)
    await again.chat("and now?", thread="books")
    kept = [message.text for message in library.requests[-1].messages if message.role == "assistant"]
    assert (
        kept[: len(kept) - 1] == [message.text for message in before if message.role == "assistant"][-len(kept) + 1 :]
    )


async def test_a_summary_of_more_than_one_request_holds_is_made_in_rounds() -> None:
    told: list[str] = []

    def answer(request: Request) -> str:
        if request.messages[0].text.startswith("Below is a part"):
            told.append(request.messages[1].text)
            return f"summary {len(told)}"
        return "fine"

    history: list[Any] = []
    for number in range(60):
        history += [UserMessage(text=f"fact {number}: " + "some words " * 120), AssistantMessage(text="fine")]
    agent = Agent(
        provider=OfflineProvider(function=answer), memory_strategy=ContextWindow(max_tokens=5_000, dropping="summary")
    )
    await agent.run([*history, UserMessage(text="and now?")])
    facts = [int(number) for text in told for number in re.findall(r"fact (\d+):", text)]
    assert facts == list(range(len(facts)))
    assert len(told) > 1
    assert all(f'"earlier_summary":"summary {n}"' in text for n, text in enumerate(told[1:], 1))


async def test_a_provider_s_own_error_in_a_summary_ends_no_run() -> None:
    def answer(request: Request) -> str:
        if request.messages[0].text.startswith("Below is a part"):
            msg = "boom"
            raise RuntimeError(msg)
        return "fine " * 60

    agent = Agent(
        provider=OfflineProvider(function=answer), memory_strategy=ContextWindow(max_tokens=900, dropping="summary")
    )
    for number in range(12):
        assert (await agent.run(f"{number} " + "word " * 60)).stop_reason == "response"
        assert await agent.chat(f"{number} " + "word " * 60) == "fine " * 60


async def test_a_summary_is_marked_where_texts_of_others_are() -> None:
    library = Library()
    agent = library.agent(
        "summary_dropping", {"max_tokens": 1_200}, store=MemoryStore(), guardrails=Guardrails(mark_untrusted=True)
    )
    for number in range(16):
        await agent.chat(question(number), thread="books")
    sent = [one.text for request in library.requests for one in request.messages if SUMMARY in one.metadata]
    assert sent
    assert all('<untrusted source="summary"' in text for text in sent)
