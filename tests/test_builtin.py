from __future__ import annotations

import ast
import inspect
import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import plait.builtin
from executing import executing
from plait.builtin import READY_MADE, TextIndex, calculate, get_current_time, search_documents
from plait.errors import ConfigurationError, ToolError
from plait.messages import ToolCall
from plait.run import RunContext
from plait.toolbase import prepare
from plait.tools import find_tools

if TYPE_CHECKING:
    from plait.tools import Tool


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("25 * 4", "100"),
        ("2 + 3 * 4 - 1", "13"),
        ("(2 + 3) * 4", "20"),
        ("-2 ** 2", "-4"),
        ("7 / 2", "3.5"),
        ("7 // 2 + 7 % 2", "4"),
        ("2 ** -1", "0.5"),
        ("2 ** 100", str(2**100)),
        ("+.5e1", "5.0"),
        ("1_000 * 2", "2000"),
        ("sqrt(16) + abs(-3)", "7.0"),
        ("round(pi, 2)", "3.14"),
        ("round(2.6)", "3"),
        ("max(1, 5, 3) - min(4, 2)", "3"),
        ("log(e)", "1.0"),
        ("factorial(5)", "120"),
        ("degrees(tau)", "360.0"),
        ("  1 + 1\n", "2"),
        ("0 ** 0 + 1 ** 4096", "2"),
    ],
)
def test_arithmetic(expression: str, result: str) -> None:
    assert calculate(expression) == result


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("9**9**9", r"^9 \*\* 387420489 is too large to calculate$"),
        ("10 ** 4096", r"is too large to calculate"),
        ("2.0 ** 5000", "the result of '2.0 \\*\\* 5000' is too large"),
        ("10 ** 1000 * 10 ** 1000", "the result is too large; at most 4096 bits are calculated"),
        ("factorial(100000)", "factorial takes a whole number from 0 to 300"),
        ("factorial(0.5)", "factorial takes a whole number"),
        ("round(2, 10 ** 9)", "at most 100"),
        ("1e308 * 10", "the result is too large"),
        ("(-8) ** 0.5", "no real number"),
        ("1 / 0", "^'1 / 0' divides by zero$"),
        ("0 ** -1", "divides by zero"),
        ("sqrt(-1)", r"^'sqrt\(-1\)' cannot be calculated: "),
        ("sqrt()", "cannot be calculated"),
        ("1 if 1 else 2", "is not allowed in an arithmetic expression; the functions are abs, acos"),
        ("__import__('os').system('true')", "is not allowed"),
        ("().__class__", "is not allowed"),
        ("open('x')", "is not allowed"),
        ("max(*[1, 2])", "is not allowed"),
        ("round(number=2)", "is not allowed"),
        ("'a' * 10", "is not allowed"),
        ("True + 1", "is not allowed"),
        ("1j", "is not allowed"),
        ("[1, 2]", "is not allowed"),
        ("x + 1", "'x' is not allowed"),
        ("1 << 100", "is not allowed"),
        ("(lambda: 1)()", "is not allowed"),
        ("1 +", r"^'1 \+' is no arithmetic expression; write for example '2 \* \(3 \+ 4\) \*\* 2'$"),
        ("", "is no arithmetic expression"),
        ("1\x00", "is no arithmetic expression|cannot be calculated"),
        ("(" * 240 + "1" + ")" * 240, "is no arithmetic expression"),
        ("-" * 400 + "1", "nested more than 50 levels deep"),
        ("1" * 501, "the expression has 501 characters; at most 500 are calculated"),
    ],
)
def test_what_is_not_calculated_gives_a_sentence(expression: str, sentence: str) -> None:
    with pytest.raises(ToolError, match=sentence):
        calculate(expression)


@pytest.mark.fault("S16")
@given(st.text(alphabet="0123456789.+-*/%()e ,sqrtpilogmaxn", max_size=60))
def test_no_expression_fails_otherwise(expression: str) -> None:
    try:
        number = float(calculate(expression))
    except ToolError:
        return
    except OverflowError:  # a whole number that float cannot hold
        return
    assert math.isfinite(number)


def test_no_ready_made_tool_evaluates_or_starts_anything() -> None:
    tree = ast.parse(inspect.getsource(plait.builtin))
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert called & {"eval", "exec", "compile", "open", "__import__"} == set()
    assert imported & {"os", "subprocess", "pickle", "importlib", "ctypes"} == set()


