"""Tools that return what is no JSON, too much, or change what they were given."""

from __future__ import annotations

import dataclasses
import json
import re
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, model_serializer

from faults.aftermath import (
    HOWS,
    KEY,
    agent_with,
    ask,
    assert_goes_on,
    calls,
    nothing_left,
    stored,
    timed,
)
from plait import (
    MemoryStore,
    RunContext,
    Secret,
    ToolResult,
    history,
)
from plait.entries import ToolEnd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# --- T05: no JSON -----------------------------------------------------------------------------------------------------


class Model(BaseModel):
    name: str = "m"
    number: float = 1.5


class Liar(BaseModel):
    @model_serializer
    def lie(self) -> dict[str, Any]:
        msg = f"never {KEY}"
        raise ValueError(msg)


class Cyclic(BaseModel):
    inner: Any = None


@dataclasses.dataclass
class Point:
    x: int = 1


class Dear(str):
    """Text that lies about its length."""

    __slots__ = ()

    def __len__(self) -> int:
        return 3


class Sly(dict[str, Any]):
    def items(self) -> Any:
        msg = "no items today"
        raise RuntimeError(msg)


class Endless(list[int]):
    def __iter__(self) -> Iterator[int]:
        n = 0
        while True:
            yield (n := n + 1)


def cycle() -> list[Any]:
    made: list[Any] = []
    made.append({"self": made})
    return made


def cyclic_model() -> Cyclic:
    made = Cyclic()
    made.inner = [made]
    return made


