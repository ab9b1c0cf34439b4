"""Tool calls as models and servers get them wrong: arguments, names, ids, numbers, reasons, loops, sizes."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from faults.spoken import WITH_CALLS
from faults.trials import trial
from faults.turns import assert_sent_whole, turns
from faults.ways import CHAT, EVERY, Way, by_agents, of, streamed
from plait import RunLimits, tool
from plait.testing import Call, Reply, Said, answer, fault, tool_calls
from plait.testing.chat import chunk

if TYPE_CHECKING:
    from plait.testing.reply import Scripted

DONE = b"[DONE]"


@tool
async def now() -> str:
    """Tell the time."""
    return "noon"


def calls_of(*deltas: dict[str, Any], finish: str = "tool_calls") -> Reply:
    """A stream whose pieces of calls are exactly these."""
    events = [chunk({"tool_calls": [delta]}) for delta in deltas]
    return Reply(streamed=True, events=(*events, chunk({}, finish), DONE))


def piece(arguments: object = None, name: str | None = None, **fields: Any) -> dict[str, Any]:
    function: dict[str, Any] = {} if arguments is None else {"arguments": arguments}
    return {**fields, "function": function if name is None else {**function, "name": name}}


# --- arguments -------------------------------------------------------------------------------------------------------

WRONG = [
    *("city=Lisbon", '{"city": "Lis', "", "null", "[]", '["Lisbon"]', '"Lisbon"', "7", "{}", "{", "\0", "\ud83d", " "),
    *('{"city": 7}', '{"city": null}', '{"city": {"a": [1e999]}}', '{"city": ["Lisbon"]}', '{"town": "Lisbon"}'),
    *('{"city": "A", "extra": 1}', '{"city": "A"}}', '{"city": "A"}{"city": "B"}', "[" * 50_000, '{"a":' * 5000),
    *("<tool>weather</tool>", "```json\n{}\n```", '{"city": NaN}', "{'city': 'A'}", '{"city": 1' + "0" * 5000 + "}"),
]


@pytest.mark.fault("L41")
@pytest.mark.parametrize("way", by_agents())
@pytest.mark.parametrize("arguments", WRONG, ids=lambda text: repr(text[:30]))
async def test_wrong_arguments_are_told_to_the_model(arguments: str, way: Way) -> None:
    async with trial(tool_calls(("weather", arguments)), answer("yes"), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error, made.sent) == ("yes", None, 2)
        (said,) = made.told(1)
        assert made.calls == []
        assert "weather" in said or "argument" in said or "JSON" in said or "city" in said
        assert len(said) < 2000
        assert_sent_whole(way.dialect, made.server.requests[1])


@pytest.mark.fault("L41")
@pytest.mark.parametrize("way", by_agents())
async def test_wrong_arguments_for_ever_are_bounded(way: Way) -> None:
    async with trial(tool_calls(("weather", "no JSON")), way=way, max_turns=4) as made:
        outcome = await made.ask()
        assert (outcome.error, made.sent, made.calls) == (None, 4, [])


@pytest.mark.fault("L41")
@pytest.mark.parametrize("way", by_agents())
@pytest.mark.parametrize("arguments", ["", "{}", " "])
async def test_no_arguments_are_fine_for_a_tool_without_parameters(arguments: str, way: Way) -> None:
    async with trial(tool_calls(("now", arguments)), answer("yes"), way=way) as made:
        made.agent.tools["now"] = now
        assert (await made.ask()).error is None
        assert made.told(1) == ["noon"]


@pytest.mark.fault("L41")
@pytest.mark.parametrize("way", by_agents(CHAT))
async def test_null_for_arguments_is_none(way: Way) -> None:
    body = {"id": "c1", "function": {"name": "now", "arguments": None}}
    whole = json.dumps({"choices": [{"message": {"tool_calls": [body]}, "finish_reason": "tool_calls"}]}).encode()
    calling = Reply(body=whole, events=calls_of({"index": 0, **body}).events)
    async with trial(calling, answer("yes"), way=way) as made:
        made.agent.tools["now"] = now
        assert (await made.ask()).error is None
        assert made.told(1) == ["noon"]


@pytest.mark.fault("L46")
@pytest.mark.parametrize("way", by_agents())
async def test_arguments_of_the_other_kind_are_accepted(way: Way) -> None:
    """An object where the dialect has a text, and a text where it has an object."""
    async with trial(fault("L46"), answer("yes"), way=way) as made:
        assert (await made.ask()).text == "yes"
        cities = ["A", "A"] if way.dialect == "chat" else ["A", "B"]
        assert made.calls == cities
        assert made.told(1) == [f"sunny in {city}" for city in cities]


@pytest.mark.fault("L52")
@pytest.mark.parametrize("way", by_agents())
@pytest.mark.parametrize("size", [400_000, 10**6, 4 * 10**6])
async def test_very_large_arguments(size: int, way: Way) -> None:
    """Taken, or an error result at the cap; either way the run goes on and the log can be sent."""
    async with trial(tool_calls(("weather", {"city": "x" * size})), answer("yes"), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, outcome.error) == ("yes", None)
        (said,) = made.told(1)
        assert len(said) < 60_000
        assert (len(made.calls), "too long" in said) == ((1, False) if size == 400_000 else (0, True))


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.fault("L42")
@pytest.mark.parametrize("way", by_agents())
@pytest.mark.parametrize(
    "name", ["no_such_tool", "Weather", "weather ", "functions.weather", "x" * 5000, "a\nb", "\ud83d"]
)
async def test_an_unknown_tool_is_answered_with_the_known_ones(name: str, way: Way) -> None:
    async with trial(tool_calls(Call(name=name, arguments={"city": "A"})), answer("yes"), way=way) as made:
        assert (await made.ask()).text == "yes"
        (said,) = made.told(1)
        assert said.startswith("there is no tool ")
        assert said.endswith("the tools are: weather")
        assert (made.calls, len(said) < 200) == ([], True)


# --- ids -------------------------------------------------------------------------------------------------------------


@pytest.mark.fault("L43")
@pytest.mark.parametrize("way", by_agents())
@pytest.mark.parametrize(
    "ids", [["a", "a", "a"], ["", "", ""], ["a", "", "a"], ["", "call_2_0", "call_3_1"], [" ", " ", "\0"]]
)
async def test_each_call_runs_once_and_gets_its_own_result(ids: list[str], way: Way) -> None:
    calls = [Call(name="weather", id=one, arguments={"city": city}) for one, city in zip(ids, "ABC", strict=True)]
    async with trial(tool_calls(*calls), answer("yes"), way=way) as made:
        assert (await made.ask()).text == "yes"
        assert sorted(made.calls) == ["A", "B", "C"]
        sent = made.server.requests[1]
        assert_sent_whole(way.dialect, sent)
        said = turns(way.dialect, sent)
        asked = {call.id: json.loads(call.arguments)["city"] for turn in said for call in turn.calls}
        told = dict(result for turn in said for result in turn.results)
        assert told == {one: f"sunny in {city}" for one, city in asked.items()}


@pytest.mark.fault("L43")
@pytest.mark.parametrize("way", by_agents())
@pytest.mark.parametrize("name", ["missing-ids", "empty-ids", "same-ids"])
async def test_ids_that_are_missing(name: str, way: Way) -> None:
    async with trial(fault(name), answer("yes"), way=way) as made:
        assert (await made.ask()).text == "yes"
        assert sorted(made.calls) == ["A", "B", "C"][: len(made.calls)]
        assert len(made.calls) >= 2


@pytest.mark.fault("L43")
@pytest.mark.parametrize("way", by_agents())
@pytest.mark.parametrize("call_id", ["call_1", "", "0"])
async def test_ids_that_repeat_from_turn_to_turn(call_id: str, way: Way) -> None:
    turns = [tool_calls(Call(name="weather", id=call_id, arguments={"city": city})) for city in "ABC"]
    async with trial(*turns, answer("yes"), way=way) as made:
        assert (await made.ask()).text == "yes"
        assert made.calls == ["A", "B", "C"]
        assert made.told(3) == ["sunny in A", "sunny in B", "sunny in C"]
        made.server.play(turns[0], answer("again"))
        assert (await made.ask()).text == "again"
        assert_sent_whole(way.dialect, made.server.requests[-1])
        assert made.calls == ["A", "B", "C", "A"]


# --- many calls, and their pieces ------------------------------------------------------------------------------------


@pytest.mark.fault("L44")
@pytest.mark.parametrize("way", by_agents())
async def test_many_calls_run_bounded_and_in_order(way: Way) -> None:
    running, most = 0, 0

    @tool
    async def look(number: int) -> str:
        """Look.

        Args:
            number: where.
        """
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (number % 3))
        running -= 1
        return str(number)

    calls = [Call(name="look", arguments={"number": number}) for number in range(128)]
    async with trial(tool_calls(*calls), answer("yes"), way=way, max_tool_calls=200) as made:
        made.agent.tools["look"] = look
        assert (await made.ask()).text == "yes"
        assert made.told(1) == [str(number) for number in range(128)]
        assert 1 < most <= 16


@pytest.mark.fault("L44")
@pytest.mark.parametrize("way", by_agents())
async def test_more_calls_than_a_run_may_make_leave_a_log_that_can_be_sent(way: Way) -> None:
    async with trial(fault("many-calls"), answer("yes"), way=way) as made:
        assert (await made.ask()).error is None
        assert len(made.calls) == 50


A, B = ('{"city": ', '"A"}'), ('{"city": ', '"B"}')
PIECES: dict[str, list[dict[str, Any]]] = {
    "in turn": [
        *(piece("", "weather", index=0, id="a"), piece("", "weather", index=1, id="b")),
        *(piece(A[0], index=0), piece(B[0], index=1), piece(B[1], index=1), piece(A[1], index=0)),
    ],
    "falling, with gaps": [
        *(piece(A[0], "weather", index=7, id="a"), piece(A[1], index=7)),
        *(piece(B[0], "weather", index=2, id="b"), piece(B[1], index=2)),
    ],
    "falling, in turn": [
        *(piece("", "weather", index=1, id="a"), piece("", "weather", index=0, id="b")),
        *(piece(A[0], index=1), piece(B[0], index=0), piece(A[1], index=1), piece(B[1], index=0)),
    ],
    "without numbers": [
        *(piece(A[0], "weather", id="a"), piece(A[1])),
        *(piece(B[0], "weather", id="b"), piece(B[1])),
    ],
    "without numbers, by id": [
        *(piece(A[0], "weather", id="a"), piece(B[0], "weather", id="b")),
        *(piece(A[1], id="a"), piece(B[1], id="b")),
    ],
    "all with number 0": [
        *(piece(A[0] + A[1], "weather", index=0, id="a"), piece(B[0] + B[1], "weather", index=0, id="b")),
    ],
    "null numbers": [
        *(piece(A[0], "weather", index=None, id="a"), piece(A[1], index=None)),
        *(piece(B[0], "weather", index=None, id="b"), piece(B[1], index=None)),
    ],
    "negative and huge": [
        *(piece(A[0], "weather", index=-1, id="a"), piece(A[1], index=-1)),
        *(piece(B[0], "weather", index=2**60, id="b"), piece(B[1], index=2**60)),
    ],
    "the id and name in each piece": [
        *(piece(A[0], "weather", index=0, id="a"), piece(A[1], "weather", index=0, id="a")),
        *(piece(B[0], "weather", index=1, id="b"), piece(B[1], "weather", index=1, id="b")),
    ],
    "the name later": [
        *(piece(None, index=0, id="a"), piece("", "weather", index=0), piece(A[0] + A[1], index=0)),
        *(piece(None, index=1, id="b"), piece("", "weather", index=1), piece(B[0] + B[1], index=1)),
    ],
    "whole, without ids": [piece(A[0] + A[1], "weather", index=0), piece(B[0] + B[1], "weather", index=1)],
}


@pytest.mark.fault("L45")
@pytest.mark.parametrize(
    ("reply", "way"),
    [
        *((calls_of(*PIECES[pieces]), way) for pieces in PIECES for way in streamed(CHAT)),
        *((fault("mixed-pieces"), way) for way in streamed(of(EVERY, "chat", "anthropic", "responses"))),
        *((fault("falling-numbers"), way) for way in streamed()),
        *((fault("no-numbers"), way) for way in streamed(of(EVERY, "chat", "ollama"))),
    ],
    ids=lambda one: str(one) if isinstance(one, Way) else getattr(getattr(one, "fault", None), "name", "pieces"),
)
async def test_the_pieces_of_calls_find_their_call(reply: Scripted, way: Way) -> None:
    async with trial(reply, answer("yes"), way=way) as made:
        outcome = await made.ask()
        if not way.is_agent:
            assert outcome.answer is not None
            made.calls += [json.loads(call.arguments)["city"] for call in outcome.answer.message.tool_calls]
        assert sorted(made.calls) == ["A", "B"]
        assert outcome.error is None


@pytest.mark.fault("L45")
@pytest.mark.parametrize("way", [way for way in by_agents() if not way.is_streamed])
async def test_calls_that_come_whole_find_their_arguments(way: Way) -> None:
    calls = tool_calls(("weather", {"city": "A"}), ("weather", {"city": "B"}))
    async with trial(calls, answer("yes"), way=way) as made:
        assert ((await made.ask()).text, made.calls) == ("yes", ["A", "B"])


# --- why the model stopped -------------------------------------------------------------------------------------------


@pytest.mark.fault("L47")
@pytest.mark.parametrize(
    ("way", "reason"), [(way, reason) for way in by_agents() for reason in WITH_CALLS[way.dialect]]
)
@pytest.mark.parametrize("text", [None, "", " \n", "Let me see."])
async def test_a_call_runs_whatever_the_reason_and_the_text_before_it(text: str | None, reason: str, way: Way) -> None:
    said = Said(text=text, calls=(Call(name="weather", arguments={"city": "A"}),), finish_reason=reason)
    async with trial(Reply(said=said), answer("yes"), way=way) as made:
        outcome = await made.ask()
        assert (outcome.error, made.calls, made.sent) == (None, ["A"], 2)
        assert outcome.text.endswith("yes")
        assert_sent_whole(way.dialect, made.server.requests[1])


@pytest.mark.fault("L48")
@pytest.mark.parametrize("way", by_agents())
@pytest.mark.parametrize("arguments", ['{"city": "Lis', '{"city": "Lisbon"}', ""])
async def test_a_call_cut_by_the_limit_is_not_made(arguments: str, way: Way) -> None:
    said = Said(calls=(Call(name="weather", arguments=arguments),), finish_reason="length")
    async with trial(Reply(said=said), answer("yes"), way=way) as made:
        outcome = await made.ask()
        assert (outcome.text, made.calls, made.sent) == ("yes", [], 2)
        (told,) = made.told(1)
        assert "token limit" in told


@pytest.mark.fault("L48")
@pytest.mark.parametrize("way", by_agents())
async def test_of_two_calls_the_whole_one_is_made(way: Way) -> None:
    cut = Call(name="weather", arguments='{"city": "Lis')
    said = Said(calls=(Call(name="weather", arguments={"city": "A"}), cut), finish_reason="length")
    async with trial(Reply(said=said), answer("yes"), way=way) as made:
        assert ((await made.ask()).text, made.calls) == ("yes", ["A"])


# --- loops -----------------------------------------------------------------------------------------------------------


@pytest.mark.fault("L49")
@pytest.mark.parametrize("way", by_agents())
async def test_an_endless_loop_ends(way: Way) -> None:
    async with trial(fault("endless-calls"), way=way) as made:
        result = await made.agent.run("hi", limits=RunLimits(max_turns=5))
        assert (result.stop_reason, made.sent, made.calls) == ("max_turns", 5, ["A"] * 5)
        told = made.told(-1)
        assert ["same call with the same arguments" in one for one in told] == [False, False, True, True]
        assert (await made.ask()).error is None


@pytest.mark.fault("L49")
@pytest.mark.parametrize("way", EVERY)
async def test_a_loop_of_different_calls_ends_too(way: Way) -> None:
    turns = [tool_calls(("weather", {"city": str(number)})) for number in range(40)]
    async with trial(*turns, way=way, max_turns=7) as made:
        outcome = await made.ask()
        assert (outcome.error, made.sent) == (None, 7 if way.is_agent else 1)


@pytest.mark.fault("L43", "L46")
@pytest.mark.parametrize("way", CHAT)
async def test_calls_that_are_hardly_there(way: Way) -> None:
    """Null in place of nearly everything: a call without a name is answered, not run."""
    nothing = {"id": None, "index": None, "type": None, "function": None}
    body = json.dumps({"choices": [{"message": {"tool_calls": [nothing]}, "finish_reason": "tool_calls"}]}).encode()
    events = (chunk({"tool_calls": [nothing]}), chunk({}, "tool_calls"), DONE)
    async with trial(Reply(body=body, events=events), answer("yes"), way=way) as made:
        outcome = await made.ask()
        assert outcome.error is None
        assert made.calls == []
