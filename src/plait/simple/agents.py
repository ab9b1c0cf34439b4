"""`AsyncOpenAISimpleAgent` and its kin: one message in, one response out, in the words of services.

Each is a shell over `Agent`: its parameters are an agent's options, and what carries them out is the one loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from plait.agent import Agent
from plait.entries import MessageEntry
from plait.errors import ConfigurationError, excerpt
from plait.ids import new_id
from plait.limits import budgets_of
from plait.options import messages_of
from plait.portal import PORTAL
from plait.run import DEFAULT_LIMITS, DEFAULT_USER, RunLimits, StopPoll
from plait.simple.history import read_history
from plait.simple.printing import DebugPrinter
from plait.simple.response import MessageResponse, response_of
from plait.simple.words import in_the_words_of_services, provider_of, window_of
from plait.store.base import check_name
from plait.store.memory import MemoryStore
from plait.threads import Thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from plait.counting import Counter
    from plait.explaining import Explanation
    from plait.guardrails.guarding import Guardrails
    from plait.guardrails.judge import InjectionJudge
    from plait.hooks import Hook
    from plait.limits import BudgetLike
    from plait.loop import Run
    from plait.mcp.client.several import MCPServerForm
    from plait.options import Prompt, RunOptions
    from plait.prices import PriceLike
    from plait.providers.base import Provider
    from plait.providers.retry import RetryPolicy
    from plait.simple.words import DroppingStrategy
    from plait.store.base import Store
    from plait.tools import ToolForm

CHECK_SECONDS: Final = 3.0


class AsyncOpenAISimpleAgent:
    """One message in, one response out.

    ::

        agent = AsyncOpenAISimpleAgent("Weather", model="gpt-4o-mini", tool_registry=[...])
        response = await agent.send_message("What is the weather in Lisbon?")
        response = await agent.send_message("And tomorrow?", history=response.history)

    It holds no conversation: one agent serves any number of users and chats at once.

    Args:
        agent_name: what it is called in logs, hooks and responses.
        agent_description: what it is for; sent as the system prompt where there is no other.
        model: the model's name; without one the provider's default.
        models: several, each ``"gpt-4o"``, ``"anthropic:claude-sonnet-4-5"`` or a provider object: each is asked when
            the one before it fails.
        provider: who is asked: a provider's name, or a provider object; OpenAI's API without one.
        api_key: its key; without one the provider's usual environment variable is read.
        base_url: where a server is that speaks OpenAI's API.
        system_prompt: sent before every conversation.
        temperature: sent only when given.
        max_tokens: the most tokens of one answer; sent only when given.
        manual_stop_signal_function: says whether to stop: sync or async; ``user_id`` and ``chat_id`` are filled where
            it declares them.
        check_for_stop_signal_time: seconds between two questions to it.
        context_handling_method: how tokens are counted: ``"Simple"`` estimates them, ``"Accurate"`` counts them (with
            the ``tokens`` extra); or an object with ``count(text)``.
        max_context_length: the most tokens that are sent.
        max_token_per_message: what a message has beyond this is cut in what is sent.
        max_messages_in_context: the most messages that are sent, the newest ones.
        dropping_strategy: ``"simple"`` leaves messages out that have no room; ``"summary_dropping"`` sends a summary
            in their place.
        prompt_when_context_overflow: what the model is told while there is more than fits; None for the usual
            sentence, empty for none.
        prompt_when_message_is_dropped: what it is told while messages are left out; likewise.
        keep_function_calls_in_context: False sends the function calls of earlier messages no more.
        max_turns: model requests for one message.
        max_tool_calls: function calls for one message.
        deadline: seconds for one message.
        tool_registry: the functions: ``{"name", "function_schema", "func"}``, or any form that an `Agent` takes.
        execute_function_concurrently: False carries the calls of one turn out one after the other.
        mcp_servers: MCP servers whose tools the agent has, too.
        hooks: functions by hook name (see `plait.hooks`).
        budget_control: ``{"max_budget_for_this_chat": 1.0, "stop_on_budget_exceeded": True, "reserved_budget": 0.1}``
            in US dollars, or a `Budget`, or several.
        current_cost_per_million_tokens: what the model costs: a number of US dollars, ``{"input": 2.5, "output": 10}``,
            a `Price`, or these by model; without it what the provider reports, then what the ``prices`` extra knows.
        retry_strategy: how often a failed request is sent again, by error class; see `RetryPolicy.from_strategy`.
        guardrails: checks of messages, answers and function calls.
        judge_provider: a second model that judges whether a message tries to change the agent's instructions.
        user_id: for whom messages are that name nobody.
        chat_id: in which chat messages are that name none.
        store: where spending is kept, and chats whose messages come without a history: a URL or a store. Without one
            nothing is written down, and budgets hold within this process.

    Attributes:
        agent: what carries it all out, for `Agent.explain`, `Agent.store` and whatever else an `Agent` can.

    Raises:
        ConfigurationError: an argument cannot be, or two cannot both hold; the sentence says which.
    """

    __slots__ = (
        "_budgeted",
        "_limits",
        "_stop",
        "_stored",
        "agent",
        "agent_description",
        "agent_name",
        "chat_id",
        "user_id",
    )

    _asks_several: ClassVar[bool] = False
    _streams: ClassVar[bool] = False

    def __init__(
        self,
        agent_name: str = "Assistant",
        agent_description: str = "",
        *,
        model: str | None = None,
        models: Sequence[str | Provider] | None = None,
        provider: str | Provider | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        system_prompt: str = "",
        temperature: float | None = None,
        max_tokens: int | None = None,
        manual_stop_signal_function: Callable[..., bool | Awaitable[bool]] | None = None,
        check_for_stop_signal_time: float = CHECK_SECONDS,
        context_handling_method: str | Counter = "Simple",
        max_context_length: int | None = None,
        max_token_per_message: int | None = None,
        max_messages_in_context: int | None = None,
        dropping_strategy: DroppingStrategy = "simple",
        prompt_when_context_overflow: str | None = None,
        prompt_when_message_is_dropped: str | None = None,
        keep_function_calls_in_context: bool = True,
        max_turns: int = DEFAULT_LIMITS.max_turns,
        max_tool_calls: int = DEFAULT_LIMITS.max_tool_calls,
        deadline: float | None = None,
        tool_registry: Sequence[str | ToolForm] | None = None,
        execute_function_concurrently: bool = True,
        mcp_servers: Sequence[MCPServerForm] | Mapping[str, MCPServerForm] | None = None,
        hooks: Mapping[str, Hook | Sequence[Hook]] | None = None,
        budget_control: BudgetLike | None = None,
        current_cost_per_million_tokens: PriceLike | Mapping[str, PriceLike] | None = None,
        retry_strategy: RetryPolicy | Mapping[str, Any] | int | None = None,
        guardrails: Guardrails | None = None,
        judge_provider: str | Provider | InjectionJudge | None = None,
        user_id: str | None = None,
        chat_id: str | None = None,
        store: str | Store | None = None,
    ) -> None:
        texts = {"agent_name": agent_name, "agent_description": agent_description, "system_prompt": system_prompt}
        for name, given in texts.items():
            if not isinstance(given, str):
                msg = f"{name} takes a text, not {type(given).__name__}"
                raise ConfigurationError(msg)
        if not isinstance(execute_function_concurrently, bool):
            shown = excerpt(repr(execute_function_concurrently), 60)
            msg = f"execute_function_concurrently takes True or False, not {shown}"
            raise ConfigurationError(msg)
        self.agent_name = agent_name
        self.agent_description = agent_description
        self.user_id = None if user_id is None else check_name(user_id, "user id")
        self.chat_id = None if chat_id is None else check_name(chat_id, "chat id")
        self._stored = store is not None
        self._budgeted = budget_control is not None
        if models is None and self._asks_several:
            models = ()
        with in_the_words_of_services():
            self._limits = RunLimits(max_turns=max_turns, max_tool_calls=max_tool_calls, deadline=deadline)
            self._stop = (
                None
                if manual_stop_signal_function is None
                else StopPoll(manual_stop_signal_function, check_for_stop_signal_time)
            )
            window = window_of(
                counting=context_handling_method,
                max_context_length=max_context_length,
                max_token_per_message=max_token_per_message,
                max_messages_in_context=max_messages_in_context,
                dropping=dropping_strategy,
                when_it_overflows=prompt_when_context_overflow,
                when_messages_are_dropped=prompt_when_message_is_dropped,
                keep_function_calls=keep_function_calls_in_context,
            )
            where = {"api_key": api_key, "base_url": base_url}
            asked = provider_of(models, model, provider, retry_strategy, where)
            self.agent: Agent[Any, str] = Agent(
                role=system_prompt or agent_description,
                name=agent_name,
                provider=asked,
                temperature=temperature,
                max_tokens=max_tokens,
                tools=tool_registry,
                memory_strategy=window,
                sequential_tools=not execute_function_concurrently,
                mcp_servers=mcp_servers,
                hooks=hooks,
                budget=budget_control,
                prices=current_cost_per_million_tokens,
                guardrails=guardrails,
                judge_provider=judge_provider,
                store=MemoryStore() if store is None else store,
            )

    def __repr__(self) -> str:
        asked = self.agent.provider
        model, functions = f"{asked.name}:{asked.model}", list(self.agent.tools)
        return f"{type(self).__name__}({self.agent_name!r}, model={model!r}, functions={functions})"

    async def send_message(
        self,
        message: Prompt,
        history: Sequence[Any] | None = None,
        user_id: str | None = None,
        chat_id: str | None = None,
        debug_print: bool = False,  # noqa: FBT001, FBT002  # the documented signature
        *,
        budget_control: BudgetLike | None = None,
    ) -> MessageResponse:
        """Answer a message.

        Args:
            message: what the user says: text, or a list of texts and parts.
            history: the conversation so far, as an earlier response gave it, or as OpenAI's chat API has it. Without
                one: what the agent's store holds of the chat, and nothing where it was given no store.
            user_id: for whom; functions, hooks and budgets are told.
            chat_id: in which chat; likewise.
            debug_print: print what happens, in readable lines.
            budget_control: for this message, in place of the agent's own: what its user has left, say.

        Returns:
            The response, for every way a run ends that is no failure.

        Raises:
            ConfigurationError: the message or the history cannot be read, or the budget cannot be.
            ModelError: the model could not be asked, or its answer was no good.
        """
        ids = self._ids(user_id, chat_id)
        made = await self._run(message, history, ids, self._options(user_id, chat_id, debug_print, budget_control))
        async for _ in made.events():  # never left early, so there is nothing to close
            pass
        return response_of(made, *ids)

    def send_message_sync(
        self,
        message: Prompt,
        history: Sequence[Any] | None = None,
        user_id: str | None = None,
        chat_id: str | None = None,
        debug_print: bool = False,  # noqa: FBT001, FBT002  # as `send_message`
        *,
        budget_control: BudgetLike | None = None,
    ) -> MessageResponse:
        """See `send_message`; for sync callers, who may stand anywhere, also under a running event loop."""
        given = message, history, user_id, chat_id, debug_print
        return PORTAL.call(lambda: self.send_message(*given, budget_control=budget_control))

    async def explain(
        self,
        message: Prompt,
        history: Sequence[Any] | None = None,
        user_id: str | None = None,
        chat_id: str | None = None,
    ) -> Explanation:
        """Show the request that `send_message` would send, and send nothing; printed, it is a table of its parts.

        See `Agent.explain` for who is not asked, and what is not in it. A chat in the store is read and not changed.

        Args:
            message: as for `send_message`.
            history: likewise.
            user_id: likewise.
            chat_id: likewise.

        Raises:
            ConfigurationError: the message or the history cannot be read, or the provider cannot express the request.
            LimitExceeded: what must be sent is more than ``max_context_length``.
        """
        user, chat = self._ids(user_id, chat_id)
        options = self._options(user_id, chat_id)
        where = chat if self._is_stored(history) else self._thread(history, user, chat)
        return await self.agent.outfit.explained(
            messages_of(message), where, options, user_id=user, observed=self._streams
        )

    async def close(self) -> None:
        """End the connections to MCP servers; there is nothing else to close."""
        await self.agent.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()

    def _options(
        self,
        user_id: str | None,
        chat_id: str | None,
        debug_print: bool = False,  # noqa: FBT001, FBT002  # as `send_message`
        budget_control: BudgetLike | None = None,
    ) -> RunOptions:
        """Give what a message's run is given beside the message."""
        options: RunOptions = {"limits": self._limits}
        if self._stop is not None:
            options["stop"] = self._stop
        if debug_print:
            whose = user_id or self.user_id, chat_id or self.chat_id
            options["hooks"] = DebugPrinter(self.agent_name, *whose).hooks
        if budget_control is not None:
            with in_the_words_of_services():
                options["budget"] = budgets_of(budget_control)
        return options

    async def _run(
        self, content: Prompt, history: Sequence[Any] | None, ids: tuple[str, str], options: RunOptions
    ) -> Run[str]:
        """Make the run that answers a message."""
        prompt = messages_of(content)
        user_id, chat_id = ids
        thread: Thread | str = chat_id
        if not self._is_stored(history):
            named = None
            if self._stored and (self._budgeted or "budget" in options):
                # What a chat spends is kept with the stored one.
                named = (await self.agent.outfit.opened(chat_id, user_id)).thread_id
            thread = self._thread(history, user_id, chat_id, named)
        return await self.agent.outfit.made(prompt, thread, options, user_id=user_id, observed=self._streams)

    def _is_stored(self, history: Sequence[Any] | None) -> bool:
        """Whether a message goes on with what the store holds of its chat."""
        return history is None and self._stored

    def _thread(
        self, history: Sequence[Any] | None, user_id: str, chat_id: str, thread_id: str | None = None
    ) -> Thread:
        """Give a thread for one message, which holds the history that it came with."""
        said = read_history(history, self.agent.provider.name)
        # Users do not share a chat that is called the same.
        thread = Thread.for_one_run(thread_id or f"{user_id!r} {chat_id!r}", user_id, chat_id)
        thread.observed = False
        for message in said.messages:
            thread.add("", MessageEntry(message))
        if said.summary is not None:
            thread.add("", said.summary)
        return thread

    def _ids(self, user_id: str | None, chat_id: str | None) -> tuple[str, str]:
        """Give for whom and in which chat a message is, as it says or else as the agent does."""
        if user_id is None:
            user_id = self.user_id or DEFAULT_USER
        if chat_id is None:
            chat_id = self.chat_id or new_id("chat")
        return check_name(user_id, "user id"), check_name(chat_id, "chat id")
