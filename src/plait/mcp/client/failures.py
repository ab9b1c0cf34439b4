"""How a session with a server fails, as far as it decides what is done next.

Knows nothing of the SDK: what it raises becomes one of these where it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


class CannotReach(Exception):
    """No session: the server cannot be started, reached or understood, or lets nobody in. The message says why.

    Attributes:
        foreign: something answers there, and it is no MCP server; another way may lead to one.
        retryable: it may be there in a moment.
    """

    def __init__(self, why: str, *, foreign: bool = False, retryable: bool = False) -> None:
        super().__init__(why)
        self.foreign = foreign
        self.retryable = retryable


class Unsent(Exception):
    """The call never reached the server: it may be made again, in a new session."""


class Broken(Exception):
    """The session ended while the call was under way: it may have happened."""


class NoAnswer(Exception):
    """The time of the call was up."""


class Declined(Exception):
    """The server answered with an error, or with what is no result. The message is its own."""


class Elsewhere(Exception):
    """The session lives in another event loop, where the work is to be done.

    Attributes:
        loop: that one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop


class Unheard(Exception):
    """An event loop does not do what it is asked to.

    Attributes:
        ended: it never will; else it stands still.
    """

    def __init__(self, *, ended: bool) -> None:
        super().__init__()
        self.ended = ended
