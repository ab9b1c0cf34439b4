"""The kinds of agents for services: streaming, with images, with several models; and the sync face of all."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import pytest

from plait import (
    AsyncOpenAIMultimodalAgent,
    AsyncOpenAIMultiModelAgent,
    AsyncOpenAISimpleAgent,
    AsyncOpenAIStreamingAgent,
    Cancelled,
    ConfigurationError,
    Guardrails,
    ImagePart,
    OfflineProvider,
    ProviderError,
    ToolCall,
    Veto,
)
from plait.testing import Cut, FaultServer, Reply, Wire, answer, tool_calls

if TYPE_CHECKING:
    from pathlib import Path

PNG: Final = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001a5f6"
    "45400000000049454e44ae426082"
)
HELD: Final = answer("One two three four.").over(Wire(cut=Cut(event=4, then="hold")))


def get_weather(city: str) -> str:
    """Say the weather."""
    return f"{city}: sunny"


def streaming(provider: Any, **options: Any) -> AsyncOpenAIStreamingAgent:
    return AsyncOpenAIStreamingAgent("Streamer", provider=provider, **options)


def at(server: FaultServer, **options: Any) -> AsyncOpenAIStreamingAgent:
    return AsyncOpenAIStreamingAgent("Streamer", model="fault-1", api_key="k", base_url=server.url, **options)


# --- streaming --------------------------------------------------------------------------------------------------------


async def test_text_comes_in_pieces_and_the_response_after_them() -> None:
    with FaultServer(tool_calls("get_weather", {"city": "Oslo"}, text="I look."), "It is sunny in Oslo.") as server:
        stream = at(server, tool_registry=[get_weather]).send_message("Oslo?", user_id="ann", chat_id="1")
        pieces = [piece async for piece in stream]
        response = await stream
        assert [body["stream"] for body in server.requests] == [True, True]
    assert "".join(pieces) == "I look.\n\nIt is sunny in Oslo."
    assert len(pieces) > 4
    assert (response.output, response.stop_reason) == ("It is sunny in Oslo.", "response")
    assert (response.user_id, response.chat_id) == ("ann", "1")
    assert await stream is response
    assert [one["role"] for one in response.history] == ["user", "assistant", "function", "assistant"]


async def test_who_only_awaits_gets_the_response() -> None:
    response = await streaming("offline").send_message("Hi", [{"role": "user", "content": "Hello"}])
    assert (response.output, len(response.history)) == ("You said: Hi\nBefore that you said: Hello", 3)


async def test_who_leaves_early_ends_the_run() -> None:
    with FaultServer(HELD) as server:
        stream = at(server).send_message("Count.")
        async for _ in stream:
            break
        assert await asyncio.to_thread(server.wait_until_left)
        with pytest.raises(Cancelled):
            await stream


async def test_a_stop_ends_the_stream_and_not_its_reader() -> None:
    pieces: list[str] = []
    with FaultServer(HELD) as server:
        agent = at(server, manual_stop_signal_function=lambda: bool(pieces), check_for_stop_signal_time=0.02)
        stream = agent.send_message("Count.")
        async with asyncio.timeout(10):
            async for piece in stream:
                pieces.append(piece)  # noqa: PERF401  # the button looks at it
            response = await stream
        assert (response.stop_reason, response.output) == ("user_stop", "".join(pieces))
        server.play("Gladly.")
        again = await agent.send_message("Hello?", history=response.history)
        assert again.stop_reason == "user_stop"  # the button is still pressed


async def test_a_refused_answer_is_never_seen() -> None:
    def no_secret(event: Any) -> Veto | None:
        return Veto(reason="secret") if "secret" in event.message.text else None

    stream = streaming(OfflineProvider(["The secret is out."]), guardrails=Guardrails(output=[no_secret])).send_message(
        "?"
    )
    assert "secret" not in "".join([piece async for piece in stream])
    response = await stream
    assert (response.stop_reason, response.error) == ("guardrail", "refused by the check 'no_secret': secret")


async def test_what_fails_is_raised_where_it_is_read() -> None:
    with pytest.raises(ConfigurationError, match="the prompt is empty"):
        await streaming("offline").send_message(" ")
    with pytest.raises(ConfigurationError, match="the user id '' is empty"):
        await streaming("offline").send_message("Hi", user_id="")
    stream = streaming("offline").send_message("Hi", history="no list")
    with pytest.raises(ConfigurationError, match="history is a list of messages"):
        [piece async for piece in stream]
    with pytest.raises(ConfigurationError, match="history is a list of messages"):
        await stream


# --- images -----------------------------------------------------------------------------------------------------------


async def test_images_go_with_the_message_and_come_back_in_the_history(tmp_path: Path) -> None:
    (tmp_path / "dot.png").write_bytes(PNG)
    images: list[str | Path | bytes | ImagePart] = [
        "dot.png",
        tmp_path / "dot.png",
        PNG,
        "https://example.org/a.png",
        ImagePart(data=PNG),
    ]
    with FaultServer("A dot.", "Still.") as server:
        agent = AsyncOpenAIMultimodalAgent("Eye", model="fault-1", api_key="k", base_url=server.url)
        response = await agent.send_message("What is this?", images=images)
        history = json.loads(json.dumps(response.history))
        again = await agent.send_message("And now?", history=history)
        first, second = server.requests
    text, *shown = first["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is this?"}
    assert len(shown) == 5
    assert {part["type"] for part in shown} == {"image_url"}
    assert shown[3]["image_url"]["url"] == "https://example.org/a.png"
    assert len({part["image_url"]["url"] for part in shown}) == 2
    assert second["messages"][0] == first["messages"][0]
    assert (response.history[0]["content"], again.output) == ("What is this?", "Still.")


async def test_what_is_no_image_is_said() -> None:
    model = OfflineProvider(["never"])
    agent = AsyncOpenAIMultimodalAgent(provider=model)
    for given, sentence in (
        (
            ["ftp://example.org/a.png"],
            r"'ftp://example.org/a.png' is no address; it must begin with http:, https: or data:$",
        ),
        (["file:///a.png"], r"must begin with http:, https: or data:. A file is given with attachment\('/a.png'\)"),
        ("dot.png", r"images takes a list of images, not str; put a single one in brackets: images=\[...\]"),
        (["missing.png"], "the file 'missing.png', cannot be read: no such file or directory"),
        ([b"GIF87"], "an image is no PNG, JPEG, WebP or GIF image"),
    ):
        with pytest.raises(ConfigurationError, match=sentence):
            await agent.send_message("?", images=given)
    assert model.requests == []


# --- several models ---------------------------------------------------------------------------------------------------


async def test_the_next_model_is_asked_when_one_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with FaultServer(Reply(status=500), Reply(status=500), "From the second.") as server:
        agent = AsyncOpenAIMultiModelAgent(
            "Two", models=["first", "second"], api_key="k", base_url=server.url, retry_strategy=1
        )
        response = await agent.send_message("Hi", debug_print=True)
        assert [body["model"] for body in server.requests] == ["first", "first", "second"]
    assert (response.output, response.stop_reason) == ("From the second.", "response")
    assert "[Two] <- openai:second ended with stop, 9 tokens in, 12 out" in capsys.readouterr().out


async def test_a_chain_of_providers_of_any_kind() -> None:
    broken = OfflineProvider([ProviderError("no", status=500, retryable=True)], model="a")
    agent = AsyncOpenAIMultiModelAgent(models=[broken, "offline:b"])
    assert (await agent.send_message("Hi")).output == "You said: Hi"


def test_there_must_be_models() -> None:
    wrong: tuple[Any, ...] = (None, [], "gpt-4o")
    for models in wrong:
        with pytest.raises(ConfigurationError, match="models is a list of models, in the order"):
            AsyncOpenAIMultiModelAgent("Two", models=models)


# --- sync -------------------------------------------------------------------------------------------------------------


def test_sync_callers() -> None:
    agent = AsyncOpenAISimpleAgent(
        provider=OfflineProvider([ToolCall(id="c", name="get_weather", arguments='{"city":"Oslo"}'), "Sunny."]),
        tool_registry=[get_weather],
    )
    response = agent.send_message_sync("Oslo?", [], "ann", "1")
    assert (response.output, response.user_id, response.chat_id) == ("Sunny.", "ann", "1")


async def test_sync_callers_under_a_running_loop() -> None:
    assert AsyncOpenAISimpleAgent(provider="offline").send_message_sync("Hi").output == "You said: Hi"


def test_the_other_kinds_for_sync_callers() -> None:
    assert AsyncOpenAIStreamingAgent(provider="offline").send_message_sync("Hi").output == "You said: Hi"
    model = OfflineProvider(["A dot."])
    assert AsyncOpenAIMultimodalAgent(provider=model).send_message_sync("?", images=[PNG]).output == "A dot."
    assert [part.type for part in model.requests[0].messages[0].parts] == ["text", "image"]


async def test_an_agent_is_closed_by_its_block() -> None:
    async with AsyncOpenAISimpleAgent(provider="offline") as agent:
        assert (await agent.send_message("Hi")).output == "You said: Hi"
    with suppress(ConfigurationError):
        await agent.close()
