"""The MCP host a tool works for: what the tool may tell it, and ask of it, while it runs.

A tool gets it from `mcp_host`, wherever it is: in a thread, or in an agent that is itself a tool of the server. Knows
nothing of how calls come in and results go out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import nullcontext
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args

import msgspec
from pydantic_core import to_jsonable_python

from plait.errors import ToolError, excerpt
from plait.messages import AssistantMessage, Message
from plait.plain import EMPTY
from plait.shape import faults

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine, Sequence

    from mcp.server.context import ServerRequestContext
    from pydantic import BaseModel

    from plait.mcp.server.rounds import Question, Rounds
    from plait.mcp.server.turns import Turn

LogLevel = Literal["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
LEVELS: Final[tuple[LogLevel, ...]] = get_args(LogLevel)

DEFAULT_MAX_TOKENS: Final = 1024

Answer = TypeVar("Answer", bound="BaseModel")
Sent = TypeVar("Sent")

HOST: Final[ContextVar[MCPHost | None]] = ContextVar("plait_mcp_host", default=None)


class Elicited(msgspec.Struct, frozen=True, kw_only=True):
    """What a person made of a form.

    Attributes:
        action: they filled it in, said no, or closed it.
        values: what they filled in; it fits the form's schema. Empty unless ``action`` is ``"accept"``.
    """

    action: Literal["accept", "decline", "cancel"]
    values: Mapping[str, Any] = EMPTY


class MCPHost:
    """The program that called the tool that runs here, over the Model Context Protocol.

    What cannot be done (the host has no person to ask, has no model, or is gone) raises a `ToolError` that says so,
    and which, left alone, is the result of the call.

    Hosts of the newest protocol are asked between two calls: a tool that asks something is cancelled there, and called
    again from its start when the answer is there. So let it ask before it does what must not be done twice.

    Args:
        request: the call, as the protocol's SDK describes it.
        levels: the log levels that the host wants.
        rounds: how to ask it something, where it cannot be asked while the call runs.

    Attributes:
        turn: of the call; others have it while the host is asked something.
    """

    __slots__ = ("_context", "_levels", "_request", "_rounds", "turn")

    def __init__(
        self, request: ServerRequestContext[Any, Any], levels: Collection[LogLevel], rounds: Rounds | None
    ) -> None:
        self._request = request
        self._levels = levels
        self._rounds = rounds
        self._context = copy_context()
        self.turn: Turn | None = None

    @property
    def name(self) -> str:
        """What the host calls itself; empty where it said nothing. It may say anything: no proof of who it is."""
        told = self._request.session.client_params
        return "" if told is None else told.client_info.name

    async def report_progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Say how far the call is; a host that did not ask for this is told nothing.

        Args:
            progress: how much is done, more each time.
            total: how much there is in all, in the same unit, where that is known.
            message: what is being done, for a person.
        """
        from plait.mcp.server.content import fitting

        await self._outside(self._request.session.report_progress(progress, total, fitting(message)))

    async def log(self, data: object, level: LogLevel = "info", *, logger: str | None = None) -> None:
        """Send a log record; one of a level that the host does not want is not sent.

        Args:
            data: text, or anything that has a form in JSON.
            level: how grave it is.
            logger: who says it.
        """
        from mcp_types import LoggingMessageNotification, LoggingMessageNotificationParams

        from plait.mcp.server.content import fitting

        if level in self._levels:
            said = fitting(to_jsonable_python(fitting(data)))
            params = LoggingMessageNotificationParams(level=level, data=said, logger=fitting(logger))
            note = LoggingMessageNotification(params=params)
            await self._outside(self._request.session.send_notification(note, self._request.request_id))

    async def sample(
        self,
        prompt: str | Sequence[Message],
        *,
        system: str | None = None,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        temperature: float | None = None,
    ) -> AssistantMessage:
        """Ask the host's model, which the host pays for and may show to a person first.

        Args:
            prompt: a text; or messages of users and assistants, of text, images and sound.
            system: the system text.
            max_tokens: how long the answer may be.
            temperature: for the model; left to the host when None.

        Returns:
            The answer; ``model`` says which model gave it.
        """
        from mcp_types import CreateMessageRequest, CreateMessageRequestParams, CreateMessageResult

        from plait.mcp.server.content import fitting, sampled, to_sampling

        self._needs("sampling", "has no model to ask")
        messages = [Message(text=prompt)] if isinstance(prompt, str) else prompt
        params = CreateMessageRequestParams(
            messages=[to_sampling(message) for message in messages],
            system_prompt=fitting(system),
            max_tokens=max_tokens,
            temperature=temperature,
        )
        return sampled(await self._ask(CreateMessageRequest(params=params), CreateMessageResult, "its model"))

    async def elicit(self, message: str, schema: Mapping[str, Any]) -> Elicited:
        """Ask the person at the host to fill in a form.

        The tool's own time-out goes on meanwhile; people take longer than most tools may (``@tool(timeout=600)``).

        Args:
            message: what is asked, and why.
            schema: the form: a JSON Schema of an object whose properties are texts, numbers, truth values or choices.

        Raises:
            ToolError: also when what came back does not fit the schema.
        """
        from mcp_types import ElicitRequest, ElicitRequestFormParams, ElicitResult

        from plait.mcp.server.content import fitting

        self._needs("elicitation", "has no person to ask")
        params = ElicitRequestFormParams(message=fitting(message), requested_schema=fitting(dict(schema)))
        answer = await self._ask(ElicitRequest(params=params), ElicitResult, "the person")
        if answer.action != "accept":
            return Elicited(action=answer.action)
        values = dict(answer.content or {})
        if found := next(faults(values, schema), None):
            msg = f"what the person at the MCP host filled in does not fit the form: {excerpt(found)}"
            raise ToolError(msg)
        return Elicited(action="accept", values=values)

    def _needs(self, capability: Literal["sampling", "elicitation"], lack: str) -> None:
        able = self._request.session.client_capabilities
        if able is None or getattr(able, capability) is None:
            msg = f"the MCP host {lack}: it did not offer {capability!r}"
            raise ToolError(msg)

    def _outside(self, sending: Coroutine[Any, Any, Sent]) -> asyncio.Task[Sent]:
        """Send from where the call came in, not from inside the tool.

        The SDK hands the sender's context variables on to whoever receives in the same process, and what runs in a
        tool's would end with the tool.
        """
        return asyncio.get_running_loop().create_task(sending, context=self._context)

    async def _ask(self, question: Question, answer: type[Answer], whom: str) -> Answer:
        from mcp.shared.exceptions import MCPError
        from mcp.shared.message import ServerMessageMetadata
        from pydantic import ValidationError

        try:
            if self._rounds is not None:
                return await self._rounds.ask(question, answer)
            here = ServerMessageMetadata(related_request_id=self._request.request_id)
            async with nullcontext() if self.turn is None else self.turn.given_back():
                return await self._outside(self._request.session.send_request(question, answer, metadata=here))
        except MCPError as error:
            msg = f"the MCP host did not ask {whom}: {excerpt(error.message)}"
        except ValidationError:
            msg = f"the MCP host asked {whom}, and its answer is not what the protocol says"
        raise ToolError(msg)


def mcp_host() -> MCPHost | None:
    """Give the MCP host that the tool running here works for; None where no host called it.

    ::

        if host := mcp_host():
            await host.report_progress(3, 10)
    """
    return HOST.get()
