"""``python -m plait.testing``: the fault server as a program, for any other program to be pointed at."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from typing import TYPE_CHECKING, Final

from plait.errors import ConfigurationError
from plait.testing.dialects import DIALECTS
from plait.testing.fault import Injected, Place
from plait.testing.faults import FAULTS, find_fault
from plait.testing.reply import answer
from plait.testing.server import Certificate, FaultServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.testing.exchanges import Exchange
    from plait.testing.fault import Fault
    from plait.testing.reply import Scripted

_LAST_PORT: Final = 65_535
_DESCRIPTION: Final = """\
A server on 127.0.0.1 that speaks OpenAI's chat completions and responses, Anthropic's messages and
Ollama's chat, and fails as you like. Point any program at the address it prints, without the /v1 for
clients of Anthropic and Ollama; each request is one line when it has ended.
"""
_EXAMPLES: Final = """\
examples:
  python -m plait.testing                              answers everything
  python -m plait.testing --fault closed-midway        breaks off every stream after 3 events
  python -m plait.testing --fault L20 --at 1           the same after 1, by the number of its row
  python -m plait.testing --fault overloaded --count 2 fails twice, then answers
  python -m plait.testing --list                       shows every fault

Ctrl-C ends it.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until Ctrl-C; gives the exit code: 0, or 2 when it could not begin."""
    given = _parser().parse_args(arguments)
    if given.list:
        sys.stdout.write(_table())
        return 0
    try:
        chosen = None if given.fault is None else find_fault(given.fault)
        server = FaultServer(
            *_script(chosen, given.at, given.byte, given.count, given.text),
            tls=_certificate(chosen),
            port=given.port,
            tell=_tell,
        )
        server.start()
    except ConfigurationError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    _say(_address(server, chosen))
    if chosen is not None:
        _say(f"fault {chosen.name} ({chosen.row}): {chosen.sentence}")
    try:
        ended.wait()
    finally:
        server.stop()
    _say(f"ended after {len(server.exchanges)} requests")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m plait.testing",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="show every fault, and end")
    parser.add_argument("--fault", metavar="NAME", help="the fault to inject: a name, or the number of a row")
    parser.add_argument("--at", type=_whole, metavar="N", help="where it happens, as the fault counts (see --list)")
    parser.add_argument("--byte", type=_whole, metavar="N", help="after how many bytes of the body")
    parser.add_argument("--count", type=_some, metavar="K", help="how many requests fail; those after it are answered")
    parser.add_argument("--port", type=_port, default=0, metavar="P", help="where to listen; a free port by itself")
    parser.add_argument("--text", default=None, metavar="TEXT", help="what healthy answers say")
    return parser


def _whole(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def _some(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _port(text: str) -> int:
    number = _whole(text)
    if number > _LAST_PORT:
        raise ValueError(text)
    return number


_whole.__name__, _some.__name__, _port.__name__ = "number", "number", "port"  # argparse says "invalid port value"


def _script(
    chosen: Fault | None, at: int | None, byte: int | None, count: int | None, text: str | None
) -> list[Scripted]:
    healthy = answer() if text is None else answer(text)
    if chosen is None:
        return [healthy]
    failing = Injected(chosen, Place(at=at, byte=byte))
    return [failing] if count is None else [*[failing] * count, healthy]


def _certificate(chosen: Fault | None) -> Certificate | None:
    if chosen is not None and chosen.setting in ("expired", "wrong-name"):
        return "expired" if chosen.setting == "expired" else "wrong-name"
    return None


def _address(server: FaultServer, chosen: Fault | None) -> str:
    match chosen.setting if chosen is not None else "":
        case "refused":
            server.refuse()
        case "no such host":
            return "http://no-such-host.invalid/v1"
        case "not tls":
            return server.url.replace("http://", "https://", 1)
        case _:
            pass
    return server.url


def _table() -> str:
    widest = max(map(len, FAULTS))
    return "".join(f"{one.row}  {one.name:<{widest}}  {one.sentence}{_only(one)}\n" for one in FAULTS.values())


def _only(one: Fault) -> str:
    return "" if len(one.dialects) == len(DIALECTS) else f" [{', '.join(one.dialects)}]"


def _tell(exchange: Exchange) -> None:
    _say(str(exchange))


def _say(line: str) -> None:
    try:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads any more; the server goes on till it is ended
        pass


if __name__ == "__main__":
    raise SystemExit(main())
