"""Recorded conversations with tools, of every provider, gone through again by one and the same agent.

The replay server gives the recorded answers; the tools give the recorded results. What is asked must be what the
recorded client asked: so what a model said and thought goes back as it came, signatures and encrypted forms included.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final
from urllib.request import Request as Fetch
from urllib.request import urlopen

import pytest
from pydantic import BaseModel, create_model

from plait import Agent, MemoryStore, ProviderError, ServerToolPart, TextDelta, ToolCallFinished, get_provider, history
from providers import test_anthropic_recordings as anthropic
from providers import test_ollama_recordings as ollama
from providers import test_recordings as chat
from providers import test_responses_recordings as responses
from recorded import DELIVERIES, read_recordings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from plait import Message, Provider, Request, ToolDefinition

Json = dict[str, Any]
Called = list[tuple[str, Json]]

OK: Final = 200


OUTPUTS: Final = {
    "BookSummary": create_model("BookSummary", title=str, author=str, pages=int, publication_year=int),
}
"""The output types that recorded conversations have."""

SAID: Final = frozenset(
    {"type", "role", "id", "call_id", "name", "arguments", "content", "summary", "encrypted_content", "code"}
)
"""The fields of an item in the Responses dialect that every client sends back."""


# --- what a dialect's recordings say ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Family:
    """How the recordings of one kind of endpoint are read. Of all this, plait is told the provider's name.

    Attributes:
        provider: the name under which plait knows it.
        path: what its clients add to a base URL.
        as_request: says a recorded body with plait's values.
        normal: takes out of a body what may differ without meaning anything else.
        text: the text of a recorded answer, read by hand.
        thread: the field of a request that holds the messages.
        conversations: how many there are.
        changed: the fields that recorded clients changed in the middle of a conversation.
    """

    provider: str
    path: str
    as_request: Callable[[Json], Request]
    normal: Callable[[Json], Json]
    text: Callable[[Json], str]
    thread: str = "messages"
    conversations: int
    changed: frozenset[str] = frozenset()


def events_of(recording: Json) -> Iterator[Json]:
    return (json.loads(line[6:]) for line in recording["response"]["body"].splitlines() if line.startswith("data: {"))


def text_of_chat(recording: Json) -> str:
    if not recording["stream"]:
        return str(json.loads(recording["response"]["body"])["choices"][0]["message"]["content"] or "")
    deltas = [choice["delta"] for event in events_of(recording) for choice in event["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


def text_of_anthropic(recording: Json) -> str:
    if not recording["stream"]:
        return "".join(block.get("text", "") for block in json.loads(recording["response"]["body"])["content"])
    return "".join(event.get("delta", {}).get("text", "") for event in events_of(recording))


def text_of_ollama(recording: Json) -> str:
    return "".join(line["message"]["content"] for line in ollama.lines_of(recording))


def text_of_responses(recording: Json) -> str:
    items = [item for item in responses.recorded_items(recording) if item["type"] == "message"]
    return "".join(part["text"] for item in items for part in item["content"])


def without_titles(schema: Any) -> Any:
    """Leave out the titles that pydantic gives to everything; plait does not send them."""
    if not isinstance(schema, dict):
        return schema
    titled = isinstance(schema.get("title"), str)
    return {name: without_titles(value) for name, value in schema.items() if not (titled and name == "title")}


def normal_anthropic(body: Json) -> Json:
    made = anthropic.normal(body, bare=True)
    made["output_config"] = without_titles(made.get("output_config"))
    for message in made["messages"]:
        # One client says a blank before calls, which the model did not.
        message["content"] = [anthropic.as_sent(block) for block in message["content"] if block.get("text") != " "]
    return made


def normal_chat(body: Json) -> Json:
    """Leave out of encrypted thoughts their format, of which one client says that there is none."""
    made = chat.normal(body)
    for detail in (one for message in made["messages"] for one in message.get("reasoning_details", ())):
        detail.pop("format", None)
    return made


def normal_responses(body: Json) -> Json:
    """Leave out of what a model said what some clients leave out; that nothing is lost has a test of its own."""
    made = responses.normal(body)
    made["input"] = [as_said(item) if responses.is_said(item) else item for item in made["input"]]
    return made


def as_said(item: Json) -> Json:
    fields = SAID - {"id"} if item["type"] == "function_call" else SAID
    return {name: value for name, value in item.items() if name in fields and value != []}


def chat_family(provider: str, conversations: int, changed: frozenset[str] = frozenset()) -> Family:
    return Family(
        provider=provider,
        path="/chat/completions",
        as_request=lambda body: chat.as_request(body, provider),
        normal=normal_chat,
        text=text_of_chat,
        conversations=conversations,
        changed=changed,
    )


def responses_family(provider: str, conversations: int, changed: frozenset[str] = frozenset()) -> Family:
    return Family(
        provider=provider,
        path="/responses",
        as_request=lambda body: responses.as_request(body, provider),
        normal=normal_responses,
        text=text_of_responses,
        thread="input",
        conversations=conversations,
        changed=changed,
    )


FAMILIES: Final = {
    "openai-chat": chat_family("openai", 1, frozenset({"tools", "tool_choice"})),
    "openrouter-chat": chat_family("openrouter", 2),
    "ollama-openai": chat_family("ollama-chat", 2),
    "openai-responses": responses_family("openai-responses", 5, frozenset({"tools", "instructions"})),
    "openrouter-responses": responses_family("openrouter-responses", 1),
    "anthropic": Family(
        provider="anthropic",
        path="/v1/messages",
        as_request=anthropic.as_request,
        normal=normal_anthropic,
        text=text_of_anthropic,
        conversations=9,
        changed=frozenset({"container"}),  # the recorded one has expired
    ),
    "ollama-native": Family(
        provider="ollama",
        path="/api/chat",
        as_request=ollama.as_request,
        normal=ollama.normal,
        text=text_of_ollama,
        conversations=3,
    ),
}


# --- a conversation ---------------------------------------------------------------------------------------------------


class Conversation:
    """A recorded conversation: its exchanges in order."""

    def __init__(self, family: Family, steps: Sequence[Json]) -> None:
        self.family = family
        self.steps = sorted(steps, key=lambda step: int(step["step"]))
        self.scenario = str(self.steps[0]["scenario"])
        self.bodies: list[Json] = [step["request"]["body"] for step in self.steps]
        self.stream = bool(self.steps[0]["stream"])
        self.failed = int(self.steps[-1]["response"]["status"]) != OK

    @cached_property
    def requests(self) -> list[Request]:
        return [self.family.as_request(body) for body in self.bodies]

    @property
    def has_tools(self) -> bool:
        """Whether it goes on after a call of a tool, perhaps one of the provider's own."""
        parts = [part for message in self.requests[-1].messages for part in message.parts]
        return any(part.type == "tool_call" or isinstance(part, ServerToolPart) for part in parts)

    @property
    def interrupted(self) -> bool:
        """Whether the recorded client put words of its own behind the result of a tool, which an agent does not."""
        roles = [message.role for message in self.requests[-1].messages]
        return ("tool", "user") in pairwise(roles)

    @property
    def prompts(self) -> list[Message]:
        request = self.requests[0 if self.interrupted else -1]
        return [message for message in request.messages if message.role == "user"]

    @property
    def results(self) -> list[str]:
        return [result.text for message in self.requests[-1].messages for result in message.tool_results]

    @property
    def calls(self) -> Called:
        calls = [call for message in self.requests[-1].messages for call in message.tool_calls]
        return [(call.name, json.loads(call.arguments)) for call in calls]

    @property
    def texts(self) -> list[str]:
        return [self.family.text(step) for step in self.steps if step["response"]["status"] == OK]

    @property
    def output(self) -> type[BaseModel] | None:
        form = self.bodies[0].get("output_format")
        return None if form is None else OUTPUTS[form["schema"]["title"]]

    @property
    def changed(self) -> set[str]:
        """The fields that the recorded client changed on its way, beside the thread."""
        first, *later = self.bodies
        names = {name for body in self.bodies for name in body} - {self.family.thread}
        return {name for name in names if any(body.get(name) != first.get(name) for body in later)}

    def said_in(self, body: Json) -> Json:
        """Give what a request says, as far as an agent can say it as the recorded client did."""
        made = {name: value for name, value in self.family.normal(body).items() if name not in self.changed}
        if self.interrupted:
            made[self.family.thread] = [one for one in made[self.family.thread] if one.get("role") != "user"]
        return made

    def provider(self, server: str) -> Provider:
        asked = self.steps[0]["request"]
        return get_provider(
            f"{self.family.provider}:{asked['body']['model']}",
            base_url=server + asked["path"].removesuffix(self.family.path),
            api_key="sk-recorded",
            headers={"x-replay-id": self.scenario},
        )


