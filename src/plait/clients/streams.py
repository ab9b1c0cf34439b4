"""Streams of chunks, for those who await and for those who do not.

A stream is read by the one who holds it: leaving it early ends what produces it. What that is, is a `Speaking`'s
business: one request of a plain client, or a run of a tool client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

from plait.errors import Cancelled
from plait.portal import PORTAL
from plait.promises import StreamedPromise
from plait.scopes import owner_beyond_task

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence

    from plait.clients.completions import ChatCompletion, ChatCompletionChunk
    from plait.readers import BatchReader


class Speaking(Protocol):
    """What gives chunks, and in the end knows the completion that they make."""

    completion: ChatCompletion[Any] | None

    def chunks(self) -> AsyncGenerator[list[ChatCompletionChunk], None]:
        """Ask, and give the chunks: one list for each socket read."""
        ...


class AsyncChatStream:
    """A streamed answer: ``async for chunk in stream``, once.

    Leaving it early ends the request, or the run of a tool client: by dropping it, by `close`, or by leaving
    ``async with stream:``. It belongs to the enclosing scope, if there is one.
    """

    __slots__ = ("_promise", "_reader")

    def __init__(self, speaking: Speaking) -> None:
        async def completed(_chunks: Sequence[ChatCompletionChunk]) -> ChatCompletion[Any]:
            assert speaking.completion is not None  # noqa: S101  # it is made before the last chunk
            return speaking.completion

        self._promise: StreamedPromise[ChatCompletionChunk, ChatCompletion[Any]] = StreamedPromise(
            speaking.chunks, completed, name="chat stream", owner=owner_beyond_task()
        )
        self._reader = self._promise.sole_reader()

    @classmethod
    async def begun(cls, speaking: Speaking) -> Self:
        """Make a stream whose answer has begun, so that what goes wrong before is raised here.

        Raises:
            ModelError: the model could not be asked.
        """
        stream = cls(speaking)
        try:
            async for _ in stream._promise:  # what this reader sees, the other sees too
                break
        except BaseException:
            await stream.close()
            raise
        return stream

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, ChatCompletionChunk]:
        return self._reader.__anext__()

    async def get_final_completion(self) -> ChatCompletion[Any]:
        """Give the whole answer, when it is there.

        Raises:
            Cancelled: the stream was left early.
            ModelError: the answer broke off.
        """
        try:
            return await self._promise
        except Cancelled:
            msg = "the stream was left before its answer was whole, so there is no completion; read it to its end"
            raise Cancelled(msg) from None

    async def close(self) -> None:
        """End it, and wait until it ended."""
        await self._reader.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()

    def batches(self) -> BatchReader[ChatCompletionChunk]:
        """Read on in lists, each all that is there."""
        return self._reader.batches()


class ChatStream:
    """A streamed answer for a sync reader: ``for chunk in stream``, once; see `AsyncChatStream`.

    Raises:
        ModelError: the model could not be asked.
    """

    __slots__ = ("_pieces", "_stream")

    def __init__(self, make: Callable[[], Awaitable[AsyncChatStream]]) -> None:
        held = self._stream = list[AsyncChatStream]()

        async def opened() -> BatchReader[ChatCompletionChunk]:
            held.append(await make())
            return held[0].batches()

        self._pieces = PORTAL.iterate(opened)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ChatCompletionChunk:
        return next(self._pieces)

    def get_final_completion(self) -> ChatCompletion[Any]:
        """See `AsyncChatStream.get_final_completion`."""
        return PORTAL.call(self._stream[0].get_final_completion)

    def close(self) -> None:
        """See `AsyncChatStream.close`."""
        self._pieces.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
