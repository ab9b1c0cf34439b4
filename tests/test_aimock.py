"""Conversations, in each dialect, with a mock server that others wrote: npm's package `@copilotkit/aimock`.

It needs Node.js, and fetches the package once, whose bytes must be the ones pinned here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from plait import Agent, TextDelta

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE: Final = "@copilotkit/aimock@1.43.0"
SHA512: Final = "V8D8cjSMtAR4rHaD2ulp3DR/ZguXQjDNOqwKDNvjb/OJL/KR1I0SDf5xpRCd+TYKjhmf9fM8Xpg3QBKPmV9Kmw=="
KEPT: Final = Path(sys.prefix) / "share" / "plait-tests" / "aimock-1.43.0"
ROOTS: Final = {"openai": "/v1", "openai-responses": "/v1", "openrouter": "/v1", "anthropic": "", "ollama": ""}
TOOLS: Final = [{"name": "weather", "arguments": json.dumps({"city": city})} for city in ("Lisbon", "Porto")]
FIXTURES: Final = [
    {"match": {"userMessage": "weather", "hasToolResult": False}, "response": {"toolCalls": TOOLS}},
    {"match": {"userMessage": "weather", "hasToolResult": True}, "response": {"content": "Sunny here, rainy there ☔"}},
    {"match": {"userMessage": "thank"}, "response": {"content": "You are welcome."}},
]


def missing(reason: str) -> str:
    """Skip where something is missing, but fail in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def program(node: str) -> Path:
    """Give the server's program; it is fetched once, and kept with the environment."""
    found = KEPT / "package" / "dist" / "cli.js"
    if found.exists():
        return found
    npm = shutil.which("npm") or missing("needs npm, to fetch a mock server that others wrote")
    KEPT.mkdir(parents=True, exist_ok=True)
    command = [npm, "pack", PACKAGE, "--silent", "--cache", str(KEPT / "cache"), "--pack-destination", str(KEPT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=KEPT)
    packed = next(KEPT.glob("*.tgz"), None)
    if done.returncode or packed is None:
        missing(f"npm could not fetch {PACKAGE}: {done.stderr.strip()[-300:]}")
    assert packed is not None
    assert base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode() == SHA512
    with tarfile.open(packed) as archive:
        archive.extractall(KEPT, filter="data")
    subprocess.run([node, str(found), "--help"], capture_output=True, timeout=45, check=True)
    return found


@pytest.fixture(scope="module")
def aimock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the mock server listens."""
    node = shutil.which("node") or missing("needs Node.js, for a mock server that others wrote")
    fixtures = tmp_path_factory.mktemp("aimock") / "fixtures.json"
    fixtures.write_text(json.dumps({"fixtures": FIXTURES}), "utf-8")
    command = [node, str(program(node)), "--port", "0", "--fixtures", str(fixtures), "--chunk-size", "4", "--strict"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        try:
            lines = iter(server.stdout.readline, "")
            address = next((found[0] for line in lines if (found := re.search(r"http://127\.0\.0\.1:\d+", line))), None)
            assert address is not None
            yield address
        finally:
            server.terminate()
            server.wait(10)


class City:
    """A tool that notes what it is called with."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def weather(self, city: str) -> str:
        """Tell the weather."""
        self.asked.append(city)
        return f"sunny in {city}" if city == "Lisbon" else f"rainy in {city}"


def agent_at(aimock: str, name: str, city: City) -> Agent[Any, str]:
    return Agent(
        role="You are brief.",
        provider=f"{name}:mock-model",
        api_key="sk-mock",
        base_url=aimock + ROOTS[name],
        tools=[city.weather],
    )


@pytest.mark.parametrize("name", ROOTS)
async def test_a_conversation_with_parallel_tools(name: str, aimock: str) -> None:
    city = City()
    agent = agent_at(aimock, name, city)
    assert await agent.chat("What is the weather in Lisbon and Porto?") == "Sunny here, rainy there ☔"
    assert sorted(city.asked) == ["Lisbon", "Porto"]
    assert await agent.chat("I thank you.") == "You are welcome."
    results = [message.tool_results for message in agent.history if message.role == "tool"]
    assert [[result.text for result in turn] for turn in results] == [["sunny in Lisbon", "rainy in Porto"]]


@pytest.mark.parametrize("name", ROOTS)
async def test_the_same_streamed(name: str, aimock: str) -> None:
    city = City()
    agent = agent_at(aimock, name, city)
    run = agent.run("What is the weather in Lisbon and Porto?")
    pieces = [event.text async for event in run if isinstance(event, TextDelta)]
    result = await run
    assert "".join(pieces) == result.output == "Sunny here, rainy there ☔"
    assert len(pieces) > 3
    assert sorted(city.asked) == ["Lisbon", "Porto"]
    assert (result.stop_reason, result.provider, result.truncated) == ("response", name, False)
    assert result.usage is not None
    assert result.usage.requests == 2
