"""`MCPServer`, seen by the official SDK's client: in this process."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

import mcp_types as types
import pytest
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import ResourceUpdated, ToolsListChanged

from hosting import MODES, TIMEOUT, Meeting, Mode, a_model, a_person, add, client_of, greet, text, until
from plait import (
    Agent,
    AssistantMessage,
    AudioPart,
    ConfigurationError,
    FilePart,
    ImagePart,
    Message,
    OfflineProvider,
    RunContext,
    TextPart,
    Tool,
    ToolCall,
    ToolError,
    UserMessage,
)
from plait.mcp.server.content import to_content
from plait.mcp.server.server import MCPServer, mcp_host
from plait.mcp.server.turns import MAX_WAITING, Turns

if TYPE_CHECKING:
    from collections.abc import Callable

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# --- what is offered


class Shout(Tool):
    name = "shout"
    description = "Says it loud."
    idempotent = True

    async def execute(self, words: str) -> str:
        return words.upper()


@pytest.mark.parametrize("mode", MODES)
async def test_a_host_sees_each_tool_with_an_ordinary_schema(mode: Mode) -> None:
    server = MCPServer("sums", "Adds up.", tools=[add, Shout()], version="1.2", instructions="Add first.")
    async with client_of(server, mode) as client:
        assert client.server_info == types.Implementation(name="sums", description="Adds up.", version="1.2")
        assert client.instructions == "Add first."
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert text(await client.call_tool("add", {"first": 1})) == "3"
    assert {name: (tool.description, tool.input_schema) for name, tool in listed.items()} == {
        "add": (
            "Add two numbers.",
            {
                "type": "object",
                "properties": {
                    "first": {"type": "integer", "description": "the first number."},
                    "second": {"type": "integer", "description": "the second.", "default": 2},
                },
                "required": ["first"],
                "additionalProperties": False,
            },
        ),
        "shout": (
            "Says it loud.",
            {
                "type": "object",
                "properties": {"words": {"type": "string"}},
                "required": ["words"],
                "additionalProperties": False,
            },
        ),
    }
    assert listed["shout"].annotations == types.ToolAnnotations(idempotent_hint=True)
    assert listed["add"].annotations == types.ToolAnnotations(idempotent_hint=False)


async def test_a_tool_added_later_is_there_and_one_name_stands_for_one_tool() -> None:
    server = MCPServer("sums", tools=[add])
    async with client_of(server) as client:
        shout = server.add_tool(Shout())
        assert [tool.name for tool in (await client.list_tools()).tools] == ["add", "shout"]
        assert text(await client.call_tool("shout", {"words": "ho"})) == "HO"
    assert server.add_tool(shout) is shout  # the same again is no second one
    with pytest.raises(ConfigurationError, match="another tool named 'shout'"):
        server.add_tool(Shout())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MCPServer(" "), "needs a name"),
        (lambda: MCPServer("x", tools=["no_such_tool"]), "there is no tool 'no_such_tool'"),
        (lambda: MCPServer("x", tools=[add, {"name": "add", "func": lambda: 0}]), "two tools are named 'add'"),
        (lambda: MCPServer("x", token=""), "token must be"),
        (lambda: MCPServer("x", at_once=0), "at_once must be"),
        (lambda: MCPServer("x", allowed_hosts="example.com"), r"allowed_hosts=\['example.com'\]"),
        (lambda: MCPServer("x").run(transport="carrier pigeon"), "there is no transport 'carrier pigeon'"),  # type: ignore[arg-type]  # the point
        (lambda: MCPServer("x").run("http", host="0.0.0.0", port=0), "everybody .* could call .* open_to_all=True"),  # noqa: S104  # refused
        (
            lambda: MCPServer("x", allowed_hosts=["example.com"]).run("http", host="", port=0),
            "everybody .* could call",
        ),
        (lambda: MCPServer("x").run("http", port=99_999), "port must be a whole number from 0, .* not 99999"),
        (lambda: MCPServer("x").run("http", port=-1), "port must be a whole number from 0, .* not -1"),
        (lambda: MCPServer("x").run("http", port="8000"), "port must be a whole number from 0, .* not '8000'"),  # type: ignore[arg-type]  # the point
        (lambda: MCPServer("x").run("http", host=None), "host must be an address .* not None"),  # type: ignore[arg-type]  # the point
        (lambda: MCPServer("x").run("http", path="mcp"), "path must begin with a slash, .* not be 'mcp'"),
        (lambda: MCPServer("x").run("http", host="\0"), r"host must be an address .* not '\\x00'"),
        (lambda: MCPServer("x").run("http", host="a" * 70), "host must be an address .* not 'aaaa"),
        (lambda: MCPServer("x").resource("a://{b")(add), "no template of addresses"),
        (lambda: MCPServer("x").resource("a://{c}")(add), "do not agree about: c, first"),
    ],
)
def test_what_cannot_be_is_refused_at_once(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        make()


def test_importing_it_loads_neither_the_sdk_nor_a_web_server() -> None:
    program = (
        "import sys; from plait import MCPServer; MCPServer('x', tools=[{'name': 'y', 'func': lambda: 0}]); "
        "print(sorted({'mcp', 'mcp_types', 'starlette', 'uvicorn', 'anyio', 'aiohttp'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


# --- calls


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("value", "content", "structured"),
    [
        ("plain", types.TextContent(text="plain"), None),
        ({"a": [1]}, types.TextContent(text='{"a":[1]}'), {"a": [1]}),
        ([1, 2], types.TextContent(text="[1,2]"), None),
        ("{not json", types.TextContent(text="{not json"), None),
        (PNG, types.ImageContent(data=b64(PNG), mime_type="image/png"), None),
        (AudioPart(data=b"RIFF"), types.AudioContent(data=b64(b"RIFF"), mime_type="audio/wav"), None),
        (
            FilePart(data=b"hi", url="note://1", media_type="text/plain"),
            types.EmbeddedResource(
                resource=types.TextResourceContents(uri="note://1", mime_type="text/plain", text="hi")
            ),
            None,
        ),
        (
            FilePart(data=b"\xff\xfe", name="my file", media_type="text/plain"),
            types.EmbeddedResource(
                resource=types.BlobResourceContents(
                    uri="attachment:my%20file", mime_type="text/plain", blob=b64(b"\xff\xfe")
                )
            ),
            None,
        ),
        (
            ImagePart(url="https://example.com/a.png"),
            types.ResourceLink(uri="https://example.com/a.png", name="image", mime_type="image/png"),
            None,
        ),
        (
            FilePart(url="https://example.com/a.pdf", name="a"),
            types.ResourceLink(uri="https://example.com/a.pdf", name="a", mime_type="application/pdf"),
            None,
        ),
    ],
)
async def test_every_kind_of_result_arrives(
    mode: Mode, value: object, content: types.ContentBlock, structured: object
) -> None:
    server = MCPServer("values", tools=[{"name": "give", "func": lambda: value}])
    async with client_of(server, mode) as client:
        result = await client.call_tool("give")
    assert (result.content, result.structured_content, result.is_error) == ([content], structured, False)


async def test_what_goes_wrong_is_an_error_result_without_a_trace() -> None:
    def fail() -> None:
        msg = "no entry with key=sk-abcdefghijklmnop"
        raise RuntimeError(msg)

    server = MCPServer("sums", tools=[add, fail, {"name": "lost", "func": lambda: FilePart(file_id="f")}])
    async with client_of(server) as client:
        results = [
            await client.call_tool("add", {"first": "one"}),
            await client.call_tool("fail"),
            await client.call_tool("lost"),
        ]
        with pytest.raises(MCPError, match="there is no tool 'ad'; the tools are: add") as unknown:
            await client.call_tool("ad", {})
    assert [result.is_error for result in results] == [True] * 3
    assert "first" in text(results[0])
    assert text(results[1]) == "RuntimeError: no entry with key=***"
    assert "without data or url" in text(results[2])
    assert unknown.value.code == types.INVALID_PARAMS


async def test_tools_get_what_the_server_was_given_and_never_from_the_host() -> None:
    seen: list[tuple[object, str, str, str]] = []

    def who(context: RunContext[dict[str, int]], user_id: str, thread_id: str) -> str:
        seen.append((context.deps, user_id, thread_id, context.run_id))
        return context.tool_call_id

    server = MCPServer("who", tools=[who], deps={"a": 1}, user_id="anna")
    async with client_of(server) as client:
        assert (await client.list_tools()).tools[0].input_schema.get("properties") == {}
        calls = [
            await client.call_tool("who", told) for told in ({}, {"user_id": "eve", "thread_id": "t", "context": 1})
        ]
    (deps, user, thread, run), again = seen
    assert (deps, user, again[:3]) == ({"a": 1}, "anna", (deps, user, thread))
    assert thread.startswith("thr_")
    assert run != again[3]
    assert text(calls[0]) != text(calls[1])


async def test_calls_run_at_the_same_time_up_to_a_number() -> None:
    meeting = Meeting()
    server = MCPServer("meeting", tools=[meeting.wait], at_once=3)
    async with client_of(server) as client, asyncio.TaskGroup() as group:
        calls = [group.create_task(client.call_tool("wait", {"name": str(n)})) for n in range(7)]
        await until(lambda: meeting.inside == 3)
        meeting.go.set()
    assert [text(call.result()) for call in calls] == list("0123456")
    assert meeting.most == 3


@pytest.mark.fault("S17")
async def test_so_many_calls_wait_and_no_more() -> None:
    turns = Turns(1)

    async def take() -> None:
        async with turns.take():
            pass

    async with turns.take():
        waiting = [asyncio.create_task(take()) for _ in range(MAX_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(ToolError, match="the server is busy: 1,000 calls wait"):
            await take()
    await asyncio.gather(*waiting)
    await take()


async def test_a_turn_that_is_given_up_is_another_ones() -> None:
    turns, order = Turns(1), list[str]()

    async def take(name: str, *, alone: bool = False) -> None:
        async with turns.take(alone=alone):
            order.append(name)

    async with turns.take():
        one, two, three = (
            asyncio.create_task(take(name, alone=alone)) for name, alone in (("1", True), ("2", False), ("3", False))
        )
        await asyncio.sleep(0)
        one.cancel()  # it is still in the line, and does not know yet
    two.cancel()  # it was let in just now, and does not know yet
    await asyncio.wait((one, two, three), timeout=TIMEOUT)
    await take("4", alone=True)
    assert (one.cancelled(), two.cancelled(), order) == (True, True, ["3", "4"])


async def test_an_exclusive_tool_is_alone_and_nobody_overtakes_it() -> None:
    meeting = Meeting()
    inside: list[int] = []

    async def alone() -> None:
        inside.append(meeting.inside)
        await asyncio.sleep(0)
        inside.append(meeting.inside)

    server = MCPServer("meeting", tools=[meeting.wait, {"name": "alone", "func": alone, "exclusive": True}])
    async with client_of(server) as client, asyncio.TaskGroup() as group:
        group.create_task(client.call_tool("wait", {"name": "first"}))
        await until(lambda: meeting.inside == 1)
        group.create_task(client.call_tool("alone"))
        group.create_task(client.call_tool("wait", {"name": "second"}))
        await client.list_tools()  # all three are there
        assert meeting.inside == 1
        meeting.go.set()
    assert inside == [0, 0]
    assert meeting.ended == ["first", "second"]


@pytest.mark.fault("S17")
async def test_one_host_of_several_has_half_of_the_turns_and_of_the_line() -> None:
    turns, inside, go = Turns(4, shared=True), list[str](), asyncio.Event()

    async def take(whose: str) -> None:
        async with turns.take(whose):
            inside.append(whose)
            await go.wait()

    calls = [asyncio.create_task(take("a")) for _ in range(2 + MAX_WAITING // 2)]
    await asyncio.sleep(0)
    with pytest.raises(ToolError, match="the server is busy: 500 calls wait"):
        await asyncio.wait_for(take("a"), TIMEOUT)
    calls += [asyncio.create_task(take(whose)) for whose in "bcd"]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert inside == ["a", "a", "b", "c"]
    go.set()
    await asyncio.gather(*calls)
    assert len(inside) == len(calls)


async def test_a_tool_that_asks_its_host_gives_its_turn_away_meanwhile() -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def person(_: object, __: object) -> types.ElicitResult:
        asked.set()
        await answer.wait()
        return types.ElicitResult(action="decline")

    server = MCPServer("greeter", tools=[greet, add], at_once=1)
    async with client_of(server, elicitation_callback=person) as client, asyncio.TaskGroup() as group:
        asking = group.create_task(client.call_tool("greet"))
        async with asyncio.timeout(TIMEOUT):
            await asked.wait()
        assert text(await client.call_tool("add", {"first": 1})) == "3"
        answer.set()
        assert text(await asking) == "decline"


async def test_a_turn_that_is_given_back_is_had_again_before_others() -> None:
    turns, order, first = Turns(1), list[str](), asyncio.Event()

    async def take(name: str) -> None:
        async with turns.take():
            order.append(name)
            first.set()
            await asyncio.sleep(0)

    async with turns.take() as turn:
        others = [asyncio.create_task(take(name)) for name in "ab"]
        with suppress(LookupError):
            async with turn.given_back():
                await first.wait()
                raise LookupError
        order.append("back")
    await asyncio.gather(*others)
    assert order == ["a", "back", "b"]
    async with turns.take(alone=True) as turn:
        other = asyncio.create_task(take("c"))
        async with turn.given_back():
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert order[-1] == "b"  # what is alone stays so
    await other


async def test_a_call_that_is_cancelled_while_its_turn_is_given_back_ends_at_once() -> None:
    turns, begun = Turns(1), asyncio.Event()

    async def ask() -> None:
        async with turns.take() as turn, turn.given_back():
            begun.set()
            await asyncio.Event().wait()

    asking = asyncio.create_task(ask())
    await begun.wait()
    async with turns.take():  # it could not have its turn again
        asking.cancel()
        await asyncio.wait((asking,), timeout=TIMEOUT)
    assert asking.cancelled()
    async with asyncio.timeout(TIMEOUT), turns.take():
        pass


async def test_an_exclusive_tool_holds_up_no_reading() -> None:
    meeting = Meeting()
    server = library()
    server.add_tool({"name": "alone", "func": meeting.wait, "exclusive": True})
    async with client_of(server) as client, asyncio.TaskGroup() as group:
        group.create_task(client.call_tool("alone", {"name": "x"}))
        await until(lambda: meeting.inside == 1)
        assert (await client.read_resource("cover://")).contents
        assert (await client.get_prompt("review", {"book": "Emma"})).messages
        assert meeting.inside == 1
        meeting.go.set()


@pytest.mark.parametrize("mode", MODES)
async def test_a_call_that_is_cancelled_ends_and_so_does_what_it_started(mode: Mode) -> None:
    meeting = Meeting()

    async def begin() -> str:
        beside = asyncio.create_task(meeting.wait("beside"))
        try:
            return await meeting.wait("call") + await beside
        finally:
            await asyncio.sleep(0)  # cleaning up may wait

    server = MCPServer("meeting", tools=[begin])
    async with client_of(server, mode) as client:
        call = asyncio.create_task(client.call_tool("begin"))
        await until(lambda: meeting.inside == 2)
        call.cancel()
        await until(lambda: meeting.inside == 0)
        with pytest.raises(asyncio.CancelledError):
            await call
        if mode == "legacy":  # over a connection, which is as good as before
            await client.list_tools()
    assert sorted(meeting.ended) == ["beside", "call"]


async def test_a_call_that_is_cancelled_while_it_waits_gives_its_turn_away() -> None:
    meeting = Meeting()
    server = MCPServer("meeting", tools=[meeting.wait], at_once=1)
    async with client_of(server) as client, asyncio.TaskGroup() as group:
        group.create_task(client.call_tool("wait", {"name": "first"}))
        await until(lambda: meeting.inside == 1)
        second = group.create_task(client.call_tool("wait", {"name": "second"}))
        third = group.create_task(client.call_tool("wait", {"name": "third"}))
        await client.list_tools()
        second.cancel()
        await client.list_tools()
        meeting.go.set()
        assert text(await third) == "third"
    assert meeting.ended == ["first", "third"]


async def test_the_end_of_a_connection_ends_its_calls() -> None:
    meeting = Meeting()
    server = MCPServer("meeting", tools=[meeting.wait])
    async with client_of(server) as client:
        call = asyncio.create_task(client.call_tool("wait", {"name": "late"}))
        await until(lambda: meeting.inside == 1)
    assert meeting.ended == ["late"]
    with pytest.raises(MCPError):
        await call


# --- the host, asked by tools


@pytest.mark.parametrize("mode", MODES)
async def test_a_tool_asks_the_hosts_person_and_model(mode: Mode) -> None:
    server = MCPServer("greeter", tools=[greet])
    me = types.Implementation(name="host", version="1")
    options = {"elicitation_callback": a_person(name="Ann"), "sampling_callback": a_model, "client_info": me}
    async with client_of(server, mode, **options) as client:
        assert text(await client.call_tool("greet")) == "host, m-1: <Greet Ann>"


@pytest.mark.parametrize("mode", MODES)
async def test_a_host_that_cannot_be_asked_or_answers_wrongly_is_an_error_result(mode: Mode) -> None:
    server = MCPServer("greeter", tools=[greet])
    async with client_of(server, mode) as client:
        assert text(await client.call_tool("greet")).startswith("the MCP host has no person to ask")
    async with client_of(server, mode, elicitation_callback=a_person(age="7")) as client:
        result = await client.call_tool("greet")
    assert result.is_error
    assert text(result).startswith("what the person at the MCP host filled in does not fit the form")


async def test_a_host_that_refuses_to_ask_is_an_error_result() -> None:
    async def refuse(_: object, __: object) -> types.ErrorData:
        return types.ErrorData(code=-1, message="not now\nplease")

    async with client_of(MCPServer("greeter", tools=[greet]), elicitation_callback=refuse) as client:
        result = await client.call_tool("greet")
    assert (result.is_error, text(result)) == (True, "the MCP host did not ask the person: not now please")


@pytest.mark.parametrize(
    ("asked", "answered", "result"),
    [
        ([TextPart(text="a"), ImagePart(data=PNG)], types.TextContent(text="b"), TextPart(text="b")),
        ([AudioPart(data=b"w")], types.ImageContent(data=b64(PNG), mime_type="image/png"), ImagePart(data=PNG)),
        ([TextPart(text="a")], types.AudioContent(data=b64(b"w"), mime_type="audio/wav"), AudioPart(data=b"w")),
        ([TextPart(text="a")], types.ImageContent(data="?", mime_type="image/png"), "answered with 'image' whose data"),
        ([ImagePart(url="https://example.com")], types.TextContent(text="b"), "images and sound with their data"),
        (
            [FilePart(data=b"f")],
            types.TextContent(text="b"),
            "takes text, images and sound with their data, not 'file'",
        ),
    ],
)
async def test_what_a_model_is_asked_with_and_answers(asked: list[Any], answered: Any, result: object) -> None:
    async def ask() -> list[Any]:
        host = mcp_host()
        assert host is not None
        answer = await host.sample([UserMessage(parts=asked), AssistantMessage(text="so")])
        assert answer.model == "m"
        return list(answer.parts)

    async def sample(_: object, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        first, second = params.messages
        kinds = [block.type for block in first.content_as_list]
        assert (first.role, kinds) == ("user", [part.type for part in asked])
        assert (second.role, second.content) == ("assistant", types.TextContent(text="so"))
        return types.CreateMessageResult(role="assistant", content=answered, model="m")

    async with client_of(MCPServer("asker", tools=[ask]), sampling_callback=sample) as client:
        called = await client.call_tool("ask")
    if isinstance(result, str):
        assert called.is_error
        assert result in text(called)
    else:
        assert isinstance(result, TextPart | ImagePart | AudioPart)
        assert called.content == [to_content(result)]


async def test_a_model_is_not_asked_with_what_tools_say() -> None:
    async def ask() -> str:
        host = mcp_host()
        assert host is not None
        return (await host.sample([Message(role="system", text="Be kind.")])).text

    async with client_of(MCPServer("asker", tools=[ask]), sampling_callback=a_model) as client:
        assert "takes what users and assistants say, not 'system'" in text(await client.call_tool("ask"))


async def test_questions_have_an_end() -> None:
    async def curious() -> None:
        host = mcp_host()
        assert host is not None
        while True:
            await host.elicit("Who are you?", {"type": "object", "properties": {}})

    server = MCPServer("curious", tools=[curious])
    async with client_of(server, "auto", elicitation_callback=a_person(), input_required_max_rounds=50) as client:
        assert "more than 32 questions" in text(await client.call_tool("curious"))


async def test_a_person_may_say_no() -> None:
    async def decline(_: object, __: object) -> types.ElicitResult:
        return types.ElicitResult(action="decline")

    async with client_of(MCPServer("greeter", tools=[greet]), elicitation_callback=decline) as client:
        assert text(await client.call_tool("greet")) == "decline"


async def test_a_made_up_state_is_refused() -> None:
    async with client_of(MCPServer("greeter", tools=[greet]), "auto") as client:
        for state in ("{", "{}", "[" * 100_000):
            result = await client.session.call_tool("greet", {}, request_state=state, allow_input_required=True)
            assert isinstance(result, types.CallToolResult)
            assert text(result) == "the state that came with the call is not what the server gave"


async def test_progress_and_the_wanted_log_records_arrive_in_order() -> None:
    heard: list[object] = []

    async def work() -> str:
        host = mcp_host()
        assert host is not None
        for step in (1, 2):
            await host.log("detail", "debug")
            await host.report_progress(step, 2, f"step {step}")
            await host.log({"step": step}, "warning", logger="work")
        return "done"

    async def on_log(params: types.LoggingMessageNotificationParams) -> None:
        heard.append((params.level, params.data, params.logger))

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    async with client_of(MCPServer("worker", tools=[work]), logging_callback=on_log) as client:
        await client.session.send_request(
            types.SetLevelRequest(params=types.SetLevelRequestParams(level="info")), types.EmptyResult
        )
        assert text(await client.call_tool("work", progress_callback=on_progress)) == "done"
        await until(lambda: len(heard) == 4)
    assert heard == [
        (1, 2, "step 1"),
        ("warning", {"step": 1}, "work"),
        (2, 2, "step 2"),
        ("warning", {"step": 2}, "work"),
    ]


async def test_a_tool_in_a_thread_knows_its_host_and_elsewhere_there_is_none() -> None:
    def whose() -> str:
        host = mcp_host()
        return "nobody's" if host is None else host.name

    async with client_of(
        MCPServer("x", tools=[whose]), client_info=types.Implementation(name="h", version="1")
    ) as client:
        assert text(await client.call_tool("whose")) == "h"
    assert whose() == "nobody's"


async def test_an_agent_as_a_tool_and_its_own_tool_knows_the_host() -> None:
    async def work(step: int) -> str:
        host = mcp_host()
        assert host is not None
        await host.report_progress(step)
        return "worked"

    script: list[str | ToolCall] = [ToolCall(id="1", name="work", arguments='{"step": 7}'), "all is done"]
    helper = Agent(provider=OfflineProvider(script), tools=[work])

    async def ask_helper(task: str) -> str:
        return await helper.chat(task)

    heard: list[float] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append(progress)

    async with client_of(MCPServer("office", tools=[ask_helper])) as client:
        result = await client.call_tool("ask_helper", {"task": "work"}, progress_callback=on_progress)
        await until(lambda: bool(heard))
    assert (text(result), heard) == ("all is done", [7])


# --- prompts and resources


def library() -> MCPServer:
    server = MCPServer("library")

    @server.prompt
    def review(book: str, tone: Literal["kind", "keen", "stern"] = "kind") -> list[TextPart | ImagePart]:
        """Review a book.

        Args:
            book: its title.
            tone: how.
        """
        return [TextPart(text=f"Review {book}, {tone}."), ImagePart(data=PNG)]

    @server.resource("book://{title}/text", description="A book.", media_type="text/markdown")
    def book(title: str) -> str:
        if title == "missing":
            msg = "not on the shelf"
            raise LookupError(msg)
        return f"# {title}"

    @server.resource("cover://", name="cover")
    def cover() -> bytes:
        return PNG

    return server


async def test_prompts() -> None:
    async with client_of(library()) as client:
        (prompt,) = (await client.list_prompts()).prompts
        made = await client.get_prompt("review", {"book": "Emma"})
        with pytest.raises(MCPError, match="there is no prompt 'revue'"):
            await client.get_prompt("revue")
        with pytest.raises(MCPError, match="book") as wrong:
            await client.get_prompt("review", {})
        ref = types.PromptReference(name="review")
        completed = await client.complete(ref, {"name": "tone", "value": "k"})
    assert prompt == types.Prompt(
        name="review",
        description="Review a book.",
        arguments=[
            types.PromptArgument(name="book", description="its title.", required=True),
            types.PromptArgument(name="tone", description='how. (default: "kind")', required=False),
        ],
    )
    assert [(message.role, message.content) for message in made.messages] == [
        ("user", types.TextContent(text="Review Emma, kind.")),
        ("user", types.ImageContent(data=b64(PNG), mime_type="image/png")),
    ]
    assert wrong.value.code == types.INVALID_PARAMS
    assert completed.completion == types.Completion(values=["kind", "keen"], total=2, has_more=False)


async def test_resources() -> None:
    async with client_of(library()) as client:
        (resource,) = (await client.list_resources()).resources
        (template,) = (await client.list_resource_templates()).resource_templates
        assert (resource.uri, resource.name) == ("cover://", "cover")
        assert (template.uri_template, template.description) == ("book://{title}/text", "A book.")
        assert (await client.read_resource("book://War%20and%20Peace/text")).contents == [
            types.TextResourceContents(
                uri="book://War%20and%20Peace/text", mime_type="text/markdown", text="# War and Peace"
            )
        ]
        assert (await client.read_resource("cover://")).contents == [
            types.BlobResourceContents(uri="cover://", mime_type="image/png", blob=b64(PNG))
        ]
        for uri in ("book://..%2F..%2Fetc%2Fpasswd/text", "book://%2Fetc%2Fpasswd/text", "book://a%00/text", "x://"):
            with pytest.raises(MCPError, match="there is no such resource"):
                await client.read_resource(uri)
        with pytest.raises(MCPError, match="LookupError: not on the shelf"):
            await client.read_resource("book://missing/text")


async def test_prompts_and_resources_may_ask_too_and_what_has_no_form_is_an_error() -> None:
    server = MCPServer("library")

    @server.prompt
    @server.resource("card://")
    async def card() -> str:
        return await greet()

    @server.prompt
    @server.resource("link://")
    def link() -> FilePart:
        return FilePart(file_id="x")

    options = {"elicitation_callback": a_person(name="Ann"), "sampling_callback": a_model}
    for mode in MODES:
        async with client_of(server, mode, **options) as client:
            (message,) = (await client.get_prompt("card")).messages
            (content,) = (await client.read_resource("card://")).contents
            assert isinstance(message.content, types.TextContent)
            assert isinstance(content, types.TextResourceContents)
            assert message.content.text == content.text == "mcp, m-1: <Greet Ann>"
            for wrong in (client.get_prompt("link"), client.read_resource("link://")):
                with pytest.raises(MCPError, match="data"):
                    await wrong
    with pytest.raises(ConfigurationError, match="the server has another prompt named 'card'"):
        server.prompt(card)
    with pytest.raises(ConfigurationError, match="the server has another resource at 'card://'"):
        server.resource("card://")(card)


async def test_hosts_hear_of_new_tools_and_of_resources_they_subscribed_to() -> None:
    server, heard = library(), asyncio.Queue[str]()

    async def hear(message: object) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            heard.put_nowait("tools")
        elif isinstance(message, types.ResourceUpdatedNotification):
            heard.put_nowait(message.params.uri)

    async with client_of(server, message_handler=hear) as client, client_of(server) as deaf:
        capabilities = client.server_capabilities
        assert capabilities.tools == types.ToolsCapability(list_changed=True)
        assert capabilities.resources == types.ResourcesCapability(list_changed=True, subscribe=True)
        for one in (client, deaf):
            await one.list_tools()
        subscribe = types.SubscribeRequest(params=types.SubscribeRequestParams(uri="cover://"))
        await client.session.send_request(subscribe, types.EmptyResult)
        for uri in ("other://", "cover://"):
            await server.resource_updated(uri)
        server.add_tool(add)
        await server.list_changed()
        async with asyncio.timeout(TIMEOUT):
            assert [await heard.get(), await heard.get()] == ["cover://", "tools"]
        unsubscribe = types.UnsubscribeRequest(params=types.UnsubscribeRequestParams(uri="cover://"))
        await client.session.send_request(unsubscribe, types.EmptyResult)
        await server.resource_updated("cover://")
        await client.list_tools()
    assert heard.empty()
    await server.list_changed("prompts")  # nobody is there


async def test_hosts_of_new_versions_hear_of_what_they_listen_for() -> None:
    server = library()
    async with client_of(server, "auto") as client:
        listening = client.listen(tools_list_changed=True, resource_subscriptions=["cover://"])
        async with asyncio.timeout(TIMEOUT), listening as changes:
            await server.list_changed("prompts")
            await server.resource_updated("cover://")
            await server.list_changed("tools")
            assert [await anext(changes), await anext(changes)] == [ResourceUpdated("cover://"), ToolsListChanged()]
