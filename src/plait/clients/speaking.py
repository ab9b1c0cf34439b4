"""Carrying out what a client is asked: one request (`Asking`), or a run of the one loop (`Running`).

Each gives its completion whole, or its chunks and then the completion; what they ask is made elsewhere.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from plait.clients.answers import Chunks, completion_of_answers, completion_of_run
from plait.errors import ConfigurationError
from plait.events import Fold
from plait.ids import new_id
from plait.loop import Run
from plait.options import stop_of
from plait.outcome import whole_answer
from plait.plain import EMPTY
from plait.run import DEFAULT_LIMITS, DEFAULT_USER, RunContext
from plait.streams import result_of
from plait.threads import Thread
from plait.tools import NO_TOOLS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from plait.clients.completions import ChatCompletion, ChatCompletionChunk
    from plait.messages import Message
    from plait.options import RunOptions
    from plait.providers.base import Provider, Request, Settings
    from plait.run import RunLimits
    from plait.schema import OutputSchema
    from plait.tools import Toolbox


class Asking:
    """One request to a provider.

    Attributes:
        completion: what came of it, once it is whole.
    """

    __slots__ = ("_fold", "_provider", "_request", "completion")

    def __init__(self, provider: Provider, request: Request) -> None:
        self.completion: ChatCompletion[Any] | None = None
        self._provider = provider
        self._request = request
        self._fold = Fold(provider.name, provider.model)

    async def whole(self) -> ChatCompletion[Any]:
        """Ask, and give the completion.

        Raises:
            ModelError: the model could not be asked, or its answer was no good.
        """
        async with aclosing(self._provider.stream(self._request)) as answers:
            async for deltas in answers:
                self._fold.add(deltas)
        return self._completed()

    async def chunks(self) -> AsyncGenerator[list[ChatCompletionChunk], None]:
        """Ask, and give the chunks; see `whole`."""
        chunks = Chunks(self._provider.model, calls=True)
        async with aclosing(self._provider.stream(self._request)) as answers:
            async for deltas in answers:
                self._fold.add(deltas)
                if made := chunks.of(deltas):
                    yield made
        yield chunks.end(self._completed())

    def _completed(self) -> ChatCompletion[Any]:
        first = whole_answer(self._fold, self._provider.name)
        several = self._request.settings.n not in (None, 1)
        self.completion = completion_of_answers(self._fold.answers() if several else (first,))
        return self.completion


class Running:
    """A run that has its thread to itself.

    Attributes:
        completion: what came of it, once it has ended.
    """

    __slots__ = ("_run", "completion")

    def __init__(
        self,
        provider: Provider,
        messages: Sequence[Message],
        settings: Settings,
        *,
        toolbox: Toolbox = NO_TOOLS,
        output: OutputSchema[Any] | None = None,
        stream: bool = False,
        limits: RunLimits = DEFAULT_LIMITS,
        user_id: str = DEFAULT_USER,
        options: RunOptions | None = None,
    ) -> None:
        """Make the run.

        Args:
            provider: who is asked.
            messages: the conversation, which ends with what is to be answered.
            settings: how the model shall answer.
            toolbox: the tools that are carried out.
            output: the type of the answer, if it is no text.
            stream: whether the chunks will be read.
            limits: of the run, if the options name no others.
            user_id: for whom it is.
            options: what a run may be given.

        Raises:
            ConfigurationError: several answers are asked for, of which a run takes one; or there is nothing to answer.
        """
        if settings.n not in (None, 1):
            msg = f"n={settings.n} gives several answers, of which parse and clients with tools take one; use create"
            raise ConfigurationError(msg)
        if messages[-1].role == "assistant":
            msg = "the last message is the model's own, so there is nothing to answer; end with what the user says"
            raise ConfigurationError(msg)
        given: RunOptions = {} if options is None else options
        self.completion: ChatCompletion[Any] | None = None
        self._run: Run[Any] = Run(
            thread=Thread.for_one_run(new_id("thr"), user_id),
            context=RunContext(
                deps=given.get("deps"),
                user_id=user_id,
                run_id=new_id("run"),
                agent_name="chat client",
                secrets=given.get("secrets", EMPTY),
            ),
            provider=provider,
            prompt=tuple(messages),
            toolbox=toolbox,
            output=output,
            settings=settings,
            limits=given.get("limits", limits),
            stop=stop_of(given.get("stop")),
            observed=stream,
        )

    async def whole(self) -> ChatCompletion[Any]:
        """Carry the run out, and give the completion.

        Raises:
            PlaitError: the run failed.
        """
        async for _ in self._run.events():  # never left early, so there is nothing to close
            pass
        return self._completed()

    async def chunks(self) -> AsyncGenerator[list[ChatCompletionChunk], None]:
        """Carry the run out, and give the chunks; see `whole`."""
        run = self._run
        chunks = Chunks(run.provider.model, id=run.context.run_id, calls=False)
        async with aclosing(run.events()) as events:
            async for batch in events:
                if made := chunks.of(batch):
                    yield made
        yield chunks.end(self._completed())

    def _completed(self) -> ChatCompletion[Any]:
        result = result_of(self._run)
        parsed = self._run.output is not None
        self.completion = completion_of_run(result, self._run.provider.model, parsed=parsed)
        return self.completion
