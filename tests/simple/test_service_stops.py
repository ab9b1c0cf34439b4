"""Every way in which a message's run ends, and its history, which can always be sent on."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from plait import AsyncOpenAISimpleAgent, Guardrails, RateLimited, Veto
from plait.testing import Cut, FaultServer, Gate, Reply, Wire, answer, tool_calls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait import FunctionCallStart, RunEnded, ToolCall, ToolCallCheck
    from plait.guardrails.checks import InputCheck, OutputCheck
    from plait.hooks import BudgetExceeded
    from plait.simple.response import MessageResponse
    from plait.testing.reply import Scripted

CALL: Final = tool_calls("lookup", {"word": "tea"})
BOTH: Final = tool_calls(("lookup", {"word": "tea"}), ("lookup", {"word": "cup"}), text="I look both up.")
SLOW: Final = 0.02


def lookup(word: str) -> str:
    """Look a word up."""
    return f"{word}: found"


def check_valid(messages: Sequence[dict[str, Any]]) -> None:
    """Refuse what OpenAI refuses: each call is followed by exactly one result, and there is no result without one."""
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            waiting.remove(message["tool_call_id"])  # fails where nobody waits for it
            continue
        assert waiting == []
        assert message.get("content") or message.get("tool_calls")
        waiting = [call["id"] for call in message.get("tool_calls", ())]
        assert len(set(waiting)) == len(waiting)
    assert waiting == []


def service(server: FaultServer, **options: Any) -> AsyncOpenAISimpleAgent:
    return AsyncOpenAISimpleAgent(
        "Service", model="fault-1", api_key="k", base_url=server.url, **({"tool_registry": [lookup]} | options)
    )


async def sent_on(server: FaultServer, response: MessageResponse) -> list[dict[str, Any]]:
    """Send a history on with another message, through JSON; gives the messages that the server got."""
    history = json.loads(json.dumps(response.history))
    server.play("Gladly.")
    after = await service(server).send_message("Go on.", history=history)
    assert (after.output, after.stop_reason) == ("Gladly.", "response")
    assert after.history[: len(history)] == history
    messages: list[dict[str, Any]] = server.requests[-1]["messages"]
    check_valid(messages)
    assert messages[-1] == {"role": "user", "content": "Go on."}
    return messages


async def test_an_answer() -> None:
    ended: list[tuple[str, str]] = []
    hooks = {"on_final_response": lambda event: ended.append((event.result.stop_reason, event.result.text))}
    with FaultServer(BOTH, "Both are there.") as server:
        response = await service(server, hooks=hooks).send_message("Tea?", user_id="ann", chat_id="1")
        assert (response.output, response.stop_reason, response.error) == ("Both are there.", "response", None)
        assert ended == [("response", "Both are there.")]
        assert response.agent_name == "Service"
        assert response.usage is not None
        assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (18, 24)
        assert [{name: one[name] for name in one if name != "id"} for one in response.history] == [
            {"role": "user", "content": "Tea?"},
            {"role": "assistant", "content": "I look both up.", "turn": 1},
            {"role": "function", "content": "lookup", "args": {"word": "tea"}, "turn": 1, "result": "tea: found"},
            {"role": "function", "content": "lookup", "args": {"word": "cup"}, "turn": 1, "result": "cup: found"},
            {"role": "assistant", "content": "Both are there."},
        ]
        assert response.history_without_function_calls == [
            {"role": "user", "content": "Tea?"},
            {"role": "assistant", "content": "I look both up."},
            {"role": "assistant", "content": "Both are there."},
        ]
        assert json.loads(response.to_json()) == response.to_dict()
        assert response.to_dict()["history"] == response.history
        await sent_on(server, response)


async def test_max_turns() -> None:
    heard: list[str] = []
    hooks = {
        name: lambda event, name=name: heard.append(name)  # a default is not filled, and takes nothing from the run
        for name in ("on_max_turns_reached", "on_final_response", "on_manual_stop")
    }
    with FaultServer(*[BOTH] * 3) as server:
        response = await service(server, max_turns=2, hooks=hooks).send_message("Tea?")
        assert (response.stop_reason, response.output) == ("max_turns", "I look both up.")
        assert heard == ["on_max_turns_reached", "on_final_response"]
        assert len(server.requests) == 2
        assert [one["role"] for one in await sent_on(server, response)].count("tool") == 4


async def test_max_function_calls() -> None:
    heard: list[str] = []
    hooks = {"on_max_tool_calls_reached": lambda event, chat_id: heard.append(chat_id)}
    with FaultServer(BOTH, BOTH) as server:
        response = await service(server, max_tool_calls=3, hooks=hooks).send_message("Tea?", chat_id="c")
        assert (response.stop_reason, heard) == ("max_function_calls", ["c"])
        functions = [(one["result"], one.get("is_error", False)) for one in response.history if "args" in one]
        assert [result for result, failed in functions if not failed] == ["tea: found", "cup: found", "tea: found"]
        ((why, _),) = [one for one in functions if one[1]]
        assert why == "This call was not carried out: the run had reached its limit of tool calls."
        await sent_on(server, response)


async def test_a_stop_in_the_middle_of_an_answer_keeps_what_was_said() -> None:
    pressed: list[str] = []
    stopped: list[RunEnded] = []

    def button(user_id: str, chat_id: str) -> bool:
        return bool(pressed) and (user_id, chat_id) == ("ann", "1")

    hooks = {"on_token_received": lambda event: pressed.append(event.text), "on_manual_stop": stopped.append}
    held = answer("One two three four.").over(Wire(cut=Cut(event=4, then="hold")))
    with FaultServer(held) as server:
        agent = service(server, manual_stop_signal_function=button, check_for_stop_signal_time=SLOW, hooks=hooks)
        response = await asyncio.wait_for(agent.send_message("Count.", user_id="ann", chat_id="1"), 10)
        assert response.stop_reason == "user_stop"
        assert response.output
        assert "One two three four.".startswith(response.output)
        assert "".join(pressed) == response.output
        assert [event.result.stop_reason for event in stopped] == ["user_stop"]
        assert response.usage is not None
        assert server.wait_until_left()
        messages = await sent_on(server, response)
        assert messages[1] == {"role": "assistant", "content": response.output}


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_stop_in_the_middle_of_a_function_cancels_it(*, is_async: bool) -> None:
    looked_up, ended = asyncio.Event(), asyncio.Event()

    async def wait(word: str) -> str:
        """Wait for ever."""
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return word

    def button() -> bool:
        return looked_up.is_set()

    async def async_button(chat_id: str) -> bool:
        return looked_up.is_set()

    with FaultServer(tool_calls(("wait", {"word": "tea"}), ("lookup", {"word": "cup"}))) as server:
        agent = service(
            server,
            tool_registry=[wait, lookup],
            manual_stop_signal_function=async_button if is_async else button,
            check_for_stop_signal_time=SLOW,
            hooks={"on_function_call_end": lambda _: looked_up.set()},
        )
        response = await asyncio.wait_for(agent.send_message("Wait."), 10)
        assert (response.stop_reason, ended.is_set()) == ("user_stop", True)
        waited, looked = response.history[1:]
        assert (waited["content"], waited["is_error"]) == ("wait", True)
        assert waited["result"].startswith("This call was cancelled while it ran; it may or may not have happened")
        assert (looked["content"], looked["result"]) == ("lookup", "cup: found")
        await sent_on(server, response)


async def test_a_stop_while_it_waits_to_ask_again() -> None:
    with FaultServer(Reply(status=429, headers={"Retry-After": "30"})) as server:
        agent = service(
            server,
            manual_stop_signal_function=lambda: bool(server.exchanges),
            check_for_stop_signal_time=SLOW,
            retry_strategy={"rate_limit": {"max_retries": 5}},
        )
        response = await asyncio.wait_for(agent.send_message("Hi"), 10)
        assert (response.stop_reason, len(server.requests)) == ("user_stop", 1)
        await sent_on(server, response)


async def test_stopped_before_it_began() -> None:
    with FaultServer() as server:
        response = await service(server, manual_stop_signal_function=lambda: True).send_message("Hi")
        assert response.stop_reason == "user_stop"
        await sent_on(server, response)


async def test_a_budget() -> None:
    told: list[BudgetExceeded] = []
    with FaultServer(BOTH) as server:
        agent = service(
            server,
            hooks={"on_budget_exceeded": told.append},
            budget_control={"max_budget_for_this_chat": "0.003", "stop_on_budget_exceeded": True},
            current_cost_per_million_tokens={"input": 10, "output": 100},
        )
        response = await agent.send_message("Tea?", chat_id="c")
        assert (response.stop_reason, len(server.requests)) == ("budget", 1)
        assert response.cost == pytest.approx(9 * 10e-6 + 12 * 100e-6)
        assert response.error == told[0].reason
        assert response.error.startswith("the budget of 0.003 USD for this chat is used up")
        assert (told[0].context.chat_id, told[0].stops) == ("c", True)
        again = await agent.send_message("Still?", history=response.history, chat_id="c")
        assert (again.stop_reason, again.output, len(server.requests)) == ("budget", "", 1)
        other = await agent.send_message("Other?", chat_id="d")
        assert (other.stop_reason, len(server.requests)) == ("budget", 2)
        await sent_on(server, response)
        await sent_on(server, again)


async def test_a_guardrail_refuses_what_is_said() -> None:
    def no_homework(event: InputCheck) -> Veto | None:
        return Veto(reason="do it yourself") if "homework" in event.messages[-1].text else None

    with FaultServer("Yes.") as server:
        agent = service(server, guardrails=Guardrails(input=[no_homework]))
        first = await agent.send_message("Hi")
        response = await agent.send_message("Do my homework!", history=first.history)
        assert (response.stop_reason, response.output) == ("guardrail", "")
        assert response.error == "refused by the check 'no_homework': do it yourself"
        assert response.history == first.history
        assert len(server.requests) == 1
        await sent_on(server, response)


async def test_a_guardrail_refuses_an_answer() -> None:
    def no_secret(event: OutputCheck) -> Veto | None:
        return Veto(reason="it is secret") if "secret" in event.message.text else None

    with FaultServer(BOTH, "The secret is tea.") as server:
        response = await service(server, guardrails=Guardrails(output=[no_secret])).send_message("Tea?")
        assert (response.stop_reason, response.error) == ("guardrail", "refused by the check 'no_secret': it is secret")
        assert "secret is tea" not in response.to_json()
        messages = await sent_on(server, response)
        assert "secret is tea" not in str(messages)


async def test_a_hook_vetoes_a_request_and_a_call() -> None:
    def no_cups(event: FunctionCallStart) -> Veto | ToolCall | None:
        return Veto(reason="no cups") if "cup" in event.call.arguments else None

    def one_turn(event: Any) -> Veto | None:
        return Veto(reason="enough") if event.turn > 1 else None

    with FaultServer(BOTH) as server:
        hooks = {"on_function_call_start": no_cups, "on_before_request": one_turn}
        response = await service(server, hooks=hooks).send_message("Tea?")
        assert (response.stop_reason, response.error) == ("guardrail", "enough")
        assert [one["result"] for one in response.history if "args" in one] == [
            "tea: found",
            "This call was not allowed: no cups",
        ]
        await sent_on(server, response)


async def test_a_function_that_is_refused_is_told_to_the_model() -> None:
    def refuse(event: ToolCallCheck) -> Veto:
        return Veto(reason="not today")

    with FaultServer(CALL, "Pity.") as server:
        response = await service(server, guardrails=Guardrails(tool_call=[refuse])).send_message("Tea?")
        assert (response.stop_reason, response.output) == ("response", "Pity.")
        await sent_on(server, response)


async def test_a_deadline() -> None:
    gate = Gate()
    with FaultServer(Reply(raw=[gate])) as server:
        response = await asyncio.wait_for(service(server, deadline=0.1).send_message("Hi"), 10)
        gate.open()
        assert (response.stop_reason, response.output) == ("deadline", "")
        await sent_on(server, response)


async def test_a_cancelled_caller_ends_the_run() -> None:
    begun = asyncio.Event()
    held = answer("One two three four.").over(Wire(cut=Cut(event=2, then="hold")))
    with FaultServer(held) as server:
        agent = service(server, hooks={"on_token_received": lambda event: begun.set()})
        task = asyncio.create_task(agent.send_message("Count."))
        await asyncio.wait_for(begun.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert server.wait_until_left()


# --- asking again -----------------------------------------------------------------------------------------------------

STRATEGY: Final = {
    "rate_limit": {"max_retries": 5, "backoff": "exponential"},
    "server_error": {"max_retries": 3, "backoff": "linear"},
    "timeout": {"max_retries": 2, "backoff": "fixed"},
    "backoff_base": 2,
    "initial_delay": 0.001,
    "max_delay": 0.002,
}


@pytest.mark.parametrize(("status", "retries"), [(429, 5), (503, 3), (408, 2)])
async def test_a_strategy_says_how_often_it_is_asked_again(status: int, retries: int) -> None:
    failure = Reply(status=status)
    script: list[Scripted] = [*[failure] * retries, "There."]
    with FaultServer(*script) as server:
        response = await service(server, retry_strategy=STRATEGY).send_message("Hi")
        assert (response.output, len(server.requests)) == ("There.", retries + 1)
        server.play(*[failure] * (retries + 1), "Never.")
        with pytest.raises(Exception, match=rf"{status}.*\(after {retries + 1} tries\)") as raised:
            await service(server, retry_strategy=STRATEGY).send_message("Hi")
        assert isinstance(raised.value, RateLimited) == (status == 429)
        assert len(server.requests) == 2 * (retries + 1)
