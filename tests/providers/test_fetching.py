from __future__ import annotations

import asyncio
import gzip
import os
import ssl
import subprocess
import sys
import tracemalloc
import zlib
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from plait import ConfigurationError, LimitExceeded, PlaitError, ProtocolViolation, SecurityError, TransportError
from plait.providers.http.addresses import kind_of
from plait.providers.http.fetching import Fetched, fetch
from plait.testing.server import certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from providers.conftest import Loopback, Serve, Step

PATIENCE = 10.0


class Names:
    """A resolver that knows these names only, and counts; the addresses of a name are given in turn."""

    def __init__(self, **known: Sequence[str]) -> None:
        self.known = {name.replace("_", "."): list(addresses) for name, addresses in known.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.known:
            raise OSError(-2, "Name or service not known")
        return self.known[host]


async def get(url: str, **options: Any) -> Fetched:
    return await fetch(url, **{"most": 1000, "seconds": PATIENCE, "allow_private": True, **options})


async def refusal(url: str, **options: Any) -> str:
    with pytest.raises(SecurityError) as caught:
        await get(url, **{"allow_private": False, **options})
    return str(caught.value)


def redirect(to: str, status: int = 302) -> list[Step]:
    return [f"HTTP/1.1 {status} X\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n".encode()]


# --- what is fetched --------------------------------------------------------------------------------------------------


async def test_a_file_is_fetched(serve: Serve) -> None:
    server = await serve(serve.whole(b"otter", headers={"content-type": "Image/PNG; charset=binary"}))
    url = f"http://127.0.0.1:{server.port}/a/otter.png?size=1"
    assert await get(url) == Fetched(b"otter", "image/png", url)
    assert [request.path for request in server.requests] == ["/a/otter.png?size=1"]


async def test_nothing_is_sent_but_the_question(serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxy, no ``.netrc``, and no cookie that an earlier answer has set."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login ada password lovelace\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    server = await serve(
        [b"HTTP/1.1 302 X\r\nset-cookie: a=1\r\nlocation: /two\r\ncontent-length: 0\r\n\r\n"], serve.whole(b"x")
    )
    await get(f"http://images.test:{server.port}/one", resolve=Names(images_test=["127.0.0.1"]))
    said = {"user-agent": "plait", "accept": "*/*", "accept-encoding": "identity", "connection": "close"}
    assert [request.headers for request in server.requests] == 2 * [said | {"host": f"images.test:{server.port}"}]


async def test_an_answer_without_a_length_or_type_is_read_to_its_end(serve: Serve) -> None:
    server = await serve([b"HTTP/1.1 200 OK\r\n\r\not", b"ter", "close"])
    url = f"http://127.0.0.1:{server.port}/"
    assert await get(url) == Fetched(b"otter", "", url)


async def test_the_connection_is_closed(serve: Serve) -> None:
    server = await serve(serve.whole(b"x"))
    await get(f"http://127.0.0.1:{server.port}/")
    await asyncio.wait_for(server.left.wait(), PATIENCE)


# --- S03: what is not fetched -----------------------------------------------------------------------------------------

KINDS = {
    "loopback": ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd00:ec2::254", "fec0::1"],
    "shared": ["100.64.0.1", "100.127.255.255", "::ffff:100.64.0.1"],
    "link-local": ["169.254.169.254", "fe80::1", "fe80::1%1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1"],
    "unspecified": ["0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0"],  # noqa: S104
    "reserved": [
        "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "240.0.0.1", "255.255.255.255",
        "::7f00:1", "64:ff9b:1::7f00:1", "100::1", "2001:2::1", "2001:20::1", "2001:db8::1", "3fff::1", "4000::1",
    ],
    "tunnel": ["2002:7f00:1::", "2002:808:808::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "192.88.99.1"],
    None: [
        "1.1.1.1", "8.8.8.8", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1",
        "192.167.1.1", "223.255.255.255", "2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::808:808",
    ],
}  # fmt: skip
NOT_PUBLIC = [(address, kind) for kind, addresses in KINDS.items() if kind for address in addresses]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_address_is_known(kind: str | None) -> None:
    assert {address: kind_of(ip_address(address)) for address in KINDS[kind]} == dict.fromkeys(KINDS[kind], kind)


@pytest.mark.fault("S03")
@pytest.mark.parametrize(("address", "kind"), NOT_PUBLIC)
async def test_an_address_that_is_not_public_is_refused(address: str, kind: str) -> None:
    """Written in the URL, and behind a name; the error does not tell what the name stands for."""
    shown = f"[{address.replace('%', '%25')}]" if ":" in address else address
    assert f" {kind} address" in await refusal(f"http://{shown}/latest/meta-data")
    said = await refusal("http://images.test/a.png", resolve=Names(images_test=[address]))
    assert said.startswith(f"'images.test' is not fetched: it is a {kind} address, not a public one")
    assert address not in said


@pytest.mark.fault("S03")
@pytest.mark.parametrize(
    "host",
    ["2130706433", "0x7f000001", "0x7f.0.0.1", "017700000001", "0177.0.0.1", "127.1", "127.0.1", "127.0.0.1.",
     "0x7f.1", "0X7F.1", "127.0.0.0x1", "00127.0.0.1", "127%2e0%2e0%2e1", "1.1.1.1.1"],
)  # fmt: skip
async def test_an_address_in_disguise_is_refused(host: str) -> None:
    """However the system would read it; also where private addresses are allowed."""
    names = Names()
    for allow_private in (False, True):
        said = await refusal(f"http://{host}/", resolve=names, allow_private=allow_private)
        assert said == f"the host {host.lower()!r} is an address in disguise, which is not asked; write it plainly"
    assert names.asked == []


@pytest.mark.fault("S03")
async def test_digits_of_other_alphabets_are_digits() -> None:
    assert "loopback" in await refusal("http://①②⑦.⓪.⓪.①/")


@pytest.mark.fault("S03")
async def test_the_names_of_this_machine_are_refused() -> None:
    for name in ("localhost", "LOCALHOST"):
        assert "is a loopback address" in await refusal(f"http://{name}/")


@pytest.mark.fault("S03")
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("file:///etc/passwd", "an address with the scheme 'file' is not fetched; it must be http or https"),
        ("ftp://images.test/a", "an address with the scheme 'ftp' is not fetched; it must be http or https"),
        ("gopher://images.test:80/_x", "an address with the scheme 'gopher' is not fetched; it must be http or https"),
        ("data:,x", "an address with the scheme 'data' is not fetched; it must be http or https"),
        ("http://images.test:22/", "the address at 'images.test' names the port 22; only 80 and 443 are asked"),
        ("https://images.test:6379/", "the address at 'images.test' names the port 6379; only 80 and 443 are asked"),
        (
            "http://a@images.test/",
            "the address at 'images.test' has a user name or password in it, which is not sent",
        ),
        ("http://:@images.test/", "the address at 'images.test' has a user name or password in it, which is not sent"),
    ],
)
async def test_what_an_address_may_not_say(url: str, said: str) -> None:
    names = Names()
    assert await refusal(url, resolve=names) == said
    assert names.asked == []


