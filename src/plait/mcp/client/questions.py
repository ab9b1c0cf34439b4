"""What a server asks back: a person (elicitation) or the model (sampling). Denied, unless somebody was named to answer.

Knows the protocol's rules for the answers; which person or model it is, and how they are asked, is the caller's.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from plait.mcp.client.listing import Unusable, judge_question
from plait.mcp.client.names import whole_characters
from plait.shape import faults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp.client.session import ClientRequestContext
    from mcp_types import (
        CreateMessageRequestParams,
        CreateMessageResult,
        ElicitRequestParams,
        ElicitResult,
        ErrorData,
    )

OnElicitation = Callable[[str, Mapping[str, Any]], Awaitable[Mapping[str, Any] | None]]
"""Asked with the server's message and a JSON Schema of flat values; gives the values, or None to decline."""
OnSampling = Callable[[Mapping[str, Any]], Awaitable[str | None]]
"""Asked with the request (``messages``, ``systemPrompt``, ``maxTokens`` ...); gives the text, or None to decline."""

AT_ONCE: Final = 4
"""Questions of a server that wait at once,"""
PER_CALL: Final = 10
"""and for each call; what is asked beyond is refused, for answers cost money and people's time."""

logger = logging.getLogger("plait.mcp")


class Questions:
    """The questions of one server.

    Args:
        server: its name, for the log.
        on_elicitation, on_sampling: who answers; None for nobody.

    Attributes:
        waiting: how many wait for a person now.
        asked: how often a person was asked.
    """

    def __init__(self, server: str, on_elicitation: OnElicitation | None, on_sampling: OnSampling | None) -> None:
        self.waiting = self.asked = 0
        self.on_elicitation = on_elicitation
        self.on_sampling = on_sampling
        self._server = server
        self._open = 0
        self._left = PER_CALL
        self._refused = False

    def call_begins(self, *, is_only: bool) -> None:
        """Let the server ask as much as it may within one more call.

        Args:
            is_only: no other call is under way.
        """
        self._left = PER_CALL + (0 if is_only else self._left)
        self._refused = False

    @contextmanager
    def _asking(self) -> Iterator[bool]:
        """Say whether the server may ask now."""
        if self._open >= AT_ONCE or self._left <= 0:
            if not self._refused:
                self._refused = True
                said = "the MCP server %r asks too much: more than %d at once or %d within a call is refused"
                logger.warning(said, self._server, AT_ONCE, PER_CALL)
            yield False
            return
        self._left -= 1
        self._open += 1
        try:
            yield True
        finally:
            self._open -= 1

    @contextmanager
    def _person(self) -> Iterator[None]:
        self.waiting += 1
        self.asked += 1
        try:
            yield
        finally:
            self.waiting -= 1

    async def elicit(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult | ErrorData:  # noqa: ARG002  # the SDK's signature
        """Ask the person, and give what they said; what they left out has its default (SEP-1034)."""
        from mcp_types import ElicitRequestFormParams, ElicitResult

        assert self.on_elicitation is not None  # noqa: S101  # only then is it handed to the SDK
        if not isinstance(params, ElicitRequestFormParams):
            logger.warning("the MCP server %r asked for a visit to an address; declined", self._server)
            return ElicitResult(action="decline")
        schema = params.requested_schema
        try:
            judge_question(schema)
        except Unusable as error:
            logger.warning("the MCP server %r asked what cannot be answered (%s); declined", self._server, error)
            return ElicitResult(action="decline")
        try:
            with self._asking() as may:
                if not may:
                    return ElicitResult(action="decline")
                with self._person():
                    given = await self.on_elicitation(params.message, schema)
        except Exception as error:  # noqa: BLE001  # the program's own code
            logger.warning("answering the MCP server %r raised %s; declined", self._server, type(error).__name__)
            return ElicitResult(action="cancel")
        if given is None:
            return ElicitResult(action="decline")
        content = {**defaults(schema), **given}
        if next(faults(content, schema), None) is not None:
            logger.warning("the answer for the MCP server %r does not fit what it asked; declined", self._server)
            return ElicitResult(action="cancel")
        return ElicitResult(action="accept", content=whole_characters(content))

    async def sample(
        self,
        context: ClientRequestContext,  # noqa: ARG002  # the SDK's signature
        params: CreateMessageRequestParams,
    ) -> CreateMessageResult | ErrorData:
        """Ask the model, and give its text."""
        from mcp_types import INVALID_REQUEST, CreateMessageResult, ErrorData, TextContent

        assert self.on_sampling is not None  # noqa: S101  # only then is it handed to the SDK
        try:
            with self._asking() as may:
                if not may:
                    said = f"at most {AT_ONCE} such requests at once and {PER_CALL} within a call are answered"
                    return ErrorData(code=INVALID_REQUEST, message=said)
                text = await self.on_sampling(params.model_dump(by_alias=True, mode="json", exclude_none=True))
        except Exception as error:  # noqa: BLE001  # the program's own code
            logger.warning("sampling for the MCP server %r raised %s; declined", self._server, type(error).__name__)
            text = None
        if text is None:
            return ErrorData(code=INVALID_REQUEST, message="declined")
        content = TextContent(type="text", text=whole_characters(text))
        return CreateMessageResult(role="assistant", content=content, model="unknown", stop_reason="endTurn")


def defaults(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Give the defaults of a flat schema (https://modelcontextprotocol.io/specification/2025-11-25/client/elicitation)."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return {}
    return {
        name: field["default"]
        for name, field in properties.items()
        if isinstance(field, Mapping) and field.get("default") is not None
    }
