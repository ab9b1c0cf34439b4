"""Judging an answer: the one way in which every dialect's events are read, and the words for what is wrong with them.

Knows no dialect: a dialect's reader says what an event decodes to, what it adds to the answer, and what has to be there
at its end. Pure; it does no I/O.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar

import msgspec

from plait.errors import EmptyAnswer, ModelError, ProtocolViolation, StreamTruncated, TransportError, excerpt
from plait.events import TextDelta
from plait.providers.sse import DONE
from plait.providers.status import error_object

if TYPE_CHECKING:
    from collections.abc import Iterable

    from plait.events import Delta
    from plait.providers.status import Service

A = TypeVar("A")

_BOM_AND_LINES: Final = b"\xef\xbb\xbf\r\n"


class Judge(Generic[A]):
    """Turns the events of one answer into deltas; what is wrong with one of them is raised at the end.

    Attributes:
        done: whether what comes now is of no interest: the server said so, or it failed.
    """

    __slots__ = ("_failure", "_fed", "_said", "_service", "done")

    decoder: ClassVar[msgspec.json.Decoder[Any]]  # of what the data of an event holds

    def __init__(self, service: Service) -> None:
        """Say who answers."""
        self.done = False
        self._service = service
        self._failure: ModelError | None = None
        self._said: list[Delta] = []
        self._fed = False  # whether an event came

    @property
    def partial(self) -> str:
        """The text of the first choice so far."""
        return "".join(delta.text for delta in self._said if type(delta) is TextDelta and delta.choice == 0)

    def feed(self, events: Iterable[bytes]) -> list[Delta]:
        """Read the events of one socket read.

        What is wrong with one of them is raised by `end`, for the pieces that came before it are handed out first.
        """
        if self.done:
            return []  # some servers say that they are done twice, or go on with something else
        said, self._fed = self._said, True
        before = len(said)
        add, decode = self._add, self.decoder.decode
        event = b""
        try:
            for event in events:
                try:
                    answer = decode(event)
                except (ValueError, RecursionError):
                    if event.lstrip()[:6] == DONE:  # which is no JSON
                        self.done = True
                        break
                    answer = self._read(event)
                if add(answer, said):
                    self.done = True
                    break
        except ModelError as error:
            self._failure = error
            self.done = True
        except RecursionError:  # the decoder goes deeper than some of what looks at its values
            self._failure = self._violation(event, what="sent something that is nested too deeply")
            self.done = True
        self._sum_up(said)
        return said[before:]

    def _add(self, event: A, deltas: list[Delta]) -> bool:
        """Add the deltas of one event; say whether it is the last of the answer.

        Raises:
            ModelError: the event is an error, or makes no sense.
        """
        raise NotImplementedError

    def _sum_up(self, deltas: list[Delta]) -> None:
        """Add what the events of one read say together, whatever became of the last of them."""

    def _read(self, data: bytes) -> A:
        """Decode what the fast decoder refuses: lone surrogates are taken, and anything else is named."""
        try:
            return self._convert(json.loads(data.decode("utf-8-sig")))
        except UnicodeDecodeError:
            what = "sent something that is not UTF-8"
        except (ValueError, RecursionError):
            what = "sent something that is no JSON of its dialect"
        if data[:64].lstrip(_BOM_AND_LINES + b" \t")[:1] == b"<":
            what = "sent a web page instead of an answer (check base_url)"
        # Raised out here, the error's context does not hold the decoder's, which holds all that was sent.
        raise self._violation(data, what=what)

    def _convert(self, value: Any) -> A:
        """Make an event of plain data."""
        made: A = msgspec.convert(value, self.decoder.type)
        return made

    def _violation(self, said: bytes, what: str) -> ProtocolViolation:
        text = excerpt(self._service.clean(said.decode("utf-8", "replace")))
        shown = f": {text}" if text else ": nothing"
        provider = self._service.provider
        return ProtocolViolation(f"{provider} {what}{shown}", excerpt=text, provider=provider, partial=self.partial)

    def _error(self, said: object) -> ModelError:
        error = error_object(said, self._service)
        error.partial = self.partial
        return error

    def _empty(self) -> EmptyAnswer:
        provider = self._service.provider
        return EmptyAnswer(f"{provider} gave a complete answer without text or tool calls", provider=provider)

    def _truncated(self, beginning: bytes, broken: TransportError | None) -> ModelError:
        commented = beginning.lstrip(_BOM_AND_LINES)[:1] == b":"  # sign enough that it is a stream of events
        if broken is None and not self._fed and not commented:
            return self._violation(beginning, what="sent no event in its stream")
        provider = self._service.provider
        how = f"the stream of {provider} ended before the answer did" if broken is None else str(broken)
        timeout = broken is not None and broken.timeout
        error = StreamTruncated(how, timeout=timeout, provider=provider, partial=self.partial)
        error.__cause__ = broken
        return error