@pytest.mark.parametrize(
    "url", ["", "otter.png", "/otter.png", "//images.test/x", "http://", "http:///x", "http://[::1/", "http://a:99999/",
            "http://images.test\\@127.0.0.1/"]
)  # fmt: skip
async def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is no address; it must begin with http:// or https:// and a host"):
        await get(url)


@pytest.mark.fault("S03")
async def test_one_address_that_is_not_public_is_enough() -> None:
    names = Names(images_test=["93.184.216.34", "2606:4700::1111", "10.0.0.1"])
    assert "is a private address" in await refusal("http://images.test/", resolve=names)


@pytest.mark.fault("S03")
async def test_a_name_is_resolved_once_and_what_was_checked_is_asked(serve: Serve) -> None:
    """A name server that gives another address the second time (rebinding) is not asked a second time."""
    server = await serve(serve.whole(b"otter"))
    names = Names(images_test=["127.0.0.1"])
    assert (await get(f"http://images.test:{server.port}/", resolve=names)).data == b"otter"
    assert names.asked == ["images.test"]
    assert server.requests[0].headers["host"] == f"images.test:{server.port}"


@pytest.mark.fault("S03")
@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("http://169.254.169.254/latest/meta-data", "'169.254.169.254' is not fetched: it is a link-local address"),
        ("//[::ffff:169.254.169.254]/", "is not fetched: it is a link-local address"),
        ("http://evil.test/", "'evil.test' is not fetched: it is a link-local address"),
        ("http://2852039166/", "the host '2852039166' is an address in disguise"),
        ("file:///etc/passwd", "an address with the scheme 'file' is not fetched"),
        ("http://ada:secret@images.test/", "the address at 'images.test' has a user name or password in it"),
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_each_redirect_is_checked(serve: Serve, to: str, said: str, status: int) -> None:
    server = await serve(redirect("/next"), redirect(to, status))
    names = Names(images_test=["127.0.0.1"], evil_test=["169.254.169.254"])
    assert said in await refusal(f"http://images.test:{server.port}/", resolve=names, allow_private=True)
    assert [request.path for request in server.requests] == ["/", "/next"]