class Tools:
    """The recorded tools as functions: they note their arguments, and give the recorded results in order."""

    def __init__(self, conversation: Conversation) -> None:
        self.results = conversation.results
        self.called: Called = []
        self.forms = [
            {"name": tool.name, "function_schema": schema_of(tool), "func": self._function(tool.name)}
            for tool in conversation.requests[0].tools
        ]

    def _function(self, name: str) -> Callable[..., Any]:
        async def call(**arguments: Any) -> str:
            self.called.append((name, arguments))
            return self.results[len(self.called) - 1]

        return call


def schema_of(tool: ToolDefinition) -> Json:
    names = ("name", "description", "parameters", "strict")
    return {name: getattr(tool, name) for name in names}


def conversations(shared: Path, family: str) -> list[Conversation]:
    by_scenario: dict[str, list[Json]] = {}
    for recording in read_recordings(shared, family):
        by_scenario.setdefault(recording["scenario"], []).append(recording)
    made = [Conversation(FAMILIES[family], steps) for steps in by_scenario.values() if len(steps) > 1]
    return [conversation for conversation in made if conversation.has_tools]


def journal(server: str) -> list[Json]:
    """Give the bodies of the requests that a replay server got since it was reset."""
    with urlopen(f"{server}/__journal") as answer:  # noqa: S310  # on 127.0.0.1
        return [one["body"] for one in json.load(answer)]


