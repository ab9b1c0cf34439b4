"""The fault server: every dialect on 127.0.0.1, whole and streamed, with any fault, on a thread of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Self

from plait.errors import ConfigurationError
from plait.testing.checks import one_of
from plait.testing.connection import Connection
from plait.testing.dialects import DIALECTS, dialect_of
from plait.testing.exchanges import Ledger
from plait.testing.reply import Asked, Reply
from plait.testing.script import checked, reply_of
from plait.testing.writing import steps_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any

    from plait.testing.dialect import Dialect
    from plait.testing.exchanges import Exchange
    from plait.testing.reply import DialectName, Scripted, Step

Certificate = Literal["good", "expired", "wrong-name"]
_CERTIFICATES: Final = ("good", "expired", "wrong-name")
PATIENCE: Final = 5.0
"""Seconds that a wait for something takes at most, if nothing else is said."""

_LAST_PORT: Final = 65_535
_MODELS: Final = {
    "/models": b'{"object": "list", "data": [{"id": "fault-1", "object": "model", "owned_by": "plait"}]}',
    "/api/tags": b'{"models": [{"name": "fault-1", "model": "fault-1"}]}',
}


class FaultServer:
    """A server that answers as its script says, in the dialect that it is asked in.

    ``with FaultServer(answer("hi"), fault("L20", at=3)) as server:`` and the program under test asks
    ``server.url``, or ``server.url_for("anthropic")``. The path of a request tells its dialect. It has a thread and an
    event loop of its own, so that sync programs, async programs and programs whose loop is blocked are served alike;
    nothing of it is left when the block ends. An error in a function of the script closes that request's connection,
    and is raised when the block ends.

    Attributes:
        url: the ``base_url`` of its API for clients of OpenAI; `url_for` gives that of each dialect.
        port: where it listens on 127.0.0.1.
        exchanges: every request that came, oldest first, with what became of it.
        requests: the JSON bodies of the questions to the model among them.
    """

    def __init__(
        self,
        *script: Scripted,
        dialect: Dialect | None = None,
        tls: Certificate | None = None,
        port: int = 0,
        tell: Callable[[Exchange], None] | None = None,
    ) -> None:
        """Write the script; nothing is begun yet.

        Args:
            *script: what each request gets, in turn; the last entry again and again. A text is an answer that says
                it. A function is called with each request, on the server's thread, and gives a `Reply`, a text or a
                fault. Without a script every answer is the same short text.
            dialect: how every answer is written, whatever the path; by itself as the path of the request says.
            tls: speak TLS, with this certificate of 127.0.0.1; see `certificate`.
            port: where to listen; a free port by itself.
            tell: called with each exchange when it has ended, on the server's thread.

        Raises:
            ConfigurationError: there is no such port or certificate, or something in the script is no entry of one.
        """
        if tls is not None:
            one_of("tls of a FaultServer", tls, _CERTIFICATES)
        if not 0 <= port <= _LAST_PORT:
            msg = f"the fault server cannot listen on port {port!r}; give one from 1 to {_LAST_PORT}, or 0 for any"
            raise ConfigurationError(msg)
        self.script = checked(script)
        self._dialect = dialect
        self._tls: Certificate | None = tls
        self.port = port
        self._ledger = Ledger(tell)
        self._asked = 0
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listening: socket.socket | None = None
        self._welcomes: set[asyncio.Task[None]] = set()
        self._connections: set[Connection] = set()
        self._failure: Exception | None = None

    def __repr__(self) -> str:
        where = repr(self.url) if self.port else "not started"
        return f"FaultServer({where}, {len(self.exchanges)} exchanges)"

    @property
    def url(self) -> str:
        """The ``base_url`` to give to clients of OpenAI, for chat completions and for responses.

        Raises:
            ConfigurationError: it has no port yet, as it was not started.
        """
        return self.url_for("chat")

    def url_for(self, dialect: DialectName) -> str:
        """Give the ``base_url`` for the clients of a dialect: those of Anthropic and Ollama add all of the path.

        Raises:
            ConfigurationError: it has no port yet, as it was not started; or there is no such dialect.
        """
        one_of("the name of a dialect", dialect, tuple(DIALECTS))
        if not self.port:
            msg = "the fault server has no address: it was not started; use `with FaultServer(...) as server:`"
            raise ConfigurationError(msg)
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}{DIALECTS[dialect].root}"

    @property
    def exchanges(self) -> list[Exchange]:
        """Every request that came, oldest first."""
        return list(self._ledger.exchanges)

    @property
    def requests(self) -> list[Any]:
        """The JSON bodies of the questions to the model, oldest first."""
        return [exchange.body for exchange in self._ledger.exchanges if exchange.method == "POST"]

    @property
    def connections(self) -> int:
        """How many connections were opened."""
        return self._ledger.connections

    @property
    def open_connections(self) -> int:
        """How many of them are open: at work, or kept by the client for its next request."""
        return len(self._ledger.open)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        failure = self._end()
        if failure is not None and (error is None or isinstance(error, Exception)):
            raise failure

    def start(self) -> None:
        """Begin to listen.

        Raises:
            ConfigurationError: the port is taken, or may not be used; or the server is running already.
        """
        if self._thread is not None:
            msg = f"the fault server is running already, at {self.url}; make another one, or stop it first"
            raise ConfigurationError(msg)
        self._failure = self._ledger.failure = None
        begun = threading.Event()
        thread = threading.Thread(target=self._run, args=(begun,), name="plait: fault server", daemon=True)
        thread.start()
        begun.wait()
        if self._failure is not None:
            thread.join()
            raise self._failure
        self._thread = thread

    def stop(self) -> None:
        """End every connection at once, and the thread.

        Raises:
            Exception: the first that a function of the script has raised since the start.
        """
        failure = self._end()
        if failure is not None:
            raise failure

    def _end(self) -> Exception | None:
        """End all; gives what went wrong in code that the server called."""
        thread, self._thread = self._thread, None
        if thread is None or self._loop is None:
            return None
        with suppress(RuntimeError):  # it has ended by itself, for a reason that is told now
            self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join()
        return self._failure or self._ledger.failure

    def play(self, *script: Scripted) -> None:
        """Go on with another script, from its beginning; what is under way is not changed.

        Raises:
            ConfigurationError: something in the script is no entry of one.
        """
        self.script = checked(script)
        self._asked = 0

    def refuse(self) -> None:
        """Stop listening: who connects from now on is refused. What is connected stays so."""
        self._do(self._unlisten())

    def accept(self) -> None:
        """Listen again, on the same port.

        Raises:
            ConfigurationError: somebody else has taken it.
        """
        self._do(self._listen())

    def hang_up(self) -> None:
        """Close every idle connection: those a client keeps for its next request are stale from now on."""
        self._do(self._close_idle())

    def wait_for_requests(self, count: int, seconds: float = PATIENCE) -> bool:
        """Wait until so many requests have come; says whether they have."""
        return self._ledger.wait(lambda: len(self._ledger.exchanges) >= count, seconds)

    def wait_until_idle(self, seconds: float = PATIENCE) -> bool:
        """Wait until no exchange is under way; says whether that came to be."""
        return self._ledger.wait(lambda: all(one.ended != "open" for one in self._ledger.exchanges), seconds)

    def wait_until_left(self, seconds: float = PATIENCE) -> bool:
        """Wait until the client has closed every connection; says whether it has."""
        return self._ledger.wait(lambda: not self._ledger.open, seconds)

    # --- on the server's thread ---

    def _run(self, begun: threading.Event) -> None:
        try:
            asyncio.run(self._main(begun))
        except Exception as error:  # noqa: BLE001  # raised in the thread that began or ends this one
            self._failure = error
        finally:
            begun.set()

    async def _main(self, begun: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        await self._listen()
        begun.set()
        await self._stopping.wait()
        await self._unlisten()
        await asyncio.sleep(0)  # who was let in just now is welcomed first
        for task in self._welcomes:
            task.cancel()
        await asyncio.gather(*self._welcomes, return_exceptions=True)
        await asyncio.sleep(0)
        await asyncio.gather(*(connection.end() for connection in self._connections))

    async def _listen(self) -> None:
        if self._listening is not None:
            return
        context = None
        if self._tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate(self._tls))
        try:
            listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            msg = f"the fault server cannot listen on port {self.port}: {why}; give another port"
            raise ConfigurationError(msg) from error
        listener.setblocking(False)  # noqa: FBT003  # its one parameter
        self.port = listener.getsockname()[1]
        self._listening = listener
        # asyncio's own server, and its own accept, lose a connection that comes while they are closed.
        asyncio.get_running_loop().add_reader(listener, self._let_in, listener, context)

    async def _unlisten(self) -> None:
        listener, self._listening = self._listening, None
        if listener is not None:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()

    def _let_in(self, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        try:
            raw, _ = listener.accept()
        except OSError:  # the client has gone already
            return
        raw.setblocking(False)  # noqa: FBT003  # its one parameter
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # each piece goes out by itself
        task = asyncio.get_running_loop().create_task(self._welcome(raw, context))
        self._welcomes.add(task)
        task.add_done_callback(self._welcomes.discard)

    async def _welcome(self, raw: socket.socket, context: ssl.SSLContext | None) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._connection, raw, ssl=context)
        except OSError:  # a client that does not trust the certificate, for example
            raw.close()
        except BaseException:
            raw.close()
            raise

    async def _close_idle(self) -> None:
        for connection in self._connections:
            if not connection.busy:
                connection.abort()

    def _connection(self) -> Connection:
        return Connection(self._ledger, self._steps, self._connections)

    def _steps(self, exchange: Exchange) -> Sequence[Step]:
        dialect = self._dialect or dialect_of(exchange.path)
        if exchange.method != "POST":  # programs look for the models before they ask one
            path = exchange.path.partition("?")[0]
            models = next((body for ending, body in _MODELS.items() if path.endswith(ending)), None)
            reply = Reply(status=404 if models is None or exchange.method != "GET" else 200, body=models)
            return steps_of(reply, dialect, Asked())
        scripted = self.script[min(self._asked, len(self.script) - 1)]
        self._asked += 1
        body = exchange.body if isinstance(exchange.body, dict) else {}
        url = f"{self.url_for('ollama')}{exchange.path}"
        asked = replace(dialect.asked(body), number=exchange.number, url=url, dialect=dialect.name)
        return steps_of(reply_of(scripted, asked), dialect, asked)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        if self._loop is None or self._thread is None:
            work.close()
            msg = "the fault server is not running; use it in a with block"
            raise ConfigurationError(msg)
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)


def certificate(name: Certificate = "good") -> Path:
    """Give the file of a certificate that `FaultServer` can speak TLS with, for the client to trust.

    A made-up authority each, of 127.0.0.1 (``"wrong-name"``: of another host), whose key is public: trust it in
    tests and nowhere else, for example with the environment variable ``SSL_CERT_FILE``.

    Raises:
        ConfigurationError: there is no such certificate.
    """
    one_of("the name of a certificate", name, _CERTIFICATES)
    return Path(__file__).parent / "certificates" / f"{name}.pem"