@pytest.mark.fault("S03")
async def test_a_redirect_into_the_private_network_is_refused(serve: Serve) -> None:
    """What is allowed for the first address is asked of the next one too: its name is resolved, and checked."""
    server = await serve(redirect("http://inside.test/"))
    names = Names(images_test=["127.0.0.1"], inside_test=["224.0.0.1"])
    said = await refusal(f"http://images.test:{server.port}/", resolve=names, allow_private=True)
    assert said == "'inside.test' is not fetched: it is a multicast address, not a public one"
    assert names.asked == ["images.test", "inside.test"]


@pytest.mark.fault("S03")
async def test_without_leave_this_machine_is_not_asked(serve: Serve) -> None:
    server = await serve(serve.whole(b"secret"))
    names = Names(images_test=["127.0.0.1"])
    said = await refusal("http://images.test/", resolve=names)
    assert said == (
        "'images.test' is not fetched: it is a loopback address, not a public one; the program must allow private "
        "addresses to ask it"
    )
    assert server.connections == 0


# --- redirects --------------------------------------------------------------------------------------------------------


async def test_three_redirects_are_followed(serve: Serve) -> None:
    server = await serve()
    last = redirect(f"//images.test:{server.port}/d", 308)
    server.answers = [redirect("/b", 301), redirect("c?x=1", 307), last, serve.whole(b"otter")]
    fetched = await get(f"http://127.0.0.1:{server.port}/a/", resolve=Names(images_test=["127.0.0.1"]))
    assert (fetched.data, fetched.url) == (b"otter", f"http://images.test:{server.port}/d")
    assert [request.path for request in server.requests] == ["/a/", "/b", "/c?x=1", "/d"]


async def test_the_fourth_redirect_is_not(serve: Serve) -> None:
    server = await serve(redirect("/again"))
    with pytest.raises(TransportError) as caught:
        await get(f"http://127.0.0.1:{server.port}/")
    assert str(caught.value) == "'127.0.0.1' redirects once more after 3 redirects; it was not followed"
    assert not caught.value.retryable
    assert len(server.requests) == 4


async def test_a_redirect_to_nonsense(serve: Serve) -> None:
    server = await serve(redirect("http://[::1/"))
    with pytest.raises(TransportError, match="redirects to 'http://\\[::1/', which is no address"):
        await get(f"http://127.0.0.1:{server.port}/")


# --- how much ---------------------------------------------------------------------------------------------------------


def sent(*steps: Step, **headers: str) -> list[Step]:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return [f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode(), *steps]


BOMB = gzip.compress(bytes(30_000_000))
TOO_MUCH: dict[str, Callable[[], list[Step]]] = {
    "declared": lambda: sent("hold", content_length="1000000000000"),
    "not declared": lambda: sent(bytes(600), bytes(600), "hold"),
    "in pieces": lambda: sent(*[b"200\r\n" + bytes(512) + b"\r\n"] * 2, "hold", transfer_encoding="chunked"),
    "gzip": lambda: sent(BOMB, "hold", content_encoding="gzip", content_length=str(len(BOMB) + 1)),
    "deflate": lambda: sent(zlib.compress(bytes(10_000)), "hold", content_encoding="deflate"),
}  # fmt: skip


@pytest.mark.fault("S03")
@pytest.mark.parametrize("how", TOO_MUCH)
async def test_more_than_was_allowed_is_not_read(serve: Serve, how: str) -> None:
    """It is refused as soon as it is known, while the server would go on."""
    server = await serve(TOO_MUCH[how]())
    with pytest.raises(LimitExceeded) as caught:
        await get(f"http://127.0.0.1:{server.port}/", most=1_000_000 if how == "gzip" else 1000)
    assert "'127.0.0.1' sends has more than 1000" in str(caught.value)
    await asyncio.wait_for(server.left.wait(), PATIENCE)


