"""Whose turn it is: how many calls of MCP hosts run at once, and that no host keeps the others waiting.

Knows nothing of what is done in a turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from plait.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MAX_WAITING: Final = 1000
"""Calls that wait for their turn; one more is refused."""


class Turns:
    """Lets so many in at once. Who came first goes first, but for those of a host that has its share already.

    One that must be alone comes in only when nobody is inside, and nobody overtakes it.

    Args:
        at_once: how many may be inside.
        shared: whether there are several hosts, so that one of them has half of the turns at most.
    """

    def __init__(self, at_once: int, *, shared: bool = False) -> None:
        self._at_once = at_once
        self._of_one = max(1, at_once // 2) if shared else at_once
        self._most_waiting = MAX_WAITING // 2 if shared else MAX_WAITING
        self._inside: list[Turn] = []
        self._waiting: deque[Turn] = deque()

    @asynccontextmanager
    async def take(self, whose: str = "", *, alone: bool = False) -> AsyncIterator[Turn]:
        """Wait for a turn, and have it while inside.

        Args:
            whose: stands for the host.
            alone: whether nobody else may be inside.

        Raises:
            ToolError: too many wait.
        """
        waiting = sum(turn.whose == whose for turn in self._waiting)
        if len(self._waiting) >= MAX_WAITING or waiting >= self._most_waiting:
            msg = f"the server is busy: {len(self._waiting):,} calls wait for their turn; try again later"
            raise ToolError(msg)
        turn = Turn(self, whose, alone=alone)
        self._waiting.append(turn)
        await self._come_in(turn)
        try:
            yield turn
        finally:
            self.leave(turn)

    def leave(self, turn: Turn) -> None:
        """Let others in, in place of one that is inside; of one that is not, this does nothing."""
        if turn in self._inside:
            self._inside.remove(turn)
            self._let_in()

    async def come_back(self, turn: Turn) -> None:
        """Wait for the turn of one that has left, as the first."""
        self._waiting.appendleft(turn)
        await self._come_in(turn)

    async def _come_in(self, turn: Turn) -> None:
        turn.let_in = asyncio.get_running_loop().create_future()
        self._let_in()
        try:
            await turn.let_in
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
                self._let_in()  # those it stood before
            self.leave(turn)  # let in, and cancelled before it noticed
            raise

    def _let_in(self) -> None:
        for turn in tuple(self._waiting):
            if len(self._inside) >= self._at_once or any(other.alone for other in self._inside):
                return
            if turn.let_in is None or turn.let_in.cancelled():
                continue
            if turn.alone and self._inside:
                return
            if sum(other.whose == turn.whose for other in self._inside) < self._of_one:
                self._waiting.remove(turn)
                self._inside.append(turn)
                turn.let_in.set_result(None)


class Turn:
    """The turn of one call.

    Attributes:
        whose: stands for the host.
        alone: whether nobody else may be inside.
        let_in: done when it is.
    """

    __slots__ = ("_asking", "_turns", "alone", "let_in", "whose")

    def __init__(self, turns: Turns, whose: str, *, alone: bool) -> None:
        self._turns = turns
        self._asking = 0
        self.whose = whose
        self.alone = alone
        self.let_in: asyncio.Future[None] | None = None

    @asynccontextmanager
    async def given_back(self) -> AsyncIterator[None]:
        """Let others in meanwhile; what must be alone stays so, for it is in the middle of its work."""
        if self.alone:
            yield
            return
        self._asking += 1
        self._turns.leave(self)
        try:
            yield
        except asyncio.CancelledError:  # it has to end, and not to wait for that
            self._asking -= 1
            raise
        except Exception:
            await self._come_back()
            raise
        await self._come_back()

    async def _come_back(self) -> None:
        self._asking -= 1
        if not self._asking:
            await self._turns.come_back(self)