def reset(server: str) -> None:
    with urlopen(Fetch(f"{server}/__reset", method="POST")):  # noqa: S310  # on 127.0.0.1
        pass


# --- the one agent ----------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What a program sees of a conversation."""

    streamed: str = ""
    finished: Called = field(default_factory=list)
    output: Any = None
    error: ProviderError | None = None


async def converse(agent: Agent[Any, Any], prompts: Sequence[Message], *, stream: bool) -> Outcome:
    """Say each prompt in turn, in one thread, as a program would that knows nothing of providers."""
    seen = Outcome()
    try:
        for prompt in prompts:
            if not stream:
                seen.output = await agent.chat(prompt, thread="t")
                continue
            run = agent.run(prompt, thread="t")
            async for event in run:
                if isinstance(event, TextDelta):
                    seen.streamed += event.text
                elif isinstance(event, ToolCallFinished):
                    seen.finished.append((event.call.name, json.loads(event.call.arguments or "{}")))
            result = await run
            assert result.stop_reason == "response"
            seen.output = result.output
    except ProviderError as error:
        seen.error = error
    return seen


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("family", FAMILIES)
async def test_each_conversation_is_had_again(
    shared: Path, servers: dict[str, str], family: str, delivery: str
) -> None:
    server = servers[delivery]
    found = conversations(shared, family)
    for recorded in found:
        reset(server)
        first, tools = recorded.requests[0], Tools(recorded)
        agent: Agent[Any, Any] = Agent(
            role=next((message.text for message in first.messages if message.role == "system"), None),
            provider=recorded.provider(server),
            tools=tools.forms,
            output=recorded.output,
            settings=first.settings,
            store=MemoryStore(),
        )
        seen = await converse(agent, recorded.prompts, stream=recorded.stream)

        assert tools.called == recorded.calls
        said = history(await agent.log("t"))
        assert [result.text for message in said for result in message.tool_results] == recorded.results
        assert [message.text for message in said if message.role == "assistant"] == recorded.texts
        if recorded.failed:
            assert seen.error is not None
            assert seen.error.status == recorded.steps[-1]["response"]["status"]
        else:
            assert seen.error is None
            kind = recorded.output
            assert seen.output == (kind.model_validate_json(recorded.texts[-1]) if kind else recorded.texts[-1])
        if recorded.stream:
            assert seen.streamed == "".join(recorded.texts)
            assert seen.finished == recorded.calls
        assert [*map(recorded.said_in, journal(server))] == [*map(recorded.said_in, recorded.bodies)]
    assert len(found) == FAMILIES[family].conversations
    assert set().union(*(recorded.changed for recorded in found)) == FAMILIES[family].changed
