"""The one trimmer: which messages of a thread are sent next.

It takes in only what is new since the last turn, so a turn costs the same however long the thread and the window are.
What was left out stays out, and what was cut stays as it was cut: providers' caches live on a beginning that does not
change. A thread that is opened again is trimmed as if it had been open all the time.

It does no I/O: it says what should be summarised, and is told the summary.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Final, TypeVar

from plait.context.cutting import Forms
from plait.context.notes import Notes
from plait.context.sendables import Sendables
from plait.context.summaries import Summary, is_prompt
from plait.context.trimmed import Cut, Trimmed
from plait.counting import counter_of
from plait.errors import LimitExceeded

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from plait.context.bounds import Bounds
    from plait.context.trimmed import Origin
    from plait.counting import Counter
    from plait.messages import Message

_NOWHERE: Final = -1

A = TypeVar("A")


class Trimmer:
    """Trims one thread for one agent; keep it while the thread is open.

    Args:
        bounds: what may be sent.
        counter: counts tokens; None makes the one that ``bounds`` ask for, if they need any.
        fixed_tokens: the tokens of what is sent beside messages and notes: system prompt and definitions of tools.
        summary: the thread's last summary, and the index of the first message that it does not hide. Without
            summaries in the bounds it is not used.

    Attributes:
        fixed_tokens: may be set when the tools change.
    """

    __slots__ = (
        "_before",
        "_bounds",
        "_counter",
        "_cut",
        "_dropped",
        "_dropped_total",
        "_forms",
        "_head",
        "_head_open",
        "_last",
        "_limit",
        "_messages",
        "_notes",
        "_overflow",
        "_overflowed",
        "_pool",
        "_prompt",
        "_run",
        "_start",
        "_summary",
        "_system",
        "_system_at",
        "_system_tokens",
        "_taken",
        "_tokens",
        "fixed_tokens",
    )

    def __init__(
        self, bounds: Bounds, counter: Counter | None, fixed_tokens: int = 0, summary: tuple[int, str] | None = None
    ) -> None:
        if counter is None and (bounds.counts or bounds.summary_bound):
            counter = counter_of(bounds.counting)
        self._bounds = bounds
        self._counter = counter
        self.fixed_tokens = fixed_tokens
        self._forms = Forms(counter)
        self._tokens = self._forms.tokens
        self._notes = Notes(bounds, self._forms)
        self._last: Trimmed | None = None
        self._before: list[Message] | None = None  # what was sent last time
        self._limit: int | None = None
        self._summary = Summary(bounds.summary_bound, self._forms, summary)
        self._begin()

    def _begin(self) -> None:
        """Know nothing of the thread."""
        self._messages: Sequence[Message] = ()
        self._taken = 0  # how many of the messages are taken in
        self._run = 0  # where the current run begins in them
        self._system: list[Message] = []
        self._system_at: list[int] = []
        self._system_tokens = 0
        self._pool = Sendables()
        self._head = 0  # what is always sent is before this, in the pool,
        self._head_open = self._bounds.first > 0
        self._start = 0  # what is sent of the rest begins here,
        self._prompt = _NOWHERE  # and this is sent wherever it is
        self._overflow = self._overflowed = False
        self._dropped: list[Message] = []
        self._dropped_total = 0
        self._cut: list[Cut] = []

    def copy(self) -> Trimmer:
        """Give another that begins as this one is now, to see what would be sent."""
        made = copy(self)
        made._forms, made._pool = self._forms.copy(), self._pool.copy()  # noqa: SLF001  # its own class
        made._summary, made._tokens = self._summary.copy(made._forms), made._forms.tokens  # noqa: SLF001
        for name in ("_cut", "_dropped", "_system", "_system_at"):
            setattr(made, name, [*getattr(self, name)])
        return made

    def trim(
        self, messages: Sequence[Message], first_of_run: int, factor: float = 1.0, asked: int | None = None
    ) -> Trimmed:
        """Choose what is sent next.

        Args:
            messages: the thread as it may be sent (`Tail.sendable`): normally what was given last time, and more.
            first_of_run: the index at which the current run begins.
            factor: what the counter's tokens are to be multiplied with to be the provider's.
            asked: the index of the first message that no request held yet, when the thread was opened in the middle of
                a run; None for the run's first.

        Raises:
            LimitExceeded: what must be sent is more than ``max_tokens``, with everything cut that can be.
        """
        self._before = None if self._last is None else self._last.messages
        if not self._goes_on(messages) or (first_of_run < self._run and not self._bounds.keep_tool_calls):
            self._summary.begin(messages)
            self._begin()
        most = self._bounds.max_tokens
        self._limit = None if most is None else int(most / factor)
        self._messages = messages
        if not self._bounds.keep_tool_calls and self._run < first_of_run:
            self._leave_run(first_of_run)
        self._run = first_of_run
        self._take_all(messages, first_of_run if asked is None else asked)
        self._fit()
        if self._limit is not None and (total := self._total()) > self._limit:
            msg = (
                f"what must be sent takes {int(total * factor):,} tokens, and at most {most:,} may be sent: the newest "
                f"prompt and the last call, and {int(self._base() * factor):,} of system text, tools and notes; "
                "let more be sent, or say less"
            )
            raise LimitExceeded(msg, limit=most)
        return self._say()

    def summarised(self, upto: int, text: str) -> Trimmed:
        """Send this summary in place of what came before ``upto``, from now on.

        Args:
            upto: what `Unsummarised` said.
            text: the summary; what is more than its bound is cut.

        Returns:
            What is sent now, in place of what `trim` gave.
        """
        said = self._last
        self._summary.replace(text, self._messages, upto)
        now = self._say()
        if said is not None:
            now = self._last = now._replace(dropped=said.dropped, cut=said.cut, overflowed=said.overflowed)
        return now

    def unsummarised(self) -> None:
        """Go on without the summary that `trim` wanted: it wants one again when more is left out."""
        self._summary.postpone()

    def origins(self) -> list[Origin]:
        """Say of each message that was given last where it comes from; one that was cut is not the thread's own."""
        notes = self._notes.sent(dropped=self._dropped_total, overflow=self._overflow)
        summary: list[Origin] = [] if self._summary.message is None else ["summary"]
        return self._laid_out(self._system_at, notes, summary, self._pool.at)

    # --- taking in ---

    def _goes_on(self, messages: Sequence[Message]) -> bool:
        """Whether these are the messages taken in, and more."""
        taken, known = self._taken, self._messages
        if taken > len(messages):
            return False
        return taken == 0 or (messages[taken - 1] is known[taken - 1] and messages[0] is known[0])

    def _take_all(self, messages: Sequence[Message], asked: int) -> None:
        fresh = self._taken == 0
        if fresh and self._summary.upto:
            self._summary.settle(messages)
            # The log does not say why messages were summarised; where only tokens can have been the reason, they were.
            self._overflow = self._summary.upto > 0 and self._bounds.last is None
        begin, self._taken = self._taken, len(messages)
        for index in range(begin, len(messages)):
            if fresh and index == asked:
                self._said()
            message = messages[index]
            self._take(index, message)
            if index < self._summary.upto:
                self._hide(message)
            elif message.role != "assistant":  # the model is asked only after somebody else's words
                self._fit()
        if fresh and asked >= len(messages):
            self._said()

    def _take(self, index: int, message: Message) -> None:
        if message.role == "system":
            self._system.append(message)
            self._system_tokens += self._tokens(message)
            self._system_at.append(index)
            return
        whole: Message | None = message
        if index < self._run and not self._bounds.keep_tool_calls:
            whole = self._forms.without_calls(message)
        if whole is None:
            return
        sent = self._shortened(index, whole, self._bounds.max_tokens_per_message)
        self._pool.append(index, whole, sent, self._tokens(sent))
        if is_prompt(message):
            if self._pinned():
                self._drop(self._prompt)
            self._prompt = len(self._pool) - 1
        if self._head_open and not whole.tool_calls:  # a call waits for its results
            size = 2 if message.role == "tool" else 1
            if self._head + size <= self._bounds.first:
                self._head += size
                self._start = self._head
            else:
                self._head_open = False

    def _hide(self, message: Message) -> None:
        """Leave out what a summary hides, which was given with the thread."""
        end = len(self._pool)
        if message.role != "system" and self._start < end:
            self._start = end
            self._dropped_total += self._prompt != end - 1

    def _leave_run(self, first_of_run: int) -> None:
        """Leave the calls of a run out, and their results, because another run begins."""
        pool = self._pool
        begin = pool.find(self._run)
        after = len(self._messages)
        starts, heads, prompt = (
            pool.at[place] if 0 <= place < len(pool) else after for place in (self._start, self._head, self._prompt)
        )
        for at, whole, sent in pool.take_from(begin):
            kept = self._forms.without_calls(whole) if at < first_of_run else whole
            if kept is not None:
                made = sent if kept is whole else self._shortened(at, kept, self._bounds.max_tokens_per_message)
                pool.append(at, kept, made, self._tokens(made))
        self._start, self._head = pool.find(starts), pool.find(heads)
        self._prompt = _NOWHERE if prompt == after else pool.find(prompt)

    def _shortened(self, at: int, whole: Message, most: int | None) -> Message:
        if most is None:
            return whole
        made, new = self._forms.shorter(whole, most)
        if new:
            self._cut.append(Cut(at, self._tokens(whole) - self._tokens(made)))
        return made

    # --- leaving out ---

    def _fit(self) -> None:
        """Leave out, and at last cut, until what is sent is within its bounds."""
        pool, bounds = self._pool, self._bounds
        if not pool:
            return
        end = len(pool)
        last_unit = pool.unit_of(end - 1)
        if bounds.last is not None and end - self._start > bounds.last:
            start = end - max(1, int(bounds.last * bounds.share))
            self._advance(min(pool.whole_from(start), last_unit))
        limit = self._limit
        if limit is None or self._total() <= limit:
            return
        self._overflow = self._overflowed = True
        base = self._base(dropping=True)
        target = base + int(max(0, limit - base) * bounds.share)
        while self._start < last_unit and self._total() > target:
            self._advance(pool.whole_from(self._start + 1))
        if self._total() > limit and pool.tokens(0, self._head) > (limit - base) // 2:
            self._drop_head(last_unit)
        if self._total() > limit:
            self._squeeze(last_unit, limit)
        if self._total() > limit and self._head:
            self._drop_head(last_unit)

    def _advance(self, start: int) -> None:
        for place in range(self._start, start):
            self._drop(place, unless=self._prompt)
            self._summary.wait(self._pool.at[place], self._pool.whole[place])
        self._start = max(self._start, start)

    def _drop(self, place: int, unless: int = _NOWHERE) -> None:
        if place != unless:
            self._dropped.append(self._messages[self._pool.at[place]])
            self._dropped_total += 1

    def _drop_head(self, last_unit: int) -> None:
        """Leave out what was to be sent always: it leaves no room for where the thread is now."""
        head, self._head = min(self._head, last_unit), 0
        self._head_open = False
        start, self._start = self._start, 0
        self._advance(head)
        self._start = min(start, last_unit)

    def _squeeze(self, last_unit: int, limit: int) -> None:
        """Cut the newest prompt and the last unit to the room there is; a long prompt has half of it at least."""
        pool, prompt = self._pool, self._prompt
        beside = prompt != _NOWHERE and prompt < last_unit
        asked = pool.tokens(prompt, prompt + 1) if beside else 0
        last = pool.tokens(last_unit, len(pool))
        room = limit - (self._total() - asked - last)
        if beside:
            asked = self._shrink(prompt, max(room // 2, room - last))
        for place in range(len(pool) - 1, last_unit - 1, -1):  # results before the words of who called
            last = pool.tokens(last_unit, len(pool))
            self._shrink(place, room - asked - last + pool.tokens(place, place + 1))
        if beside:
            self._shrink(prompt, room - pool.tokens(last_unit, len(pool)))

    def _shrink(self, place: int, most: int) -> int:
        """Cut one message, if it has more; gives the tokens it has then."""
        pool = self._pool
        has = pool.tokens(place, place + 1)
        if has <= most:
            return has
        made = self._shortened(pool.at[place], pool.whole[place], max(0, most))
        tokens = self._tokens(made)
        if tokens < has:
            pool.replace(place, made, tokens)
            has = tokens
        return has

    def _pinned(self) -> bool:
        """Whether the newest prompt stands before messages that it did not stand before in the thread."""
        return self._head <= self._prompt < self._start

    def _base(self, *, dropping: bool = False) -> int:
        """Count what is sent beside the messages of people, models and tools."""
        tokens = self.fixed_tokens + self._system_tokens
        tokens += self._notes.tokens(dropped=self._dropped_total or dropping, overflow=self._overflow)
        return tokens + (self._summary.bound if dropping else self._kept_for_summary())

    def _kept_for_summary(self) -> int:
        """The room that is kept free for a summary, so that no other message has to go when it comes or grows."""
        return self._summary.bound if self._dropped_total or self._summary.message is not None else 0

    def _total(self) -> int:
        pool = self._pool
        tokens = self._base() + pool.tokens(0, self._head) + pool.tokens(self._start, len(pool))
        return tokens + (pool.tokens(self._prompt, self._prompt + 1) if self._pinned() else 0)

    # --- saying ---

    def _laid_out(self, system: Iterable[A], notes: Iterable[A], summary: Iterable[A], rest: Sequence[A]) -> list[A]:
        """Put what is sent in order: system text, notes, the head, the summary, the newest prompt, and the rest."""
        prompt = rest[self._prompt : self._prompt + 1] if self._pinned() else ()
        return [*system, *notes, *rest[: self._head], *summary, *prompt, *rest[self._start :]]

    def _of_run(self) -> int:
        """Count the messages of the current run that are sent."""
        begun = self._pool.find(self._run)
        prompt = self._pinned() and self._prompt >= begun
        return max(0, self._head - begun) + prompt + len(self._pool) - max(self._start, begun)

    def _say(self) -> Trimmed:
        pool = self._pool
        notes = self._notes.sent(dropped=self._dropped_total, overflow=self._overflow)
        summary = [] if self._summary.message is None else [self._summary.message]
        messages = self._laid_out(self._system, notes.values(), summary, pool.sent)
        tokens = self._total() - self._kept_for_summary() + sum(map(self._tokens, summary))
        said = self._last = Trimmed(
            messages=messages,
            tokens=None if self._counter is None else tokens,
            earlier=len(messages) - self._of_run(),
            before=self._before,
            overflow=self._overflow,
            overflowed=self._overflowed,
            dropped=tuple(self._dropped),
            dropped_total=self._dropped_total,
            cut=tuple(self._cut),
            summarize=self._summary.wanted(pool.at[self._start]) if self._dropped_total else None,
        )
        self._said()
        return said

    def _said(self) -> None:
        """Know that what was left out and cut so far has been told."""
        self._overflowed = False
        self._dropped.clear()
        self._cut.clear()
