"""What an agent and a run may be given, and the checks of it: wrong arguments are refused before anything begins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypedDict, get_args

from plait.definition import AgentDefinition
from plait.errors import ConfigurationError
from plait.guardrails.guarding import NO_GUARDRAILS, Guardrails
from plait.interrupts import Secret
from plait.limits import budgets_of
from plait.messages import (
    AudioPart,
    ContentPart,
    FilePart,
    ImagePart,
    Message,
    TextPart,
    UserMessage,
    as_message,
)
from plait.providers.base import Settings, check_setting
from plait.run import RunLimits, StopPoll, StopSignal
from plait.store.catalog import check_url
from plait.threads import IfBusy

if TYPE_CHECKING:
    from plait.guardrails.judge import InjectionJudge
    from plait.hooks import Hook
    from plait.limits import BudgetLike
    from plait.providers.base import Provider
    from plait.store.base import Store
    from plait.tools import ToolForm

Prompt = str | Message | ContentPart | list[Any] | tuple[Any, ...]
"""What a run answers: text, a message, or several (a history of texts, messages and role-content dicts); or texts and
parts, ``["What is this?", attachment("cat.jpg")]``, which are one message together."""

StopFunction = Callable[..., bool | Awaitable[bool]]
"""Says whether to stop; see `StopPoll`."""

_CONTENT: Final = (TextPart, ImagePart, AudioPart, FilePart)


class RunOptions(TypedDict, total=False):
    """What a single run may be given beside its prompt.

    Attributes:
        deps: whatever the agent's tools need; they find it as ``context.deps``.
        secrets: values for the tools' `Secret` parameters, by parameter name.
        stop: ends the run, with the stop reason ``"user_stop"``: when it is set, or, of a function (see `StopPoll`,
            which also says how often it is asked), when it gives True.
        limits: in place of the agent's own.
        if_busy: what to do while another run is under way on the thread: ``"queue"`` (wait, the default),
            ``"reject"`` (raise `StateConflict`) or ``"interrupt"`` (stop it and go on).
        hooks: callables by hook name, for this run, called after the agent's own.
        budget: in place of the agent's own; an empty list for none.
    """

    deps: Any
    secrets: Mapping[str, Secret]
    stop: StopSignal | StopPoll | asyncio.Event | StopFunction
    limits: RunLimits
    if_busy: IfBusy
    hooks: Mapping[str, Hook | Sequence[Hook]]
    budget: BudgetLike


def definition_of(
    definition: AgentDefinition | None,
    role: str | None,
    goal: str | None,
    constraints: Sequence[str] | None,
    personality: Mapping[str, str] | None,
) -> AgentDefinition:
    """Give the definition that an agent's arguments mean.

    Raises:
        ConfigurationError: an argument has the wrong type, or a definition is given twice.
    """
    fields = {"goal": goal, "constraints": constraints, "personality": personality}
    given: dict[str, Any] = {key: value for key, value in fields.items() if value is not None}
    if definition is None:
        if role is not None and not isinstance(role, str):
            msg = f"Agent(role=...) takes a text, not {type(role).__name__}"
            raise ConfigurationError(msg)
        return AgentDefinition(role=role or "", **given)
    if not isinstance(definition, AgentDefinition):
        msg = f"Agent(definition=...) takes an AgentDefinition, not {type(definition).__name__}; a text is role=..."
        raise ConfigurationError(msg)
    if role is not None or given:
        also = "role" if role is not None else next(iter(given))
        msg = f"Agent takes a definition or {also!r}, not both; put it into the definition"
        raise ConfigurationError(msg)
    return definition


def settings_of(settings: Settings, temperature: float | None, max_tokens: int | None) -> Settings:
    """Give the settings with the two that an agent takes by themselves.

    Raises:
        ConfigurationError: a number is none, or is below 0; or the settings are none.
    """
    if not isinstance(settings, Settings):
        msg = f"settings takes a Settings, not {type(settings).__name__}: settings=Settings(top_p=0.9)"
        raise ConfigurationError(msg)
    check_setting("Agent", "temperature", temperature)
    check_setting("Agent", "max_tokens", max_tokens)
    if temperature is None and max_tokens is None:
        return settings
    return replace(
        settings,
        temperature=settings.temperature if temperature is None else temperature,
        max_tokens=settings.max_tokens if max_tokens is None else max_tokens,
    )


def list_of_tools(tools: Sequence[str | ToolForm] | None) -> Sequence[str | ToolForm]:
    """Give the tools as they were given, if they are a list.

    Raises:
        ConfigurationError: they are something else; a single tool is easily forgotten to be put in one.
    """
    if tools is None:
        return ()
    if isinstance(tools, list | tuple):
        return tools
    msg = f"tools takes a list of tools, not {type(tools).__name__}; put a single one in brackets: tools=[...]"
    raise ConfigurationError(msg)


def guardrails_of(guardrails: Guardrails | None, judge_provider: str | Provider | InjectionJudge | None) -> Guardrails:
    """Give what an agent checks, with its judge.

    Raises:
        ConfigurationError: the guardrails are none, or the judge is unknown.
    """
    if guardrails is None:
        checks = NO_GUARDRAILS
    elif isinstance(guardrails, Guardrails):
        checks = guardrails
    else:
        msg = f"guardrails takes a Guardrails, not {type(guardrails).__name__}: guardrails=Guardrails(input=[...])"
        raise ConfigurationError(msg)
    if judge_provider is None:
        return checks
    from plait.guardrails.judge import judge_of  # few agents have one

    return checks.judged_by(judge_of(judge_provider))


def store_of(store: str | Store | None) -> str | Store | None:
    """Give the store as it was given, if it can be one.

    Raises:
        ConfigurationError: it is no URL of a store, and no store.
    """
    if isinstance(store, str):
        check_url(store)
        return store
    if store is None or callable(getattr(store, "append", None)):
        return store
    msg = f"store takes a URL such as 'sqlite:///file.db', or a store, not {type(store).__name__}"
    raise ConfigurationError(msg)


def messages_of(prompt: Prompt) -> tuple[Message, ...]:
    """Give the messages that a prompt means.

    Raises:
        ConfigurationError: it is empty or blank, or holds something that is no message.
    """
    if isinstance(prompt, str | Message):
        made: tuple[Message, ...] = (as_message(prompt),)
    elif isinstance(prompt, _CONTENT):
        made = (_of_parts((prompt,)),)
    elif isinstance(prompt, list | tuple):
        mixed = any(isinstance(item, _CONTENT) for item in prompt)
        made = (_of_parts(prompt),) if mixed else tuple(as_message(item) for item in prompt)
    else:
        made = (as_message(prompt),)
    if not made or _is_blank(made[-1]):
        msg = "the prompt is empty: give a text, a Message, or a list of them with the newest last"
        raise ConfigurationError(msg)
    if made[-1].role != "user":
        msg = f"a prompt ends with what the user says, and this one ends with a message of role {made[-1].role!r}"
        raise ConfigurationError(msg)
    return made


def _is_blank(message: Message) -> bool:
    """Whether a message says nothing; some providers refuse the whole conversation for one."""
    return all(isinstance(part, TextPart) and not part.text.strip() for part in message.parts)


def _of_parts(given: Sequence[Any]) -> UserMessage:
    """Give the one message that texts and parts make."""
    for item in given:
        if not isinstance(item, (str, *_CONTENT)):
            msg = (
                "a prompt is a list of messages, or a list of texts and parts that are one message; this one has both "
                f"parts and {type(item).__name__}"
            )
            raise ConfigurationError(msg)
    return UserMessage(parts=[TextPart(text=item) if isinstance(item, str) else item for item in given])


def is_stop(value: object) -> bool:
    """Whether something can end a run: a signal, an event, or a function that says whether to stop."""
    return isinstance(value, StopSignal | StopPoll | asyncio.Event) or callable(value)


def stop_of(
    stop: StopSignal | StopPoll | asyncio.Event | StopFunction | None,
) -> StopSignal | StopPoll | asyncio.Event | None:
    """Give what ends a run; a bare function is asked as often as is usual.

    Raises:
        ConfigurationError: the function takes more than it is given.
    """
    if stop is None or isinstance(stop, StopSignal | StopPoll | asyncio.Event):
        return stop
    return StopPoll(stop)


def check_options(options: RunOptions) -> None:
    """Refuse what a type checker would have refused: a misspelt option is never silently ignored.

    Raises:
        ConfigurationError: an option is unknown, or its value has the wrong type.
    """
    for name, value in options.items():
        expected = _OPTIONS.get(name)
        if expected is None:
            msg = f"a run has no option {name!r}; it has thread, user_id, {', '.join(_OPTIONS)}"
            raise ConfigurationError(msg)
        if not expected[0](value):
            msg = f"the option {name!r} takes {expected[1]}, not {value!r:.80}"
            raise ConfigurationError(msg)


def _is_secrets(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(secret, Secret) for secret in value.values())


_OPTIONS: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "deps": (lambda _: True, "anything"),
    "secrets": (_is_secrets, "a mapping of names to Secret values"),
    "stop": (
        is_stop,
        "a StopSignal, an asyncio.Event, or a function that says whether to stop",
    ),
    "limits": (lambda value: isinstance(value, RunLimits), "a RunLimits"),
    "if_busy": (lambda value: value in get_args(IfBusy), " or ".join(map(repr, get_args(IfBusy)))),
    "hooks": (lambda value: isinstance(value, Mapping), "a mapping of hook names to functions"),
    "budget": (lambda value: value is not None and budgets_of(value) is not None, "a Budget, or several in a list"),
}