@pytest.mark.fault("S03")
async def test_a_bomb_is_not_unpacked(serve: Serve) -> None:
    """It stands for 30 MB, of which no more is made than may be had."""
    server = await serve(sent(BOMB, "close", content_encoding="gzip"))
    await get_nothing(server)  # with what is made once
    tracemalloc.start()
    try:
        await get_nothing(server)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 3_000_000


async def get_nothing(server: Loopback) -> None:
    with pytest.raises(LimitExceeded):
        await get(f"http://127.0.0.1:{server.port}/", most=1_000_000)


async def test_as_much_as_was_allowed_is_read(serve: Serve) -> None:
    server = await serve(serve.whole(bytes(1000)), sent(gzip.compress(bytes(1000)), "close", content_encoding="gzip"))
    assert (await get(f"http://127.0.0.1:{server.port}/")).data == bytes(1000)
    assert (await get(f"http://127.0.0.1:{server.port}/")).data == bytes(1000)


async def test_a_length_that_lies_low_does_not_let_more_in(serve: Serve) -> None:
    more = asyncio.Event()
    server = await serve(sent(b"otter", more, b" and more", content_length="5"))
    assert (await get(f"http://127.0.0.1:{server.port}/")).data == b"otter"
    more.set()
    server = await serve([b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\notter and more"])
    assert type(await broken(server)) is ProtocolViolation


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", "deflate", "identity"])
async def test_what_comes_compressed_is_unpacked(serve: Serve, encoding: str) -> None:
    packed = {"deflate": zlib.compress(b"otter"), "identity": b"otter"}.get(encoding, gzip.compress(b"otter"))
    server = await serve(sent(packed[:3], packed[3:], "close", content_encoding=encoding))
    assert (await get(f"http://127.0.0.1:{server.port}/")).data == b"otter"


async def test_what_follows_a_compressed_file_is_not_read(serve: Serve) -> None:
    """Nothing of it counts towards the bytes that were allowed; so it could go on for ever."""
    server = await serve(sent(gzip.compress(b"otter") + bytes(10), "hold", content_encoding="gzip"))
    assert (await get(f"http://127.0.0.1:{server.port}/")).data == b"otter"


@pytest.mark.parametrize(
    ("encoding", "body", "said"),
    [
        ("gzip", b"otter", "what '127.0.0.1' sends is not in the encoding 'gzip' it declares"),
        ("gzip", gzip.compress(b"otter")[:-4], "what '127.0.0.1' sends is not in the encoding 'gzip' it declares"),
        ("gzip", gzip.compress(b"otter") * 2, "what '127.0.0.1' sends is not in the encoding 'gzip' it declares"),
        ("br", b"otter", "'127.0.0.1' sends the encoding 'br', which was not asked for"),
    ],
)
async def test_what_cannot_be_unpacked(serve: Serve, encoding: str, body: bytes, said: str) -> None:
    server = await serve(sent(body, "close", content_encoding=encoding))
    with pytest.raises(TransportError) as caught:
        await get(f"http://127.0.0.1:{server.port}/")
    assert (str(caught.value), caught.value.retryable) == (said, False)


# --- how long ---------------------------------------------------------------------------------------------------------


@pytest.mark.fault("S03")
@pytest.mark.parametrize("steps", [["hold"], sent(b"ot", "hold"), sent("hold", content_length="10")])
async def test_it_takes_no_longer_than_was_allowed(serve: Serve, steps: list[Step]) -> None:
    server = await serve(redirect("/next"), steps)
    with pytest.raises(TransportError) as caught:
        await get(f"http://127.0.0.1:{server.port}/", seconds=0.2)
    assert str(caught.value) == "'127.0.0.1' gave no complete answer within 0.2 s"
    assert (caught.value.timeout, caught.value.retryable) == (True, True)
    await asyncio.wait_for(server.left.wait(), PATIENCE)


async def test_a_name_that_is_resolved_too_slowly() -> None:
    async def never(host: str) -> Sequence[str]:
        await asyncio.Event().wait()
        return [host]

    with pytest.raises(TransportError, match=r"gave no complete answer within 0\.05 s"):
        await get("http://images.test/", seconds=0.05, resolve=never)


async def test_whoever_cancels_it_gets_what_asyncio_promises(serve: Serve) -> None:
    server = await serve(["hold"])
    task = asyncio.create_task(get(f"http://127.0.0.1:{server.port}/"))
    await asyncio.wait_for(server.asked.wait(), PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(server.left.wait(), PATIENCE)


# --- what else goes wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "retryable"), [(304, False), (401, False), (404, False), (429, True), (503, True)])
async def test_an_answer_that_is_no_success(serve: Serve, status: int, retryable: bool) -> None:
    server = await serve(serve.whole(b"" if status == 304 else b"<h1>no</h1>", status=status))
    with pytest.raises(TransportError) as caught:
        await get(f"http://127.0.0.1:{server.port}/otter.png?signature=secret")
    assert str(caught.value) == f"'127.0.0.1' answered {status} instead of the file; check the address"
    assert (caught.value.retryable, caught.value.timeout, caught.value.provider) == (retryable, False, None)


async def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(TransportError) as caught:
        await get("http://images.test/", resolve=Names())
    assert str(caught.value) == "the name 'images.test' cannot be resolved: name or service not known"
    with pytest.raises(TransportError, match=r"the name 'images\.test' cannot be resolved: it has no address"):
        await get("http://images.test/", resolve=Names(images_test=[]))


@pytest.mark.parametrize(
    ("raised", "given", "said"),
    [
        (LookupError("NXDOMAIN"), [], "LookupError: NXDOMAIN"),
        (None, ["here"], "ValueError: 'here' does not appear to be an IPv4 or IPv6 address"),
        (None, [None], "ValueError: None does not appear to be an IPv4 or IPv6 address"),
    ],
)
async def test_a_resolver_that_fails_in_its_own_way(raised: Exception | None, given: list[str], said: str) -> None:
    async def resolve(_: str) -> list[str]:
        if raised is not None:
            raise raised
        return given

    with pytest.raises(TransportError) as caught:
        await get("http://images.test/", resolve=resolve)
    assert str(caught.value) == f"the name 'images.test' cannot be resolved: {said}"


async def test_a_name_that_is_none() -> None:
    with pytest.raises(TransportError, match="cannot be resolved: it is no name"):
        await get(f"http://{'a' * 70}.test/")


async def broken(server: Loopback) -> PlaitError:
    with pytest.raises(PlaitError) as caught:
        await get(f"http://127.0.0.1:{server.port}/")
    return caught.value


async def test_connections_that_fail(serve: Serve) -> None:
    where = "127.0.0.1:{port}"
    cases: list[tuple[list[Step], type[PlaitError], str]] = [
        (["close"], TransportError, f"{where} closed the connection before it had answered"),
        (sent(b"ot", "close", content_length="10"), TransportError, f"{where} ended in the middle of the answer"),
        ([b"SSH-2.0-OpenSSH\r\n\r\n"], ProtocolViolation, f"{where} does not speak proper HTTP (check the address)"),
    ]
    for steps, kind, said in cases:
        server = await serve(steps)
        error = await broken(server)
        assert type(error) is kind
        assert said.format(port=server.port) in str(error)


async def test_nobody_listens(serve: Serve) -> None:
    server = await serve()
    serve.running[-1][0].close()
    error = await broken(server)
    where = f"127.0.0.1:{server.port}"
    assert str(error) == f"cannot connect to {where}: connection refused; check the address"
    assert (type(error), error.retryable) == (TransportError, True)


OVER_TLS = """
import asyncio, sys
from plait import PlaitError
from plait.providers.http.fetching import fetch

async def resolve(host):
    return ["127.0.0.1"]

async def get(host):
    url = f"https://{host}:{sys.argv[1]}/"
    try:
        print((await fetch(url, most=100, seconds=10, allow_private=True, resolve=resolve)).data)
    except PlaitError as error:
        print(type(error).__name__, error.retryable, str(error).partition(" it: ")[0])

async def both():
    await get("127.0.0.1")
    await get("images.test")

asyncio.run(both())
"""


async def test_a_certificate_must_be_for_the_name(serve: Serve) -> None:
    """The address that was checked is where the connection leads, and the name is who must be there.

    What to trust is read from the environment when Python starts to speak TLS, so this is a program of its own.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate("good"))
    server = await serve(serve.whole(b"otter"), tls=context)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OVER_TLS, str(server.port)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "SSL_CERT_FILE": str(certificate("good"))},
    )
    out, err = await asyncio.wait_for(process.communicate(), 3 * PATIENCE)
    assert err == b""
    assert out.decode().splitlines() == [
        "b'otter'",
        f"TransportError False the certificate of images.test:{server.port} is not valid for",
    ]
