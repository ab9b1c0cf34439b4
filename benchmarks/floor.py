"""The floor: the same jobs written by hand, on aiohttp and orjson, with nothing that is not needed for them.

No checks, no retries, no limits, no usage, no log: what is left cannot be done for less in Python.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import orjson

from benchmarks.sides import KEY, PROMPT, ROLE, TOOLS, City

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from benchmarks.dialects import Dialect

_FUNCTIONS: Final = {function.__name__: function for function in TOOLS}
_SYSTEM: Final = {"role": "system", "content": ROLE}
_USER: Final = {"role": "user", "content": PROMPT}
_DATA: Final = b"data: {"


def tool_schemas() -> list[dict[str, Any]]:
    """Write the schemas of the tools, as somebody would who writes them by hand."""
    number = {"type": "integer", "description": "the number"}
    form = {"type": "object", "properties": {"x": number}, "required": ["x"], "additionalProperties": False}
    return [
        {
            "type": "function",
            "function": {"name": name, "description": (function.__doc__ or "").split("\n")[0], "parameters": form},
        }
        for name, function in _FUNCTIONS.items()
    ]


FORMAT: Final[dict[str, Any]] = {
    "type": "json_schema",
    "json_schema": {
        "name": "City",
        "schema": {**City.model_json_schema(), "additionalProperties": False},
        "strict": True,
    },
}


class Floor:
    """A hand-written loop."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._url = f"{base_url}/chat/completions"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            headers={"authorization": f"Bearer {KEY}", "content-type": "application/json"},
        )

    async def _loop(self, body: dict[str, Any], messages: list[dict[str, Any]]) -> str:
        """Ask, call what the answer asks for, ask again, until the answer is text; ``messages`` grows."""
        while True:
            async with self._session.post(self._url, data=orjson.dumps({**body, "messages": messages})) as response:
                answer = orjson.loads(await response.read())
            message = answer["choices"][0]["message"]
            calls = message.get("tool_calls")
            if not calls:
                text: str = message["content"]
                messages.append({"role": "assistant", "content": text})
                return text
            messages.append(message)
            functions = [call["function"] for call in calls]
            results = await asyncio.gather(
                *(_FUNCTIONS[function["name"]](**orjson.loads(function["arguments"])) for function in functions)
            )
            messages += [
                {"role": "tool", "tool_call_id": call["id"], "content": result}
                for call, result in zip(calls, results, strict=True)
            ]

    def runner(self, model: str, *, tools: bool = False, form: bool = False) -> Callable[[], Awaitable[object]]:
        """As `Side.runner`."""
        body: dict[str, Any] = {"model": model}
        if tools:
            body["tools"] = tool_schemas()
        if form:
            body["response_format"] = FORMAT

        async def run() -> object:
            text = await self._loop(body, [_SYSTEM, _USER])
            return City.model_validate_json(text) if form else text

        return run

    def streamer(self, model: str) -> Callable[[], AsyncIterator[str]]:
        """As `Side.streamer`."""
        body = {
            "model": model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": [_SYSTEM, _USER],
        }

        async def stream() -> AsyncIterator[str]:
            async with self._session.post(self._url, data=orjson.dumps(body)) as response:
                rest = b""
                async for part in response.content.iter_any():
                    *lines, rest = (rest + part).split(b"\n")
                    for line in lines:
                        if line.startswith(_DATA):
                            choices = orjson.loads(line[6:])["choices"]
                            if choices and (text := choices[0]["delta"].get("content")):
                                yield text

        return stream

    def talker(self, model: str) -> Callable[[], Awaitable[object]]:
        """As `Talker.talker`."""
        messages: list[dict[str, Any]] = [_SYSTEM]

        def turn() -> Awaitable[object]:
            messages.append(_USER)
            return self._loop({"model": model}, messages)

        return turn

    def builder(self) -> Callable[[], object]:
        """As `Talker.builder`."""
        return lambda: {"model": "fake", "tools": tool_schemas()}

    def dialect_runner(self, dialect: Dialect, model: str) -> Callable[[], Awaitable[object]]:
        """As `Talker.dialect_runner`."""
        url, body = self._address(dialect), dialect.request(model) | {"stream": False}

        async def run() -> str:
            async with self._session.post(url, data=orjson.dumps(body)) as response:
                return dialect.text_of(orjson.loads(await response.read()))

        return run

    def dialect_streamer(self, dialect: Dialect, model: str) -> Callable[[], AsyncIterator[str]]:
        """As `Talker.dialect_streamer`."""
        url, body = self._address(dialect), dialect.request(model) | {"stream": True}

        async def stream() -> AsyncIterator[str]:
            async with self._session.post(url, data=orjson.dumps(body)) as response:
                rest = b""
                async for part in response.content.iter_any():
                    *lines, rest = (rest + part).split(b"\n")
                    for line in lines:
                        if text := dialect.piece_of(line):
                            yield text

        return stream

    def _address(self, dialect: Dialect) -> str:
        return self._base_url.removesuffix("/v1") + dialect.root + dialect.path

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()
