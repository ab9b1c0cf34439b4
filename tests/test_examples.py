"""The programs in examples/ run as they stand, against recordings."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.request import urlopen

import pytest

from plait.providers.vendors import VENDORS
from plait.testing import FaultServer, Reply, Wire, tool_calls
from test_recorded_runs import FAMILIES, conversations

if TYPE_CHECKING:
    from test_recorded_runs import Conversation

EXAMPLES = Path(__file__).parents[1] / "examples"
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


async def run(program: str, *arguments: str, **variables: str) -> tuple[int | None, list[str], bytes]:
    """Run a program in the working folder of the test; give its exit code, what it printed, and its errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLES / program), *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables},
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, out.decode().splitlines(), err


def asked(server: str, count: int) -> list[tuple[str, dict[str, str]]]:
    """Give path and body of the last requests that a replay server got."""
    with urlopen(f"{server}/__journal") as answer:  # noqa: S310  # on 127.0.0.1
        return [(one["path"], one["body"]) for one in json.load(answer)[-count:]]


async def test_images_at_openai(servers: dict[str, str], tmp_path: Path) -> None:
    server = servers["as recorded"]
    done = await run("images.py", OPENAI_API_KEY="sk-test", OPENAI_BASE_URL=f"{server}/v1")
    assert done == (0, ["Generated cityscape.png", "Edited cityscape-with-rainbow.png"], b"")
    made = {name: (tmp_path / name).read_bytes()[:8] for name in ("cityscape.png", "cityscape-with-rainbow.png")}
    assert made == dict.fromkeys(made, PNG)
    settings = {"model": "gpt-image-1", "size": "1024x1024"}
    words = "A futuristic cityscape with flying cars at sunset"
    assert asked(server, 2) == [
        ("/v1/images/generations", {**settings, "prompt": words, "quality": "high"}),
        ("/v1/images/edits", {**settings, "prompt": "Add a rainbow in the sky", "image": "<file>"}),
    ]


async def test_images_at_openrouter(servers: dict[str, str], tmp_path: Path) -> None:
    server = servers["as recorded"]
    variables = {"OPENROUTER_API_KEY": "sk-test", "OPENROUTER_BASE_URL": f"{server}/api/v1"}
    done = await run("images.py", "openrouter", **variables)
    assert done == (0, ["Generated cityscape.jpg", "Edited cityscape-with-rainbow.jpg"], b"")
    assert (tmp_path / "cityscape.jpg").read_bytes()[:3] == JPEG
    (first, made), (second, edited) = asked(server, 2)
    assert (first, second) == ("/api/v1/images", "/api/v1/images")
    assert sorted(made) == ["model", "prompt", "quality"]
    assert sorted(edited) == ["input_references", "model", "prompt"]


@pytest.mark.parametrize("variables", [{}, {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}])
async def test_what_goes_wrong_is_said(variables: dict[str, str]) -> None:
    code, said, errors = await run("images.py", **variables)
    assert code == 1
    last = (said or errors.decode().splitlines())[-1]
    assert ("cannot connect to 127.0.0.1:1" if variables else "set OPENAI_API_KEY") in last


# --- the weather, by any provider -------------------------------------------------------------------------------------

ABOUT_WEATHER: Final = {
    "anthropic": "rig-anthropic-reasoning-tool-roundtrip-streaming",
    "ollama-native": "rig-ollama-reasoning-tool-roundtrip-streaming",
    "openai-responses": "rig-openai-responses-sessions-reasoning-session-two-tool-calls-streaming",
    "openrouter-chat": "rig-openrouter-streaming-tools-stream-encrypted-reasoning-survives-into-the-next-turn",
}
"""The recorded conversations, streamed, with a tool that tells the weather."""


def variables_for(provider: str, server: FaultServer) -> dict[str, str]:
    """Give the environment in which a provider is asked at a server."""
    vendor = VENDORS[provider]
    assert vendor.base_url_variable is not None
    assert vendor.key_variable is not None
    return {vendor.base_url_variable: server.url_for(vendor.dialect), vendor.key_variable: "sk-test"}


def replies_of(conversation: Conversation) -> list[Reply]:
    """Give the recorded answers, as they were recorded, in pieces that end anywhere."""
    answers = [step["response"] for step in conversation.steps]
    wire = Wire(framing="chunked", piece=97)
    return [
        Reply(body=answer["body"].encode(), headers={"content-type": answer["headers"]["content-type"]}, wire=wire)
        for answer in answers
    ]


@pytest.mark.parametrize("family", ABOUT_WEATHER)
async def test_the_weather_from_recordings(shared: Path, family: str) -> None:
    wanted = f"{family}/{ABOUT_WEATHER[family]}"
    (recorded,) = (one for one in conversations(shared, family) if one.scenario == wanted)
    provider, model = FAMILIES[family].provider, recorded.bodies[0]["model"]
    with FaultServer(*replies_of(recorded)) as server:
        variables = variables_for(provider, server)
        code, lines, errors = await run("weather.py", f"{provider}:{model}", recorded.prompts[0].text, **variables)
        assert (code, errors) == (0, b"")
        *said, who = lines
        assert who.startswith(f"({provider}:")
        called = re.compile(r"\n\[(get_weather) (\{.*?\}): (.*)\]\n")
        text = "\n".join(said)
        shown = [(name, json.loads(arguments), result) for name, arguments, result in called.findall(text)]
        assert shown == [(*call, result) for call, result in zip(recorded.calls, recorded.results, strict=True)]
        assert called.sub("", text) == "".join(recorded.texts)
        thread = FAMILIES[family].thread

        def conversation_in(body: dict[str, Any]) -> list[Any]:
            return [one for one in recorded.said_in(body)[thread] if one.get("role") != "system"]

        assert [*map(conversation_in, server.requests)] == [*map(conversation_in, recorded.bodies)]
        assert [body["stream"] for body in server.requests] == [True, True]


@pytest.mark.parametrize("provider", [*VENDORS])
async def test_the_weather_by_two_tools(provider: str) -> None:
    both = tool_calls(("get_weather", {"city": "Lisbon"}), ("get_forecast", {"city": "Porto", "days": 2}))
    with FaultServer(both, "Sunny here, rainy there.") as server:
        done = await run("weather.py", f"{provider}:any", **variables_for(provider, server))
        assert [body["stream"] for body in server.requests] == [True, True]
    code, lines, errors = done
    assert (code, errors) == (0, b"")
    lisbon = "Weather in Lisbon: 72F (22C), sunny with light clouds, humidity 45%, wind 8 mph NW"
    porto = "Weather in Porto for 2 days: rain at first, then brighter, 64F (18C)"
    assert [line for line in lines[:-1] if line] == [
        f'[get_weather {{"city": "Lisbon"}}: {lisbon}]',
        f'[get_forecast {{"city": "Porto", "days": 2}}: {porto}]',
        "Sunny here, rainy there.",
    ]
    assert lines[-1].startswith(f"({provider}:")
