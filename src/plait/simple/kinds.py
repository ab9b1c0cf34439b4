"""The other kinds of agents for services: streaming, with images, with several models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from plait.attachments import attachment, checked_image, image_source
from plait.errors import ConfigurationError
from plait.messages import ImagePart
from plait.options import messages_of
from plait.portal import PORTAL
from plait.simple.agents import AsyncOpenAISimpleAgent
from plait.simple.response import MessageResponse, response_of
from plait.streams import TextPieces

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from plait.explaining import Explanation
    from plait.limits import BudgetLike
    from plait.loop import Run
    from plait.messages import ContentPart
    from plait.options import Prompt


class AsyncOpenAIStreamingAgent(AsyncOpenAISimpleAgent):
    """As `AsyncOpenAISimpleAgent`, and the text is given while it comes.

    ::

        stream = agent.send_message("Tell me about Lisbon.")
        async for text in stream:
            print(text, end="", flush=True)
        response = await stream
    """

    __slots__ = ()

    _streams = True

    def send_message(  # type: ignore[override]  # what it gives can be awaited, too
        self,
        message: Prompt,
        history: Sequence[Any] | None = None,
        user_id: str | None = None,
        chat_id: str | None = None,
        debug_print: bool = False,  # noqa: FBT001, FBT002  # the documented signature
        *,
        budget_control: BudgetLike | None = None,
    ) -> MessageStream:
        """Answer a message; see `AsyncOpenAISimpleAgent.send_message`.

        Returns:
            ``async for`` gives the pieces of the text, ``await`` the response, each as often as it is asked for.
            Leaving the iteration early ends the run.
        """
        ids = self._ids(user_id, chat_id)
        messages_of(message)  # what is wrong with it is raised here
        options = self._options(user_id, chat_id, debug_print, budget_control)
        return MessageStream(lambda: self._run(message, history, ids, options), f"message to {self.agent_name}", ids)


class MessageStream(TextPieces[MessageResponse]):
    """The text of an answer while it comes; ``await`` gives the response. Leaving an iteration early ends the run."""

    __slots__ = ("_ids",)

    def __init__(self, make: Callable[[], Awaitable[Run[Any]]], name: str, ids: tuple[str, str]) -> None:
        self._ids = ids
        super().__init__(make, name)

    def _whole_of(self, _pieces: Sequence[str]) -> MessageResponse:
        return response_of(cast("Run[Any]", self._run), *self._ids)  # there is one when it has ended


class AsyncOpenAIMultimodalAgent(AsyncOpenAISimpleAgent):
    """As `AsyncOpenAISimpleAgent`, for messages with images: ``send_message("What is this?", images=["cat.jpg"])``."""

    __slots__ = ()

    async def send_message(
        self,
        message: Prompt,
        history: Sequence[Any] | None = None,
        user_id: str | None = None,
        chat_id: str | None = None,
        debug_print: bool = False,  # noqa: FBT001, FBT002  # the documented signature
        *,
        budget_control: BudgetLike | None = None,
        images: Sequence[str | Path | bytes | ImagePart] = (),
    ) -> MessageResponse:
        """Answer a message with images.

        Args:
            message: what the user says.
            history: as `AsyncOpenAISimpleAgent.send_message`.
            user_id: likewise.
            chat_id: likewise.
            debug_print: likewise.
            budget_control: likewise.
            images: files, web addresses, ``data:`` addresses, bytes, or image parts.

        Raises:
            ConfigurationError: an image cannot be read, or the provider takes none.
        """
        given = _with_images(message, images), history, user_id, chat_id, debug_print
        return await super().send_message(*given, budget_control=budget_control)

    def send_message_sync(
        self,
        message: Prompt,
        history: Sequence[Any] | None = None,
        user_id: str | None = None,
        chat_id: str | None = None,
        debug_print: bool = False,  # noqa: FBT001, FBT002  # as `send_message`
        *,
        budget_control: BudgetLike | None = None,
        images: Sequence[str | Path | bytes | ImagePart] = (),
    ) -> MessageResponse:
        """See `send_message`; for sync callers."""
        given = message, history, user_id, chat_id, debug_print
        return PORTAL.call(lambda: self.send_message(*given, budget_control=budget_control, images=images))

    async def explain(
        self,
        message: Prompt,
        history: Sequence[Any] | None = None,
        user_id: str | None = None,
        chat_id: str | None = None,
        *,
        images: Sequence[str | Path | bytes | ImagePart] = (),
    ) -> Explanation:
        """See `AsyncOpenAISimpleAgent.explain`; takes images as `send_message` does."""
        return await super().explain(_with_images(message, images), history, user_id, chat_id)


class AsyncOpenAIMultiModelAgent(AsyncOpenAISimpleAgent):
    """As `AsyncOpenAISimpleAgent`, with several ``models``: each is asked when the one before it fails.

    The next one is asked only as long as nothing of an answer has come. Who answered is said by the debug output and by
    logs.

    ::

        agent = AsyncOpenAIMultiModelAgent("Weather", models=["gpt-4o-mini", "anthropic:claude-haiku-4-5"])
    """

    __slots__ = ()

    _asks_several = True


def _with_images(message: Prompt, images: Sequence[str | Path | bytes | ImagePart]) -> Prompt:
    """Put images behind what is said.

    Raises:
        ConfigurationError: they are no list, or one cannot be read.
    """
    if not isinstance(images, list | tuple):
        msg = f"images takes a list of images, not {type(images).__name__}; put a single one in brackets: images=[...]"
        raise ConfigurationError(msg)
    if not images:
        return message
    said = list(message) if isinstance(message, list | tuple) else [message]
    return [*said, *map(_image, images)]


def _image(given: str | Path | bytes | ImagePart) -> ContentPart:
    if isinstance(given, ImagePart):
        return given
    if isinstance(given, bytes):
        return checked_image(given, "an image")
    if isinstance(given, str) and ("://" in given or given[:5].lower() == "data:"):
        addressed = ImagePart(url=given)
        image_source(addressed)  # says what is wrong with the address
        return addressed
    return attachment(given)
