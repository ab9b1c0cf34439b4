"""What a run gives, as promises: its events and its result, its text, or the values its answer grows into.

Owns what is made of a run's events for their readers. Who makes the run, and of what, is `plait.agent`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, cast

from typing_extensions import TypeVar

from plait.events import AttemptDelta, Event, MessageAdded, PartDelta, RunFinished, TextDelta
from plait.messages import TextPart
from plait.promises import PieceReader, StreamedPromise
from plait.run import RunResult

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Sequence

    from plait.loop import Run
    from plait.partials import Partials
    from plait.readers import BatchReader, Ending

Output = TypeVar("Output", default=str)
Piece = TypeVar("Piece")
Whole = TypeVar("Whole")

_BETWEEN: Final = "\n\n"
_PARTING: Final = frozenset({MessageAdded, AttemptDelta})  # after these, other text begins


class _OfRun(StreamedPromise[Piece, Whole], Generic[Piece, Whole, Output]):
    """A promise of what one run gives: its producer makes the run, and carries it out."""

    __slots__ = ("_run",)

    def __init__(self, make: Callable[[], Awaitable[Run[Output]]], name: str) -> None:
        self._run: Run[Output] | None = None
        super().__init__(cast("Callable[[], AsyncIterable[Sequence[Piece]]]", make), name=name)  # see `_open`

    async def _open(self, streamer: Callable[[], Any]) -> AsyncIterable[list[Event]]:
        run: Run[Output] = await streamer()
        self._run = run
        return run.events()

    def _settle(self, state: Ending, whole: object = None, error: BaseException | None = None) -> None:
        super()._settle(state, whole, error)
        self._run = None


class AgentRun(_OfRun[Event, RunResult[Output], Output], Generic[Output]):
    """A run under way: ``await`` it for its `RunResult`, iterate it for its events, or both.

    ``async with agent.run(...) as run`` ends the run when the block is left.
    """

    __slots__ = ()

    def _whole_of(self, _pieces: Sequence[Event]) -> RunResult[Output]:
        return result_of(self._run)


class _Held(_OfRun[Piece, Whole, Output], Generic[Piece, Whole, Output]):
    """What only its reader can hold: leaving an iteration early ends the run."""

    __slots__ = ()

    def __aiter__(self) -> PieceReader[Piece]:
        return self.sole_reader()

    def batches(self) -> BatchReader[Piece]:
        """Read lists of pieces, each list all that came since the last."""
        return self.sole_reader().batches()


class TextPieces(_Held[str, Whole, Any], Generic[Whole]):
    """The text of a run while it comes, in pieces; what the whole is, a subclass says."""

    __slots__ = ("_between", "_spoken")

    def __init__(self, make: Callable[[], Awaitable[Run[Any]]], name: str) -> None:
        self._between = ""  # what parts the next answer from the last
        self._spoken = False
        super().__init__(make, name)

    def _pieces_of(self, batch: Sequence[Event]) -> Sequence[str]:
        if found := [event.text for event in batch if type(event) is TextDelta and not event.choice]:
            if self._between:
                found.insert(0, self._between)
                self._between = ""
            self._spoken = True
        elif self._spoken and any(type(event) in _PARTING for event in batch):
            self._between = _BETWEEN
        return found


class TextStream(TextPieces[str]):
    """The text of a run while it comes; ``await`` gives the last answer's. Leaving an iteration early ends the run."""

    __slots__ = ()

    def _whole_of(self, _pieces: Sequence[str]) -> str:
        return result_of(self._run).text


class OutputStream(_Held[Output, Output, Output], Generic[Output]):
    """The output of a run while it grows; ``await`` gives the whole. Leaving an iteration early ends the run.

    The last piece is the whole, validated output, if the run ended with an answer; those before it are partial values
    (see `Partials`), and begin anew with every answer.
    """

    __slots__ = ("_partials", "_told")

    def __init__(self, make: Callable[[], Awaitable[Run[Output]]], partials: Partials[Output], name: str) -> None:
        self._partials = partials
        self._told = False  # whether the text of a part has come in pieces
        super().__init__(make, name)

    def _pieces_of(self, batch: Sequence[Any]) -> Sequence[Output]:
        partials, texts, found = self._partials, [], []
        for event in batch:
            kind = type(event)
            if kind is TextDelta and not event.choice:
                texts.append(event.text)
                self._told = True
            elif kind is PartDelta and type(event.part) is TextPart and not event.choice:
                if not self._told and not event.part.refusal:
                    texts.append(event.part.text)
                self._told = False
            elif kind is AttemptDelta or kind is MessageAdded:
                texts.clear()
                self._told = False
                partials.begin()
            elif kind is RunFinished and event.stop_reason == "response":
                whole = result_of(self._run).output
                if partials.is_new(whole):
                    found.append(whole)
        if texts and (value := partials.add(texts)) is not None:
            found.append(value)
        return found

    def _whole_of(self, _pieces: Sequence[Output]) -> Output:
        return result_of(self._run).output


def result_of(run: Run[Output] | None) -> RunResult[Output]:
    """Give the result of a run that was carried out to its end."""
    if run is None or run.result is None:  # the loop sets it before its last event
        msg = "the run ended without a result"
        raise AssertionError(msg)
    return run.result
