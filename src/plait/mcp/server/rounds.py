"""Questions to a host that cannot be asked while a call runs, because its version of the protocol has no way back.

From version 2026-07-28 on, a call that needs an answer ends with the question, and is made again with the answer and
with what was answered before (SEP-2322, "multi round-trip requests"). The tool is then called from its start, and its
n-th question has the n-th answer. Imports the SDK's types.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from mcp_types import CreateMessageRequest, ElicitRequest, InputRequiredResult
from pydantic import BaseModel

from plait.errors import ToolError
from plait.shape import read_json

if TYPE_CHECKING:
    from mcp_types import InputResponseRequestParams

Answer = TypeVar("Answer", bound=BaseModel)
Question = CreateMessageRequest | ElicitRequest

MAX_ROUNDS: Final = 32
MAX_STATE: Final = 1_000_000
"""Bytes of earlier answers that come with a call."""


class Rounds:
    """The questions of one call, over all the times that it is made.

    Args:
        params: what came with the call. What it says was answered before is taken as it is: all answers are the
            host's own words, now as then.

    Raises:
        ToolError: what came is not what was sent.
    """

    def __init__(self, params: InputResponseRequestParams) -> None:
        self._given = _read(params.request_state)
        answer = (params.input_responses or {}).get(self._key())
        if answer is not None:
            self._given.append(answer.model_dump(by_alias=True, mode="json", exclude_none=True))
        self._next = 0
        self._asked: asyncio.Future[Question] = asyncio.get_running_loop().create_future()

    @property
    def asked(self) -> asyncio.Future[Question]:
        """Done when there is a question without an answer: then the call has to end."""
        return self._asked

    async def ask(self, question: Question, answer: type[Answer]) -> Answer:
        """Give the answer to a question; where there is none yet, this ends with the call.

        Raises:
            ValidationError: the answer is not what the protocol says.
        """
        number = self._next
        self._next += 1
        if number < len(self._given):
            return answer.model_validate(self._given[number], by_name=False)
        if not self._asked.done():
            self._asked.set_result(question)
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    def result(self) -> InputRequiredResult:
        """Give what ends the call.

        Raises:
            ToolError: there were too many questions.
        """
        if len(self._given) >= MAX_ROUNDS:
            msg = f"the tool has more than {MAX_ROUNDS} questions to the MCP host"
            raise ToolError(msg)
        return InputRequiredResult(
            input_requests={self._key(): self._asked.result()},
            request_state=msgspec.json.encode(self._given).decode(),
        )

    def _key(self) -> str:
        return f"question-{len(self._given) + 1}"


def _read(state: str | None) -> list[Any]:
    try:
        given = [] if state is None else read_json(state, most=MAX_STATE)
    except ValueError:
        given = None
    if isinstance(given, list) and len(given) <= MAX_ROUNDS:
        return given
    msg = "the state that came with the call is not what the server gave"
    raise ToolError(msg)