def test_the_time_in_a_zone() -> None:
    text = get_current_time("Asia/Tokyo")
    moment = datetime.fromisoformat(text.split(" ", 1)[0])
    assert moment.utcoffset() == timedelta(hours=9)
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)
    assert text == f"{moment.isoformat()} Asia/Tokyo, a {moment:%A}"
    assert " UTC, a " in get_current_time()


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../../etc/passwd", "/etc/passwd", "a\x00b", "Europe"])
def test_a_zone_that_is_none_gives_a_sentence(zone: str) -> None:
    with pytest.raises(ToolError, match=r"there is no time zone .* use an IANA name such as 'UTC'"):
        get_current_time(zone)


DOCUMENTS = {
    "house rules": "Checkout is at 11 AM. Guests leave the keys on the table.\n\nThe pool is open from 8 AM to 8 PM.",
    "parking": "There is one place for a car behind the house. The gate code is on the key card.",
    "wifi": "The network is called Sommer. The password is on the router.",
}


def test_the_best_passage_comes_first() -> None:
    found = TextIndex(DOCUMENTS).search("When is the pool open?", 2)
    assert [passage["name"] for passage in found] == ["house rules", "wifi"]
    assert found[0]["text"] == DOCUMENTS["house rules"]
    assert found[0]["score"] > found[1]["score"] > 0


def test_a_rare_word_weighs_more_than_a_frequent_one() -> None:
    index = TextIndex({"a": "the the the the", "b": "the router", "c": "the gate"})
    assert index.search("the router", 3)[0]["name"] == "b"


def test_long_documents_are_cut_into_passages() -> None:
    index = TextIndex({"long": "\n\n".join(f"Paragraph {n}. {'word ' * 50}" for n in range(100)) + "\n\nneedle"})
    [found] = index.search("needle", 5)
    assert found["text"].endswith("needle")
    assert len(found["text"]) <= 1_000
    assert TextIndex({"line": "x" * 5_000 + " needle"}).search("needle")[0]["name"] == "line"
    assert TextIndex({}).search("anything") == []


def test_documents_that_are_no_texts_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="documents are texts by name; 'a' is int"):
        TextIndex({"a": 1})  # type: ignore[dict-item]  # that it is refused is the point
    with pytest.raises(ConfigurationError, match="takes a mapping of names to texts or an object with search"):
        search_documents(42)  # type: ignore[arg-type]


async def said(made: Tool, arguments: str) -> tuple[str, bool]:
    call = ToolCall(id="1", name=made.name, arguments=arguments)
    async with executing([call], {made.name: made}, RunContext(deps=None)) as batches:
        [[done]] = [batch async for batch in batches]
    return done.result.text, done.result.is_error


async def test_search_documents_is_a_tool_over_an_index() -> None:
    made = search_documents({"wifi": "The network is Sommer."})
    definition = prepare(made).definition
    assert (definition.name, list(definition.parameters["properties"])) == ("search_documents", ["query", "limit"])
    assert await said(made, '{"query": "network", "limit": null}') == (
        '[{"name":"wifi","text":"The network is Sommer.","score":0.288}]',
        False,
    )
    assert await said(made, '{"query": "elephant"}') == ("Nothing was found for 'elephant'.", False)


async def test_search_documents_takes_any_index() -> None:
    asked: list[tuple[str, int]] = []

    class Sync:
        def search(self, query: str, limit: int) -> list[Any]:
            asked.append((query, limit))
            return ["a passage"]

    class Async:
        async def search(self, query: str, limit: int) -> list[Any]:
            asked.append((query, limit))
            return ["a passage"]

    for index in (Sync(), Async()):
        assert await said(search_documents(index), '{"query": "x", "limit": 1000}') == ('["a passage"]', False)
    assert asked == [("x", 20), ("x", 20)]


async def test_ready_made_tools_are_found_by_name_and_not_otherwise() -> None:
    found = find_tools(["calculate", "get_current_time", "search_documents"], READY_MADE)
    assert list(found) == ["calculate", "get_current_time", "search_documents"]
    assert find_tools(["calculate"], READY_MADE)["calculate"] is found["calculate"]
    assert await said(found["calculate"], '{"expression": "6 * 7"}') == ("42", False)
    with pytest.raises(ConfigurationError, match="there is no tool 'get_current_time'"):
        find_tools(["get_current_time"])


async def test_searching_without_documents_says_what_is_missing() -> None:
    text, is_error = await said(READY_MADE["search_documents"](), '{"query": "x"}')
    assert is_error
    assert text.endswith(
        "the application named the tool 'search_documents' without registering search_documents(index)"
    )
