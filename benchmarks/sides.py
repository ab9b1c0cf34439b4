"""What is measured against each other: the jobs, and how plait does them. `floor` and `peers` do the same jobs."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any, Final, Protocol

from pydantic import BaseModel

from plait.hooks import HOOK_NAMES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from benchmarks.dialects import Dialect
    from plait import Agent

ROLE: Final = "You are a helpful guide."
PROMPT: Final = "hello, this is one more turn of the same conversation"
KEY: Final = "no-key"
HISTORY: Final = 100_000
"""Messages of a thread that are sent: all of them."""


class City(BaseModel):
    """What a structured answer is."""

    name: str
    country: str
    population: int
    tags: list[str]


def _tool(name: str, does: str, x: str) -> Callable[..., Awaitable[str]]:
    """Give a tool as its user would write it: an async function of one number, with a docstring."""

    async def tool(x: int) -> str:
        return f"result {x}"

    tool.__name__ = tool.__qualname__ = name
    tool.__doc__ = f"{does}\n\nArgs:\n    x: {x}\n"
    return tool


TOOLS: Final = (
    _tool("look_up", "Look up the record with this number.", "the number"),
    _tool("count_items", "Count the items in this box.", "the box"),
    _tool("weigh", "Weigh the parcel with this number.", "the parcel"),
    _tool("tell_colour", "Tell the colour of this card.", "the card"),
    _tool("find_owner", "Find the owner of this key.", "the key"),
)


class Side(Protocol):
    """One way to do the jobs, with one HTTP client for all of them."""

    def runner(self, model: str, *, tools: bool = False, form: bool = False) -> Callable[[], Awaitable[object]]:
        """Give what runs once, with a conversation of its own, and gives the answer: a text, or with ``form`` a city.

        Any number may run at once.
        """
        ...

    def streamer(self, model: str) -> Callable[[], AsyncIterator[str]]:
        """Give what streams the text of an answer, piece by piece, in a conversation of its own."""
        ...

    async def close(self) -> None:
        """Close the client."""
        ...


class Talker(Side, Protocol):
    """A side that also goes on with a conversation, and speaks every dialect."""

    def dialect_runner(self, dialect: Dialect, model: str) -> Callable[[], Awaitable[object]]:
        """As `runner`, for text in another dialect."""
        ...

    def dialect_streamer(self, dialect: Dialect, model: str) -> Callable[[], AsyncIterator[str]]:
        """As `streamer`, in another dialect."""
        ...

    def talker(self, model: str) -> Callable[[], Awaitable[object]]:
        """Give what takes the next turn of one conversation, all of which is sent."""
        ...

    def builder(self) -> Callable[[], object]:
        """Give what makes an agent with the five tools, none of which is new."""
        ...


def _watch(_event: object) -> None:
    """Take note of an event."""


class Plait:
    """plait, used as its README says."""

    def __init__(self, base_url: str, *, hooked: bool = False) -> None:
        self._base_url = base_url
        self._hooks = dict.fromkeys(HOOK_NAMES, _watch) if hooked else None

    def hooked(self) -> Plait:
        """Give the same with a hook of every name."""
        return Plait(self._base_url, hooked=True)

    def agent(
        self,
        model: str,
        tools: Sequence[Callable[..., Awaitable[object]]] = (),
        dialect: Dialect | None = None,
        window: int | None = None,
    ) -> Agent:
        """Make an agent that answers with text."""
        from plait import Agent

        return Agent(
            role=ROLE,
            provider="openai" if dialect is None else dialect.provider,
            model=model,
            api_key=KEY,
            base_url=self._base_url if dialect is None else self._base_url.removesuffix("/v1") + dialect.root,
            tools=tools,
            memory_strategy="last_n" if window is None else "token_window",
            memory_params={"n": HISTORY} if window is None else {"max_tokens": window},
            hooks=self._hooks,
        )

    def runner(self, model: str, *, tools: bool = False, form: bool = False) -> Callable[[], Awaitable[object]]:
        """As `Side.runner`: each run is for a user of its own."""
        from plait import Agent

        agent: Agent[None, str] | Agent[None, City] = self.agent(model, TOOLS if tools else ())
        if form:
            agent = Agent(role=ROLE, provider="openai", model=model, api_key=KEY, base_url=self._base_url, output=City)
        return _runs(agent)

    def streamer(self, model: str) -> Callable[[], AsyncIterator[str]]:
        """As `Side.streamer`: each stream is for a user of its own."""
        return _streams(self.agent(model))

    def dialect_runner(self, dialect: Dialect, model: str) -> Callable[[], Awaitable[object]]:
        """As `Talker.dialect_runner`."""
        return _runs(self.agent(model, dialect=dialect))

    def dialect_streamer(self, dialect: Dialect, model: str) -> Callable[[], AsyncIterator[str]]:
        """As `Talker.dialect_streamer`."""
        return _streams(self.agent(model, dialect=dialect))

    def talker(self, model: str, window: int | None = None) -> Callable[[], Awaitable[object]]:
        """As `Talker.talker`: the agent's own thread, in memory; in a window of so many tokens."""
        agent = self.agent(model, window=window)
        return lambda: agent.chat(PROMPT)

    def builder(self) -> Callable[[], object]:
        """As `Talker.builder`."""
        return lambda: self.agent("fake", TOOLS)

    async def close(self) -> None:
        """Do nothing: plait closes its client with the event loop."""


def _runs(agent: Agent[None, Any]) -> Callable[[], Awaitable[object]]:
    users = count()

    async def run() -> object:
        user = f"user {next(users)}"
        answer = await agent.chat(PROMPT, user)
        agent.new_thread(user)
        return answer

    return run


def _streams(agent: Agent) -> Callable[[], AsyncIterator[str]]:
    users = count()

    def stream() -> AsyncIterator[str]:
        number = next(users)
        agent.new_thread(f"user {number - 1}")
        return aiter(agent.stream(PROMPT, f"user {number}"))

    return stream


def make_side(name: str, base_url: str) -> Side:
    """Make a side by its name: ``"plait"``, ``"floor"``, or a peer's.

    Raises:
        ImportError: what it needs is not installed.
    """
    if name == "plait":
        return Plait(base_url)
    if name == "floor":
        from benchmarks.floor import Floor

        return Floor(base_url)
    from benchmarks.peers import PEERS

    return PEERS[name].make(base_url)
