"""How others do the same jobs, each in its smallest usual program; those that are installed are measured beside plait.

Their modules are imported by name, so that the bench can be read, checked and run without them.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from benchmarks.floor import FORMAT, tool_schemas
from benchmarks.sides import KEY, PROMPT, ROLE, TOOLS, City

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from benchmarks.sides import Side

_MESSAGES: Final = ({"role": "system", "content": ROLE}, {"role": "user", "content": PROMPT})


class _Peer:
    """What all have in common: a base address, and perhaps a client of the official SDK."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._client: Any = None

    async def close(self) -> None:
        """Close the client; the others close theirs, if at all, by themselves."""
        if self._client is not None:
            await self._client.close()


class _Client(_Peer, ABC):
    """What only sends requests, with a hand-written loop."""

    _streamed: Mapping[str, Any] = MappingProxyType({"stream": True})

    @abstractmethod
    def _ask(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> Awaitable[Any]:
        """Send a request of the chat dialect, with the ``model`` among its options."""

    def runner(self, model: str, *, tools: bool = False, form: bool = False) -> Callable[[], Awaitable[object]]:
        """As `Side.runner`."""
        functions = {function.__name__: function for function in TOOLS}
        options: dict[str, Any] = {"model": model}
        if tools:
            options["tools"] = tool_schemas()
        if form:
            options["response_format"] = FORMAT

        async def run() -> object:
            messages: list[dict[str, Any]] = list(_MESSAGES)
            while True:
                message = (await self._ask(messages, **options)).choices[0].message
                if not message.tool_calls:
                    return City.model_validate_json(message.content) if form else message.content
                messages.append(message.model_dump(exclude_none=True))
                asked = [call.function for call in message.tool_calls]
                results = await asyncio.gather(*(functions[it.name](**json.loads(it.arguments)) for it in asked))
                messages += [
                    {"role": "tool", "tool_call_id": call.id, "content": result}
                    for call, result in zip(message.tool_calls, results, strict=True)
                ]

        return run

    def streamer(self, model: str) -> Callable[[], AsyncIterator[str]]:
        """As `Side.streamer`."""

        async def stream() -> AsyncIterator[str]:
            async for chunk in await self._ask(_MESSAGES, model=model, **self._streamed):
                if chunk.choices and (text := chunk.choices[0].delta.content):
                    yield text

        return stream


class OpenAI(_Client):
    """The official SDK."""

    _streamed = MappingProxyType({"stream": True, "stream_options": {"include_usage": True}})

    def __init__(self, base_url: str) -> None:
        super().__init__(base_url)
        self._client = import_module("openai").AsyncOpenAI(base_url=base_url, api_key=KEY)

    def _ask(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> Awaitable[Any]:
        created: Awaitable[Any] = self._client.chat.completions.create(messages=list(messages), **options)
        return created


class LiteLLM(_Client):
    """litellm."""

    def __init__(self, base_url: str) -> None:
        super().__init__(base_url)
        self._complete: Callable[..., Awaitable[Any]] = import_module("litellm").acompletion

    def _ask(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> Awaitable[Any]:
        options["model"] = f"openai/{options['model']}"
        return self._complete(messages=list(messages), api_base=self.base_url, api_key=KEY, **options)


class _Framework(_Peer, ABC):
    """What has agents: how one is made, run and streamed."""

    @abstractmethod
    def _agent(self, model: str, *, tools: bool = False, form: bool = False) -> Any:
        """Make an agent, with the tools, or with a `City` as its answer."""

    @abstractmethod
    async def _run(self, agent: Any) -> object:
        """Ask it once."""

    @abstractmethod
    def _stream(self, agent: Any) -> AsyncIterator[str]:
        """Ask it once, and give the pieces of the answer."""

    def runner(self, model: str, *, tools: bool = False, form: bool = False) -> Callable[[], Awaitable[object]]:
        """As `Side.runner`."""
        return partial(self._run, self._agent(model, tools=tools, form=form))

    def streamer(self, model: str) -> Callable[[], AsyncIterator[str]]:
        """As `Side.streamer`."""
        return partial(self._stream, self._agent(model))


class PydanticAI(_Framework):
    """pydantic-ai."""

    def _agent(self, model: str, *, tools: bool = False, form: bool = False) -> Any:
        provider = import_module("pydantic_ai.providers.openai").OpenAIProvider(base_url=self.base_url, api_key=KEY)
        chat = import_module("pydantic_ai.models.openai").OpenAIChatModel(model, provider=provider)
        return import_module("pydantic_ai").Agent(
            chat, system_prompt=ROLE, tools=TOOLS if tools else (), output_type=City if form else str
        )

    async def _run(self, agent: Any) -> object:
        return (await agent.run(PROMPT)).output

    async def _stream(self, agent: Any) -> AsyncIterator[str]:
        async with agent.run_stream(PROMPT) as result:
            async for text in result.stream_text(delta=True, debounce_by=None):
                yield text


class OpenAIAgents(_Framework):
    """openai-agents; its tracing, which would post to its vendor, is off."""

    def __init__(self, base_url: str) -> None:
        super().__init__(base_url)
        self._agents = import_module("agents")
        self._agents.set_tracing_disabled(disabled=True)
        self._client = import_module("openai").AsyncOpenAI(base_url=base_url, api_key=KEY)

    def _agent(self, model: str, *, tools: bool = False, form: bool = False) -> Any:
        agents = self._agents
        return agents.Agent(
            name="bench",
            instructions=ROLE,
            model=agents.OpenAIChatCompletionsModel(model=model, openai_client=self._client),
            tools=[agents.function_tool(function) for function in TOOLS] if tools else [],
            output_type=City if form else None,
        )

    async def _run(self, agent: Any) -> object:
        return (await self._agents.Runner.run(agent, PROMPT)).final_output

    async def _stream(self, agent: Any) -> AsyncIterator[str]:
        async for event in self._agents.Runner.run_streamed(agent, PROMPT).stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                yield event.data.delta


class Agno(_Framework):
    """agno, without telemetry."""

    def _agent(self, model: str, *, tools: bool = False, form: bool = False) -> Any:
        return import_module("agno.agent").Agent(
            model=import_module("agno.models.openai").OpenAIChat(id=model, base_url=self.base_url, api_key=KEY),
            instructions=ROLE,
            tools=list(TOOLS) if tools else None,
            output_schema=City if form else None,
            telemetry=False,
        )

    async def _run(self, agent: Any) -> object:
        return (await agent.arun(PROMPT)).content

    async def _stream(self, agent: Any) -> AsyncIterator[str]:
        async for event in agent.arun(PROMPT, stream=True):
            if event.event == "RunContent" and event.content:
                yield event.content


class LangGraph(_Framework):
    """langgraph, by langchain's `create_agent`."""

    def _agent(self, model: str, *, tools: bool = False, form: bool = False) -> Any:
        chat = import_module("langchain_openai").ChatOpenAI(
            model=model, base_url=self.base_url, api_key=KEY, stream_usage=True
        )
        return import_module("langchain.agents").create_agent(
            chat, tools=list(TOOLS) if tools else [], system_prompt=ROLE, response_format=City if form else None
        )

    async def _run(self, agent: Any) -> object:
        state = await agent.ainvoke({"messages": [_MESSAGES[1]]})
        return state["structured_response"] if "structured_response" in state else state["messages"][-1].content

    async def _stream(self, agent: Any) -> AsyncIterator[str]:
        async for message, _ in agent.astream({"messages": [_MESSAGES[1]]}, stream_mode="messages"):
            if message.content:
                yield message.content


@dataclass(frozen=True, slots=True)
class Peer:
    """A library: its distribution, what must be importable, how it is imported, and how it does the jobs."""

    package: str
    modules: tuple[str, ...]
    statement: str
    make: Callable[[str], Side]

    @property
    def is_installed(self) -> bool:
        """Whether all it needs is there."""
        return all(find_spec(module) is not None for module in self.modules)


PEERS: Final = {
    "openai SDK": Peer("openai", ("openai",), "from openai import AsyncOpenAI", OpenAI),
    "pydantic-ai": Peer(
        "pydantic-ai-slim",
        ("pydantic_ai", "openai"),
        "from pydantic_ai import Agent; from pydantic_ai.models.openai import OpenAIChatModel",
        PydanticAI,
    ),
    "openai-agents": Peer("openai-agents", ("agents", "openai"), "from agents import Agent, Runner", OpenAIAgents),
    "agno": Peer(
        "agno",
        ("agno", "openai"),
        "from agno.agent import Agent; from agno.models.openai import OpenAIChat",
        Agno,
    ),
    "langgraph": Peer(
        "langgraph",
        ("langgraph", "langchain", "langchain_openai"),
        "from langchain.agents import create_agent; from langchain_openai import ChatOpenAI",
        LangGraph,
    ),
    "litellm": Peer("litellm", ("litellm", "mcp"), "from litellm import acompletion", LiteLLM),
}
