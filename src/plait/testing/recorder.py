"""A record of what an agent did, made by its hooks, for assertions in a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from plait.events import Answer
    from plait.hooks import AfterRequest, BeforeRequest, FunctionCallEnd, RunEnded
    from plait.messages import ToolCall, ToolResult
    from plait.providers.base import Request
    from plait.run import RunResult


class Recorder:
    """Remembers the requests, answers, tool calls and results of every run: ``Agent(..., hooks=recorder.hooks)``.

    Attributes:
        requests: what the models were asked, oldest first.
        answers: what they answered, in full.
        calls: each tool call that was carried out, with its result.
        results: how each run ended.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answers: list[Answer] = []
        self.calls: list[tuple[ToolCall, ToolResult]] = []
        self.results: list[RunResult[object]] = []

    @property
    def hooks(self) -> dict[str, Callable[..., None]]:
        """The hooks to give to an agent; they change nothing."""
        return {
            "on_before_request": self._asked,
            "on_after_request": self._answered,
            "on_function_call_end": self._called,
            "on_final_response": self._ended,
        }

    def _asked(self, event: BeforeRequest) -> None:
        self.requests.append(event.request)

    def _answered(self, event: AfterRequest) -> None:
        self.answers.append(event.answer)

    def _called(self, event: FunctionCallEnd) -> None:
        self.calls.append((event.call, event.result))

    def _ended(self, event: RunEnded) -> None:
        self.results.append(event.result)