def nested(depth: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


RETURNED: list[tuple[Callable[[], Any], str]] = [
    (lambda: float("nan"), "ERROR .*nan, which has no form in JSON.*"),
    (lambda: {"a": [1, float("-inf")]}, r"ERROR the result\.a\[1\] is the number -inf.*"),
    (lambda: {3, 1, 2}, r"\[1,2,3\]"),
    (lambda: {"b", 1, None, ("x", 2)}, r'\["b",1,\["x",2\],null\]'),
    (lambda: b"plain", "plain"),
    (lambda: b"\xff\xfe\x00", "ERROR the tool returned 3 bytes of an unknown kind.*"),
    (lambda: {"raw": b"x"}, "ERROR the result.raw is of type bytes.*"),
    (cycle, "ERROR .* holds itself.*"),
    (cyclic_model, "ERROR .*"),
    (lambda: nested(100_000), "ERROR the result is nested too deeply.*"),
    (object, "ERROR the result is of type object.*"),
    (lambda: {"fine": 1, "x": object}, "ERROR the result.x is of type type.*"),
    (Model, r'\{"name":"m","number":1.5\}'),
    (lambda: [Model(number=float("nan"))], "ERROR .*|.*null.*"),
    (Liar, "ERROR .*(?<!sk-secret).*"),
    (Point, r'\{"x":1\}'),
    (lambda: Point, "ERROR the result is of type type.*"),
    (lambda: 10**5000, "ERROR the result is a number with too many digits"),
    (lambda: "\ud800", "\ud800"),
    (lambda: {"\ud800": "\udfff"}, ".*"),
    (lambda: "\x00", "\x00"),
    (lambda: {1: "a", None: "b", 2.5: "c", False: "d"}, ".*"),
    (lambda: {(1, 2): "a"}, "ERROR the result has a key of type tuple.*"),
    (lambda: (item for item in "abc"), "ERROR the result is of type generator.*|abc"),
    (lambda: Dear("x" * 100_000), r"x{50000}\n\[cut.*"),
    (lambda: Sly(a=1), "ERROR RuntimeError: no items today"),
    (lambda: Endless([1]), r"(?s)\[1,2,3,.*\[cut.*"),
    (threading.Lock, "ERROR the result is of type lock.*"),
    (lambda: ValueError("returned, not raised"), "ERROR the result is of type ValueError.*"),
    (lambda: Secret("hunter2-hunter2"), "ERROR the result is a Secret, which no model may see.*"),
    (lambda: timed, "ERROR the result is of type function.*"),
    (lambda: ToolResult(call_id="wrong", name="wrong", text="mine"), "mine"),
]


@pytest.mark.fault("T05")
@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize(("value", "said"), RETURNED)
async def test_a_result_has_a_stated_form_or_is_an_error(value: Callable[[], Any], said: str, kind: str) -> None:
    async def give() -> Any:
        return value()

    def give_in_a_thread() -> Any:
        return value()

    async with nothing_left(), stored() as store:
        agent = agent_with(give if kind == "async" else give_in_a_thread, store=store)
        text = await ask(agent, "chat", thread="t")
        assert re.fullmatch(said, text), text[:300]
        assert KEY not in text
        for entry in await agent.log("t"):
            if isinstance(entry.body, ToolEnd):
                assert entry.body.result.call_id == "call_0"
        await assert_goes_on(agent, "t")


# --- T06: too much ----------------------------------------------------------------------------------------------------

HUGE = 50_000_000


class Verbose:
    def __repr__(self) -> str:
        return "v" * HUGE


class Wide(BaseModel):
    items: list[int]


def huge_strings() -> Iterator[str]:
    for _ in range(HUGE // 1000):
        yield "y" * 1000


MUCH: list[tuple[Callable[[], Any], str]] = [
    (lambda: "x" * HUGE, r"x{50000}\n\[cut: only the first 50,000 characters are shown\]"),
    (lambda: ["x" * 50] * (HUGE // 50), r'\["x+",.*\n\[cut: only the first 50,000 characters are shown\]'),
    (lambda: {"a": "\x00" * HUGE}, r'\{"a":".*\n\[cut: only the first 50,000 characters are shown\]'),
    (lambda: b"x" * HUGE, r"x{50000}\n\[cut: only the first 50,000 characters are shown\]"),
    (lambda: b"\x89PNG\r\n\x1a\n" + b"x" * HUGE, "ERROR the tool returned 50,000,008 bytes of image/png; at most .*"),
    (lambda: "é" * (HUGE // 2), r"é{50000}\n\[cut.*"),
    (Verbose, "ERROR the result is of type Verbose.*"),
    (lambda: set(range(200_000)), r"\[.*\n\[cut: .*"),
    (lambda: Wide.model_construct(items=list(range(2_000_000))), r'\{"items":\[0,1,.*\n\[cut: .*'),
    (lambda: bytearray(HUGE), "\x00{50000}\n\\[cut.*"),
]


@pytest.mark.fault("T06")
@pytest.mark.parametrize(("value", "said"), MUCH)
async def test_a_huge_result_is_cut_and_says_so(value: Callable[[], Any], said: str) -> None:
    made = value()

    async def give() -> Any:
        return made

    agent = agent_with(give, store=MemoryStore())
    text = await ask(agent, "stream", thread="t")
    assert re.fullmatch(said, text, re.DOTALL), text[:200]
    log = await agent.log("t")
    assert all(len(entry.body.result.text) < 60_000 for entry in log if isinstance(entry.body, ToolEnd))
    await assert_goes_on(agent, "t")


@pytest.mark.fault("T06")
async def test_huge_pieces_and_huge_errors_are_cut_too() -> None:
    def fails() -> str:
        raise ValueError(Verbose())

    for function, said in ((huge_strings, r"y{50000}\n\[cut.*"), (fails, "ERROR ValueError: v+…")):
        agent = agent_with(function)
        text = await ask(agent, "chat")
        assert re.fullmatch(said, text), text[:200]
        await assert_goes_on(agent)


# --- T07: changes what it was given -----------------------------------------------------------------------------------


@pytest.mark.fault("T07")
async def test_what_a_tool_does_to_its_arguments_nobody_else_sees() -> None:
    seen: list[Any] = []

    def spoil(plan: dict[str, Any], steps: list[list[int]]) -> str:
        seen.append(json.dumps([plan, steps]))
        plan["to"].append("the moon")
        plan.clear()
        steps[0].clear()
        steps.append([9])
        return "spoilt"

    arguments = '{"plan": {"to": ["Lisbon"]}, "steps": [[1, 2], [3]]}'
    async with stored() as store:
        for how in HOWS:
            seen.clear()
            agent = agent_with(spoil, made=calls("spoil", 3, arguments), store=store)
            assert await ask(agent, how, thread=how) == "spoilt\nspoilt\nspoilt"
            assert seen == ['[{"to": ["Lisbon"]}, [[1, 2], [3]]]'] * 3
            made = [call for message in history(await agent.log(how)) for call in message.tool_calls]
            assert [call.arguments for call in made] == [arguments] * 3
            await assert_goes_on(agent, how)


@pytest.mark.fault("T07")
async def test_what_a_tool_does_to_its_context_nobody_else_sees() -> None:
    tried: list[str] = []

    def attempt(what: str, change: Callable[[], object]) -> None:
        with suppress(TypeError, AttributeError):
            change()
            tried.append(what)

    def spoil(context: RunContext[Any]) -> str:
        secrets: Any = context.secrets
        attempt("user", lambda: setattr(context, "user_id", "eve"))
        attempt("thread", lambda: setattr(context, "thread_id", "thr_other"))
        attempt("secret", lambda: secrets.__setitem__("token", Secret("mine-mine-mine")))
        attempt("secrets", lambda: secrets.clear())  # noqa: PLW0108  # it may have none
        return context.user_id

    def look(context: RunContext[Any]) -> str:
        return f"{context.user_id} {sorted(context.secrets)}"

    given = {"token": Secret("hunter2-hunter2")}
    agent = agent_with(spoil, look, made=[*calls("spoil"), *calls("look", 2)[1:]], sequential_tools=True)
    assert await ask(agent, "chat", secrets=given) == "default\ndefault ['token']"
    assert tried == []
    assert list(given) == ["token"]
    await assert_goes_on(agent)


@pytest.mark.fault("T07")
async def test_what_a_tool_or_hook_does_to_messages_nobody_else_sees() -> None:
    kept: list[Any] = []

    def spoil_request(event: Any) -> None:
        kept.extend(event.request.messages)
        event.request.messages.clear()
        for message in kept:
            with suppress(Exception):  # they are frozen
                message.parts.clear()
            with suppress(Exception):
                message.metadata["x"] = 1

    def quiet() -> str:
        return "done"

    agent = agent_with(quiet, hooks={"on_after_request": lambda event: kept.append(event.answer.message)})
    assert await ask(agent, "chat") == "done"
    before = [message.model_dump_json() for message in agent.history]
    history_given = agent.history
    history_given.clear()
    for message in kept:
        for change in ("parts", "role", "metadata"):
            with suppress(Exception):
                setattr(message, change, ())
    assert [message.model_dump_json() for message in agent.history] == before
    await assert_goes_on(agent)

    spoilt = agent_with(quiet, hooks={"on_before_request": spoil_request})
    with suppress(Exception):  # a request without messages is the hook's own doing
        await spoilt.chat("go")
    assert [message.text for message in spoilt.history[:1]] == ["go"]
