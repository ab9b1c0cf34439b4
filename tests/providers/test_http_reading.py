from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from plait.providers.http import DEFAULT_LIMITS
from plait.providers.http.reading import EventStream
from plait.providers.sse import EventReader
from plait.providers.status import Service

if TYPE_CHECKING:
    from plait.providers.http.exchange import Exchange

SERVICE = Service(provider="acme", address="acme.test:443")


class Parts:
    """What the reads of a socket give, in place of an exchange."""

    def __init__(self, parts: list[bytes]) -> None:
        self.parts = parts

    async def read(self) -> bytes:
        return self.parts.pop(0) if self.parts else b""


@pytest.mark.parametrize("size", [1, 7, 999, 1000, 1001, 5000])
async def test_the_beginning_of_a_stream_is_the_same_however_it_is_cut(size: int) -> None:
    sent = bytes(65 + n % 26 for n in range(3000))
    exchange = cast("Exchange", Parts([sent[n : n + size] for n in range(0, len(sent), size)]))
    stream = EventStream(exchange, EventReader(), DEFAULT_LIMITS, SERVICE)
    assert await stream.read() is None
    assert stream.beginning == sent[:1000]
