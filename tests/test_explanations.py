"""What is told of a run's first request is what is sent, byte for byte, and nobody is asked for it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from plait import (
    Agent,
    Budget,
    ConfigurationError,
    FilePart,
    InputCheck,
    LimitExceeded,
    MemoryStore,
    OfflineProvider,
    OutputInvalid,
    Settings,
    StopSignal,
    SystemMessage,
    Veto,
    get_memory_strategy,
    open_store,
)
from plait.guardrails.guarding import Guardrails
from plait.testing import FaultServer, answer, tool_calls
from plait.testing.dialects import DIALECTS
from test_windows import ROLE, STRATEGIES, Book, Library, question, search

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from plait import BeforeRequest, Entry, Explanation, PrefixChanged
    from plait.store.base import Lease
    from plait.testing.reply import Asked, DialectName, Reply

MODELS: Final[dict[DialectName, str]] = {
    "chat": "openai:gpt-4o",
    "responses": "openai-responses:gpt-4o",
    "anthropic": "anthropic:claude-sonnet-4-5",
    "ollama": "ollama:llama3.2",
}
KEY: Final = "sk-very-secret-1234"


def agent_at(server: FaultServer, dialect: DialectName, **options: Any) -> Agent[Any, Any]:
    key = None if dialect == "ollama" else KEY
    url = server.url_for(dialect)
    options = {"role": ROLE, "tools": [search], "store": MemoryStore(), **options}
    return Agent(provider=MODELS[dialect], api_key=key, base_url=url, **options)


def replies(number: int, said: str = "It is so, as far as this is known. " * 5) -> Callable[[Asked], Reply]:
    """Look every third question up, and give summaries when they are asked for, which comes without tools."""
    script = iter([tool_calls("search", {"query": f"book {number}"})] if number % 3 == 0 else [])
    return lambda asked: next(script, answer(said)) if asked.tools else answer("They looked for books.")


WINDOWS: Final[dict[str, dict[str, Any]]] = {
    "no window": {},
    **{name: {"memory_strategy": one, "memory_params": params} for name, (one, params) in STRATEGIES.items()},
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
async def test_it_is_what_is_sent_byte_for_byte(dialect: DialectName, window: dict[str, Any]) -> None:
    with FaultServer() as server:
        agent = agent_at(server, dialect, settings=Settings(max_tokens=99), temperature=0.5, **window)
        shown_all: list[Explanation] = []
        for number in range(18):
            shown = await agent.explain(question(number), thread="trip")
            before = len(server.exchanges)
            server.play(replies(number))
            await agent.run(question(number), thread="trip")
            sent = [one for one in server.exchanges[before:] if b"Answer with the summary alone" not in one.raw]
            summaries = len(server.exchanges) - before - len(sent)
            assert b"Answer with the summary alone" not in shown.body
            if not summaries:
                assert shown.body == sent[0].raw
                shown_all.append(shown)
            assert shown.json["model"] == agent.provider.model
            assert shown.url == f"http://127.0.0.1:{server.port}{sent[0].path}"
            told = {name: value for name, value in shown.headers.items() if value != "***"}
            assert told.items() <= sent[0].headers.items()
            assert (KEY in str(shown), KEY in repr(shown.headers)) == (False, False)
        assert len(shown_all) >= 7


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_it_is_what_is_sent_for_an_answer_of_a_form_and_with_a_system_text_of_the_prompt_s_own(
    dialect: DialectName,
) -> None:
    with FaultServer(answer('{"title": "Emma"}')) as server:
        agent = agent_at(
            server, dialect, output=Book, memory_strategy="token_window", memory_params={"max_tokens": 300}
        )
        for number in range(8):
            prompt = [SystemMessage(text=f"It is day {number}."), {"role": "user", "content": question(number)}]
            shown = await agent.explain(prompt, thread="trip")
            before = len(server.exchanges)
            try:
                await agent.run(prompt, thread="trip")
            except OutputInvalid:  # where the form is a tool's, and the answer is text
                assert dialect == "anthropic"
            assert shown.body == server.exchanges[before].raw
            assert [part.what for part in shown.parts].count("output type") == 1
            assert shown.parts[-1].excerpt.startswith(f"Question {number}")


@pytest.mark.parametrize("url", [None, "file"])
async def test_it_is_what_another_process_would_send(url: str | None, tmp_path: Path) -> None:
    """One agent goes on with the thread; the explanation of another one, which had it open before, is up to date."""
    library = Library()
    store = MemoryStore() if url is None else open_store(f"sqlite:///{tmp_path / 'shared.db'}")
    one, other = (library.agent("token_window", {"max_tokens": 600}, store=store) for _ in range(2))
    for number in range(9):
        shown = await one.explain(question(number), thread="trip")
        await (other if number % 2 else one).run(question(number), thread="trip")
        whole = await other.explain("And?", thread="trip")
        assert (await one.explain("And?", thread="trip")).body == whole.body
        texts = [message.text for message in library.requests[-1].messages]
        assert shown.json["messages"][-1]["parts"][0]["text"] == question(number) in texts
    await store.close()


async def test_it_is_what_is_sent_after_a_stop() -> None:
    library, signal = Library(), StopSignal()
    agent = library.agent(
        "token_window", {"max_tokens": 400}, store=MemoryStore(), provider=OfflineProvider(function=library.answer)
    )
    async for event in (run := agent.run(question(1), thread="trip", stop=signal)):
        if hasattr(event, "text"):
            signal.set()
    assert (await run).stop_reason == "user_stop"
    shown = await agent.explain("Go on.", thread="trip")
    await agent.run("Go on.", thread="trip")
    assert [part.what for part in shown.parts] == ["system", "tool", "user", "assistant", "user"]
    assert [message["role"] for message in shown.json["messages"]] == [
        message.role for message in library.requests[-1].messages
    ]


class Watched(MemoryStore):
    """A store that nobody may write to."""

    __slots__ = ("written",)

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    async def append(self, thread_id: str, entries: Sequence[Entry], *, lease: Lease | None = None) -> None:
        self.written.append("append")
        await super().append(thread_id, entries, lease=lease)

    async def thread(self, name: str, user_id: str = "default") -> Any:
        self.written.append("thread")
        return await super().thread(name, user_id)


async def test_nobody_is_asked_and_nothing_is_written(tmp_path: Path) -> None:
    asked: list[object] = []

    def note(event: object) -> str:
        asked.append(event)
        return "no"

    def refuse(event: InputCheck) -> Veto:
        asked.append(event)
        return Veto(reason="no")

    store = Watched()
    agent: Agent[Any, Any] = Agent(
        role=ROLE,
        provider=OfflineProvider(function=note),
        tools=[search],
        store=store,
        hooks=dict.fromkeys(("on_before_request", "on_message_dropped", "on_context_overflow"), note)
        | {"on_prefix_changed": note},
        guardrails=Guardrails(input=[refuse]),
        judge_provider=OfflineProvider(function=note),
        mcp_servers={"none": [str(tmp_path / "is not there")]},
        budget=Budget(max_tokens=1),
        memory_strategy=get_memory_strategy("summary_dropping", max_tokens=600),
    )
    library = Library()
    filling = library.agent("last_n", {"n": 100}, store=store)
    for number in range(10):
        await filling.chat(question(number), thread="trip")
    before = [entry.n for entry in await filling.log("trip")]
    store.written.clear()
    shown = await agent.explain("And now?", thread="trip")
    await agent.explain("And now?", thread="trip")
    await agent.explain("And now?")
    await agent.explain("And now?", thread="another")
    assert asked == []
    assert "append" not in store.written
    assert await store.find("another") is None
    assert [entry.n for entry in await filling.log("trip")] == before
    assert [part.origin for part in shown.parts][:3] == ["system prompt", "context note", "context note"]
    assert "summary" not in {part.origin for part in shown.parts}


async def test_it_leaves_the_next_run_as_it_would_have_been() -> None:
    """What would be left out or cut is told by hooks when it is, and not before."""
    plain, looked = Library(), Library()
    one = plain.agent(*STRATEGIES["simple"], store=MemoryStore())
    other = looked.agent(*STRATEGIES["simple"], store=MemoryStore())
    for number in range(12):
        for _ in range(2):
            await other.explain(question(number) * 3, thread="trip")
        await one.run(question(number), thread="trip")
        await other.run(question(number), thread="trip")
    assert [request.messages for request in looked.requests] == [request.messages for request in plain.requests]
    assert len(looked.told) == len(plain.told) > 0
    assert [at for at, _ in looked.told] == [at for at, _ in plain.told]


async def test_each_part_says_where_it_comes_from_and_what_it_takes() -> None:
    library = Library()
    store = MemoryStore()
    params = {"max_tokens": 700, "max_tokens_per_message": 100}
    prices = {"offline": {"input": 2, "output": 10}}
    agent = library.agent("summary_dropping", params, store=store, prices=prices, output=Book, max_tokens=50, hooks={})
    filling = library.agent("summary_dropping", params, store=store)
    for number in range(13):
        await filling.chat(question(number), thread="trip")
    shown = await agent.explain("Where was I? " * 100, thread="trip")
    log = await filling.log("trip")
    kept = [entry for entry in log if entry.n and "message" in getattr(entry.body, "__struct_fields__", ())]
    assert [(part.origin, part.what) for part in shown.parts] == [
        ("system prompt", "system"),
        ("context note", "system"),
        ("context note", "system"),
        ("tool search", "tool"),
        ("output type Book", "output type"),
        ("summary", "user"),
        *((f"thread 'trip', entry {number}", what) for number, what in numbers(log, shown)),
        ("prompt, in part", "user"),
        ("setting max_tokens", "setting"),
    ]
    assert len(kept) > len(shown.parts) - 8
    assert shown.tokens == sum(part.tokens for part in shown.parts) <= 700
    assert (shown.max_tokens, shown.url, shown.model) == (50, "", "offline")
    assert shown.price == pytest.approx(shown.tokens * 2e-6)
    assert shown.highest_price == pytest.approx(shown.tokens * 2e-6 + 50 * 1e-5)
    lines = str(shown).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0] == f"offline:offline  nothing is sent  {len(shown.body):,} bytes"
    assert lines[-2].split() == [str(shown.tokens), "in", "all,", "by", "an", "estimate:", f"${shown.price:.6f}"]
    assert any("prompt, in part" in line and "Where was I?" in line for line in lines)


def numbers(log: Sequence[Entry], shown: Explanation) -> list[tuple[str, str]]:
    """The entries that are sent, by their numbers; a result that was cut says so."""
    found = []
    for part in shown.parts:
        if part.origin.startswith("thread "):
            number = part.origin.removeprefix("thread 'trip', entry ")
            body = log[int(number.removesuffix(", in part")) - 1].body
            role = "tool" if hasattr(body, "result") else body.message.role  # type: ignore[union-attr]
            assert part.what.partition(":")[0] == role
            assert (part.tokens <= 100) or not number.endswith("in part")
            found.append((number, part.what))
    assert found
    assert any(number.endswith(", in part") for number, _ in found)
    return found


def test_sync_callers_are_told_the_same() -> None:
    agent = Library().agent("last_n", {"n": 4})
    shown = agent.explain_sync("Well?")
    assert [part.origin for part in shown.parts] == ["system prompt", "tool search", "prompt"]


@pytest.mark.parametrize("prompt", ["", "  ", [], [{"role": "assistant", "content": "I"}], 3, [{"role": "user"}, 4]])
async def test_what_is_no_prompt_is_refused(prompt: Any) -> None:
    with pytest.raises(ConfigurationError):
        await Library().agent("last_n", {"n": 4}).explain(prompt)


async def test_what_could_not_be_sent_cannot_be_explained() -> None:
    agent = Library().agent("token_window", {"max_tokens": 200})
    with pytest.raises(LimitExceeded, match="what must be sent takes"):
        await agent.explain([SystemMessage(text="Mind this. " * 200), {"role": "user", "content": "Well?"}])
    agent = Agent(provider="ollama:llama3.2", base_url="http://127.0.0.1:9")
    with pytest.raises(ConfigurationError, match="file"):
        await agent.explain(["Look.", FilePart(file_id="file-1")])


# --- prefixes ---


@dataclass
class Changes:
    """Hears of changed prefixes."""

    told: list[PrefixChanged] = field(default_factory=list)

    def hook(self, event: PrefixChanged) -> None:
        self.told.append(event)


def parting(one: bytes, other: bytes) -> int:
    return next(at for at in range(len(one)) if other[at : at + 1] != one[at : at + 1])


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("output", [None, Book], ids=["text", "form"])
async def test_a_thread_within_its_window_never_changes_its_prefix(
    dialect: DialectName, output: type[Book] | None
) -> None:
    changes = Changes()
    said = "It is so. " * 5 if output is None else '{"title": "Emma"}'
    with FaultServer() as server:
        window = {"memory_strategy": "token_window", "memory_params": {"max_tokens": 50_000}}
        agent = agent_at(server, dialect, output=output, hooks={"on_prefix_changed": changes.hook}, **window)
        for number in range(30):
            server.play(replies(number, said))
            try:
                await agent.run(question(number), thread="trip")
            except OutputInvalid:
                assert (dialect, output) == ("anthropic", Book)
        assert len(server.exchanges) >= 40
    assert changes.told == []


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_the_byte_at_which_a_trimmed_thread_parts_is_named(dialect: DialectName) -> None:
    changes = Changes()
    with FaultServer() as server:
        window = {"memory_strategy": get_memory_strategy("token_window", max_tokens=600)}
        agent = agent_at(server, dialect, hooks={"on_prefix_changed": changes.hook}, **window)
        found = []
        for number in range(14):
            server.play(replies(number))
            told = len(changes.told)
            before = len(server.exchanges)
            await agent.run(question(number), thread="trip")
            if len(changes.told) > told and changes.told[told].turn == 1:
                found.append((server.exchanges[before - 1].raw, server.exchanges[before].raw, changes.told[told]))
    assert len(found) > 3
    for one, other, event in found:
        assert (event.at, event.trimmed) == (parting(one, other), True)
        assert event.before != event.after
        assert event.context.agent_name == "Assistant"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_hook_that_changes_what_is_always_sent_is_found_out(dialect: DialectName) -> None:
    """A clock in the system text costs the whole prompt cache, and is nothing that trimming did."""
    changes = Changes()
    clock = iter(range(100, 200))

    def tell_time(event: BeforeRequest) -> Any:
        text = f"{event.request.messages[0].text} It is {next(clock)} o'clock."
        return replace(event.request, messages=[SystemMessage(text=text), *event.request.messages[1:]])

    with FaultServer("It is so.") as server:
        agent = agent_at(server, dialect, hooks={"on_prefix_changed": changes.hook, "on_before_request": tell_time})
        for number in (1, 2, 4):
            await agent.run(question(number), thread="trip")
        sent = [exchange.raw for exchange in server.exchanges]
    assert [(event.at, event.trimmed, event.turn) for event in changes.told] == [
        (parting(sent[0], sent[1]), False, 1),
        (parting(sent[1], sent[2]), False, 1),
    ]
    assert "100 o'clock" in changes.told[0].before
    assert "101 o'clock" in changes.told[0].after
