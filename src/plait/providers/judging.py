"""Judging an answer: the one way in which every dialect's answers are read, and the words for what is wrong with them.

Knows no dialect: a dialect's reader says what an event decodes to, what it adds to the answer, and which is the last.
Of streams of events it knows ``[DONE]``, which some send behind the answer, whatever they speak. Pure; it does no I/O.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar

import msgspec

from plait.errors import (
    ConfigurationError,
    EmptyAnswer,
    ModelError,
    ProtocolViolation,
    StreamTruncated,
    TransportError,
    excerpt,
)
from plait.events import MAY_BE_EMPTY, FinishDelta, TextDelta, Usage
from plait.frozen import assemble
from plait.plain import freeze, shown
from plait.providers.sse import DONE
from plait.providers.status import error_object
from plait.providers.wire import dollars, token_count

if TYPE_CHECKING:
    from collections.abc import Iterable

    from plait.events import Delta
    from plait.providers.status import Service

A = TypeVar("A")

_BOM_AND_LINES: Final = b"\xef\xbb\xbf\r\n"
_TOO_DEEP: Final = "sent something that is nested too deeply"  # the decoder takes what looks at its values may not


class Judge(Generic[A]):
    """Turns one answer into deltas, and judges at its end whether it was complete.

    End marks are given out by `end` alone, when it is sure that the answer is one.

    Attributes:
        done: whether what comes now is of no interest: the server said so, or it failed.
    """

    __slots__ = ("_complete", "_failure", "_fed", "_reason", "_said", "_service", "_spoke", "done")

    decoder: ClassVar[msgspec.json.Decoder[Any]]  # of what the data of an event holds

    def __init__(self, service: Service) -> None:
        """Say who answers."""
        self.done = False
        self._service = service
        self._failure: ModelError | None = None
        self._said: list[Delta] = []
        self._fed = False  # whether an event came
        self._spoke = False  # whether there was anything that makes an answer: text, a refusal, a call
        self._complete = False
        self._reason: str | None = None  # why the answer ends, in the provider's word

    @property
    def partial(self) -> str:
        """The text of the first choice so far."""
        return "".join(delta.text for delta in self._said if type(delta) is TextDelta and delta.choice == 0)

    def whole(self, body: bytes) -> list[Delta]:
        """Read an answer in one piece.

        Raises:
            ModelError: as `end`.
        """
        try:
            answer = self.decoder.decode(body)
        except (ValueError, RecursionError):
            events = self._events_in(body)
            if events:
                return self.feed(events) + self.end(body)
            answer = self._read(body)
        self._fed = True
        try:
            self.done = self._complete = self._take(answer, body, self._said)
        except RecursionError:
            raise self._violation(body, what=_TOO_DEEP) from None
        self._sum_up(self._said)
        return self._said + self.end(body)

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
                    self.done = self._complete = True
                    break
        except ModelError as error:
            self._failure = error
            self.done = True
        except RecursionError:
            self._failure = self._violation(event, what=_TOO_DEEP)
            self.done = True
        self._sum_up(said)
        return said[before:]

    def end(self, beginning: bytes = b"", *, broken: TransportError | None = None) -> list[Delta]:
        """Judge the answer at its end; give its end marks, and what else is known only then.

        Args:
            beginning: the first bytes of the answer, to show if there was nothing in it.
            broken: how the stream broke off, if it did.

        Raises:
            ProtocolViolation: something is no JSON of this dialect, or a stream that ended cleanly held no event.
            ProviderError: it holds an error. As with all of these, ``partial`` is the text so far.
            StreamTruncated: its end is missing.
            EmptyAnswer: it is complete and says nothing.
        """
        if self._failure is not None:
            raise self._failure
        if not self._is_complete():
            raise self._truncated(beginning, broken)
        endings = self._endings(beginning)
        if not (self._spoke or any(type(end) is FinishDelta and end.finish_reason in MAY_BE_EMPTY for end in endings)):
            provider = self._service.provider
            msg = f"{provider} gave a complete answer without text or tool calls"
            raise EmptyAnswer(msg, provider=provider)
        return endings

    def _events_in(self, body: bytes) -> list[bytes]:
        """Give the events of what should be one piece, and is a stream; nothing if it is none."""
        del body
        return []

    def _take(self, answer: A, body: bytes, deltas: list[Delta]) -> bool:
        """Add the deltas of an answer in one piece; say whether it is complete.

        Raises:
            ModelError: it is an error, or no answer.
        """
        raise NotImplementedError

    def _add(self, event: A, deltas: list[Delta]) -> bool:
        """Add the deltas of one event; say whether it is the last, with which the answer is complete.

        Raises:
            ModelError: the event is an error, or makes no sense.
        """
        raise NotImplementedError

    def _is_complete(self) -> bool:
        """Whether all of the answer came."""
        return self._complete

    def _endings(self, beginning: bytes) -> list[Delta]:
        """Give the end marks of a complete answer, and what else is known only now.

        Raises:
            ModelError: it failed, or is no answer after all; ``beginning`` can be shown.
        """
        del beginning
        return [FinishDelta(self._reason or "")]  # some servers name no reason

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

    def _kept(self, said: Any) -> Any:
        """Freeze fields of the provider's own, which go back to it as they came.

        Raises:
            ProtocolViolation: they could not be written as JSON again: they are nested too deeply, or hold a number
                that is none.
        """
        try:
            return freeze(said)
        except ConfigurationError:
            pass
        raise self._violation(said, what="sent something that cannot be kept")

    def _violation(self, said: Any, what: str) -> ProtocolViolation:
        """Give the error for what was said, as it came, or as it was decoded."""
        told = said.decode("utf-8", "replace") if isinstance(said, bytes) else shown(said)
        text = excerpt(self._service.clean(told))
        provider = self._service.provider
        sentence = f"{provider} {what}: {text or 'nothing'}"
        return ProtocolViolation(sentence, excerpt=text, provider=provider, partial=self.partial)

    def _error(self, said: object) -> ModelError:
        error = error_object(said, self._service)
        error.partial = self.partial
        return error

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


def usage_of(
    sent: object, received: object, *, read: object = 0, written: object = 0, thought: object = 0, cost: object = None
) -> Usage | None:
    """Give the tokens of a request, of what a provider says of them; what makes no sense is not known.

    Args:
        sent: the tokens sent, those that came from the provider's cache or went to it among them.
        received: the tokens received, those of thoughts among them.
        read: of those sent, how many came from the cache.
        written: of those sent, how many went to it.
        thought: of those received, how many were thoughts.
        cost: what it cost, in US dollars.

    Returns:
        None if it is not known how many were sent and received, which is not the same as zero.
    """
    of_input, of_output = token_count(sent), token_count(received)
    if of_input is None or of_output is None:
        return None
    found: dict[str, Any] = {"input_tokens": of_input, "output_tokens": of_output}
    for name, told in (("cache_read_tokens", read), ("cache_write_tokens", written), ("reasoning_tokens", thought)):
        if told:
            found[name] = token_count(told) or 0
    if cost is not None:
        found["cost"] = dollars(cost)
    return assemble(Usage, found)


def fields_of(value: object) -> dict[str, Any]:
    """Give the fields of an object; of anything else there are none."""
    return value if type(value) is dict else {}
