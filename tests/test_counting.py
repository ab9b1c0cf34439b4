from __future__ import annotations

import gc
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest
import tiktoken
from benchmarks.counting import kinds
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from plait.counting import SIMPLE, accurate, counter_of, message_tokens, output_tokens, simple, tools_tokens
from plait.errors import ConfigurationError, MissingExtra
from plait.messages import (
    AssistantMessage,
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    ReasoningPart,
    ServerToolPart,
    TextPart,
    ToolCall,
    ToolMessage,
    ToolResult,
    UserMessage,
)
from plait.providers.base import ToolDefinition
from plait.schema import output_schema

if TYPE_CHECKING:
    from pathlib import Path

# A program that may not touch the network, and says so when it tries.
OFFLINE = """
import sys
def refuse(event, arguments):
    if event.startswith(("socket.connect", "socket.getaddrinfo", "socket.gethostbyname")):
        raise SystemExit("touched the network")
sys.addaudithook(refuse)
"""


class Letters:
    """A counter of one's own: a token for each character. Notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def count(self, text: str) -> int:
        self.asked.append(text)
        return len(text)


@pytest.fixture
def exact(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tables))


def run(program: str, folder: Path | str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE + program],
        env={"TIKTOKEN_CACHE_DIR": str(folder), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return (done.stdout + done.stderr).strip()


# --- counting exactly


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(("model", "encoding"), [("gpt-4o", "o200k_base"), ("gpt-4", "cl100k_base")])
def test_counts_are_tiktokens(model: str, encoding: str) -> None:
    counter = accurate(model)
    told = tiktoken.get_encoding(encoding)
    text = "Grüße, tiktoken! 1234567 <|endoftext|> 你好 \N{GRINNING FACE}\n\n  end"
    assert counter.count(text) == len(told.encode_ordinary(text)) == 24
    for long in kinds().values():
        assert abs(counter.count(long) - len(told.encode_ordinary(long))) <= len(long) // 4000
    assert counter.count("") == 0


@pytest.mark.usefixtures("exact")
def test_models_share_the_table_of_their_vocabulary() -> None:
    newer, older = accurate("gpt-4o"), accurate("gpt-4")
    assert newer is not older
    assert [accurate(name) is newer for name in ("", "gpt-5", "openai/gpt-4o-mini", "claude-sonnet-4", "o3")] == [
        True
    ] * 5
    assert [accurate(name) is older for name in ("gpt-4-turbo", "ft:gpt-4:me")] == [True] * 2


@pytest.mark.usefixtures("exact")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(codec=None), max_size=200))
@example("\ud800\udfff\ud800")
@example("\0<|fim_prefix|><|endofprompt|>")
def test_any_text_can_be_counted(text: str) -> None:
    for model in ("gpt-4o", "gpt-4"):
        assert min(1, len(text)) <= accurate(model).count(text) <= 4 * len(text)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(
    ("text", "tokens"),
    [("a" * 1_000_000, 125_000), ("\n" * 300_000, 18_750), (" " * 1_000_000, 7_813), ("word " * 100_000, 100_001)],
    ids=["letters", "lines", "blanks", "words"],
)
def test_long_texts_are_counted_in_pieces(text: str, tokens: int) -> None:
    assert accurate("gpt-4o").count(text) == pytest.approx(tokens, rel=0.05)


def test_threads_may_count_while_the_table_is_read(tables: Path) -> None:
    program = """
import threading
from plait.counting import accurate
found = []
start = threading.Barrier(4)
def count():
    start.wait()
    found.append(accurate("gpt-4").count("one two three"))
threads = [threading.Thread(target=count) for _ in range(4)]
[one.start() for one in threads]
[one.join() for one in threads]
print(found)
"""
    assert run(program, tables) == "[3, 3, 3, 3]"


def test_nothing_is_ever_downloaded(tmp_path: Path) -> None:
    program = """
from plait.counting import accurate
for model in ("gpt-4o", "gpt-4", "gpt-2", "text-davinci-003", "davinci", "gpt-oss-20b", "unknown"):
    try:
        accurate(model)
    except ValueError as error:
        print(type(error).__name__)
