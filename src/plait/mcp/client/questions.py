"""What a server asks back: a person (elicitation) or the model (sampling). Denied, unless somebody was named to answer.

Knows the protocol's rules for the answers; which person or model it is, and how they are asked, is the caller's.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

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

logger = logging.getLogger("plait.mcp")


class Questions:
    """The questions of one server.

    Args:
        server: its name, for the log.
        on_elicitation, on_sampling: who answers; None for nobody.

    Attributes:
        waiting: how many wait for an answer now.
        asked: how many there were.
    """

    def __init__(self, server: str, on_elicitation: OnElicitation | None, on_sampling: OnSampling | None) -> None:
        self.waiting = self.asked = 0
        self.on_elicitation = on_elicitation
        self.on_sampling = on_sampling
        self._server = server

    @contextmanager
    def _open(self) -> Iterator[None]:
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
            with self._open():
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
            with self._open():
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