"""
    assert run(program, tmp_path).split() == ["ConfigurationError"] * 7
    assert run(program, "").split() == ["ConfigurationError"] * 7
    assert list(tmp_path.iterdir()) == []
    itself = "import tiktoken; tiktoken.get_encoding('o200k_base')"
    assert run(itself, tmp_path) == "touched the network", "or the guard guards nothing"


def test_counting_touches_no_network(tables: Path) -> None:
    assert run("from plait.counting import accurate; print(accurate().count('one two'))", tables) == "2"


def test_a_missing_table_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    path = tmp_path / "ec7223a39ce59f226a68acc30dc1af2788490e15"
    told = (
        "counting accurately needs tiktoken's table 'p50k_base', which {}, and plait downloads nothing by itself. "
        "Name a folder in the environment variable TIKTOKEN_CACHE_DIR and fetch it once: "
        "python -c \"import tiktoken; tiktoken.get_encoding('p50k_base')\". Or count with 'Simple'"
    )
    with pytest.raises(ConfigurationError) as missing:
        accurate("text-davinci-003")
    assert str(missing.value) == told.format(f"is not on this machine ({path})")
    path.write_bytes(b"IQ== 0\n")
    with pytest.raises(ConfigurationError) as damaged:
        counter_of("accurate", "text-davinci-003")
    assert str(damaged.value) == told.format(f"is damaged ({path})")
    assert path.read_bytes() == b"IQ== 0\n"


def test_without_tiktoken_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken.model", None)
    with pytest.raises(MissingExtra, match=r"counting tokens accurately needs .* pip install 'plait\[tokens\]'"):
        accurate()


# --- choosing a counter


@pytest.mark.usefixtures("exact")
def test_counters_are_named_in_any_case() -> None:
    own = Letters()
    assert counter_of("Simple") is counter_of("SIMPLE", "gpt-4o") is SIMPLE
    assert counter_of("simple", "gpt-4") is simple("gpt-4")
    assert counter_of("ACCURATE", "gpt-4") is accurate("gpt-4")
    assert counter_of(own) is own


@pytest.mark.parametrize("method", ["exact", "", None, 4, ["Simple"], ("x",), Letters, b"Simple", object()])
def test_other_counters_are_refused(method: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^tokens are counted by 'Accurate', 'Simple' or an object with count"
    ):
        counter_of(method)


# --- what is sent


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        (UserMessage(), 4),
        (UserMessage(text="12345"), 4 + 5),
        (
            AssistantMessage(parts=[ReasoningPart(text="123"), TextPart(text="12"), TextPart(text="1", refusal=True)]),
            4 + 6,
        ),
        (AssistantMessage(parts=[ToolCall(id="c", name="add", arguments="[1,2]")]), 4 + 4 + 3 + 5),
        (
            ToolMessage(
                parts=[
                    ToolResult(call_id="c", text="123"),
                    ToolResult(call_id="d", parts=[TextPart(text="12"), ImagePart(url="http://127.0.0.1/x.png")]),
                ]
            ),
            4 + (4 + 3) + (4 + 2 + 1000),
        ),
        (AssistantMessage(parts=[ServerToolPart(name="find", details={"q": "x"})]), 4 + 4 + 4 + len('{"q":"x"}')),
        (UserMessage(parts=[ImagePart(data=b"x" * 9000), ImagePart(data=b"x", detail="low")]), 4 + 1000 + 85),
        (UserMessage(parts=[AudioPart(data=b"x" * 4001)]), 4 + 5),
        (UserMessage(parts=[FilePart(data=b"x" * 5001), FilePart(file_id="f")]), 4 + 101 + 2000),
    ],
    ids=["empty", "text", "reasoning", "call", "results", "server tool", "images", "sound", "files"],
)
def test_a_message_is_counted_as_sent(message: Message, tokens: int) -> None:
    assert message_tokens(message, Letters()) == tokens


def test_a_message_is_counted_once_by_each_counter() -> None:
    one, other = Letters(), Letters()
    message = UserMessage(text="hello")
    assert [message_tokens(message, counter) for counter in (one, one, other, one, other)] == [9] * 5
    assert (one.asked, other.asked) == (["hello"], ["hello"])
    twin = UserMessage(text="hello")
    assert message_tokens(twin, one) == 9
    assert one.asked == ["hello", "hello"]


def test_what_is_gone_is_forgotten() -> None:
    counter = Letters()
    for number in range(100):
        assert message_tokens(UserMessage(text="x" * number), counter) == 4 + number
    gone = ref(counter)
    del counter
    gc.collect()
    assert gone() is None


def test_definitions_of_tools_are_counted_once() -> None:
    counter = Letters()
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}}}
    add = ToolDefinition(name="add", description="Add one.", parameters=parameters)
    schema = '{"type":"object","properties":{"a":{"type":"integer"}}}'
    assert tools_tokens([add], counter) == 8 + 3 + 8 + len(schema)
    assert tools_tokens((add, add), counter) == 2 * tools_tokens([add], counter)
    assert counter.asked == ["add", "Add one.", schema]
    assert tools_tokens((), counter) == 0


def test_the_type_of_an_answer_is_counted_once() -> None:
    counter = Letters()
    output = output_schema(int)
    tokens = output_tokens(output, counter)
    assert tokens == 8 + sum(map(len, counter.asked))
    assert output_tokens(output, counter) == tokens
    assert len(counter.asked) == 3


@pytest.mark.parametrize("given", [-1, 1.5, None, True, "4"])
def test_a_counter_that_gives_no_number_is_told(given: Any) -> None:
    class Wrong:
        def count(self, text: str) -> int:
            return given  # type: ignore[no-any-return]  # that is what is wrong

    with pytest.raises(ConfigurationError, match=r"^Wrong\.count\(text\) gives a whole number of at least 0, not "):
        message_tokens(UserMessage(text="x"), Wrong())


def test_text_with_lone_surrogates_is_counted_wherever_it_stands() -> None:
    message = AssistantMessage(parts=[ToolCall(id="c", name="\ud800", arguments="\ud800"), TextPart(text="\ud800")])
    assert message_tokens(message, SIMPLE) > 4
