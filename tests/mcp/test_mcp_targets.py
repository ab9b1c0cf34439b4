"""Where a server is, in every form that people write."""

from __future__ import annotations

from typing import Any

import pytest

from plait import ConfigurationError, Secret
from plait.mcp.client.targets import Address, Command, read_target


def ways(target: Any, **options: Any) -> list[tuple[str, str]]:
    return [(way.kind, way.url) for way in read_target("x", target, **options) if isinstance(way, Address)]


def test_an_address_is_tried_over_http_and_then_over_what_came_before() -> None:
    url = "https://example.org/v1/mcp"
    assert ways(url) == [("http", url), ("sse", url)]
    assert ways(url, transport="http") == [("http", url)]
    assert ways(url, transport="sse") == [("sse", url)]
    assert ways({"url": url, "type": "streamable-http"}) == [("http", url)]


@pytest.mark.parametrize("url", ["http://localhost:8000", "http://localhost:8000/"])
def test_an_address_without_a_path_is_also_tried_with_the_usual_ones(url: str) -> None:
    base = "http://localhost:8000"
    assert ways(url) == [("http", url), ("sse", url), ("http", f"{base}/mcp"), ("sse", f"{base}/sse")]
    assert ways(url, transport="http") == [("http", url), ("http", f"{base}/mcp")]
    assert ways(url, transport="sse") == [("sse", url), ("sse", f"{base}/sse")]


def test_what_may_be_secret_stands_beside_the_address() -> None:
    (way, *_) = read_target("x", "http://me:p%40ss@[::1]:80/mcp?key=k-secret#part", headers={"X-Own": "k-secret"})
    assert way == Address(
        url="http://[::1]:80/mcp",
        kind="http",
        query=Secret("key=k-secret"),
        headers={"Authorization": Secret("Basic bWU6cEBzcw=="), "X-Own": Secret("k-secret")},
    )
    assert "k-secret" not in repr(way)
    (way, *_) = read_target("x", "http://h/mcp", token=Secret("k-secret"), headers={"authorization": "other"})
    assert isinstance(way, Address)
    assert way.headers == {"Authorization": Secret("Bearer k-secret")}


def test_a_command_is_a_list_or_an_entry_of_the_usual_json() -> None:
    assert read_target("x", ["python", "server.py"]) == (Command(argv=("python", "server.py")),)
    entry = {"command": "npx", "args": ["-y", "server"], "env": {"TOKEN": "k-secret"}, "cwd": "/srv", "type": "stdio"}
    (way,) = read_target("x", entry)
    assert way == Command(argv=("npx", "-y", "server"), env={"TOKEN": Secret("k-secret")}, cwd="/srv")
    assert "k-secret" not in repr(way)


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        ("localhost:8000", {}, "'localhost:8000' is no URL that begins with http:// or https://; give a URL such as"),
        ("python server.py", {}, "'python server.py' is no URL"),
        ("ftp://me:k-secret@host/?key=k-secret", {}, "'ftp://host/' is no URL"),
        ("http://", {}, "is no URL"),
        ("http://host:port/", {}, "is no URL"),
        ("http://host/a b", {}, "is no URL"),
        ("", {}, "'' is no URL"),
        (["a"], {"transport": "http"}, "is a command, which is spoken to over stdio, not 'http'"),
        (["a"], {"token": "k-secret"}, "takes no token and no headers"),
        ("http://h", {"transport": "stdio"}, "is not spoken to over stdio"),
        ("http://h", {"transport": "tcp"}, "transport must be 'auto', 'http', 'sse' or 'stdio', not 'tcp'"),
        ("http://h", {"token": "k-secret\r\nX: y"}, "the header 'Authorization' or its value holds characters"),
        ("http://h", {"headers": {"a b": "c"}}, "the header 'a b' or its value holds characters"),
        ("http://h", {"headers": {"a": 1}}, "'headers' must be a mapping of texts to texts"),
        ([], {}, "a command is a program and its arguments"),
        (["a", 1], {}, "a command is a program and its arguments"),
        ({"command": "a", "args": "b c"}, {}, "a command is a program and its arguments"),
        ({"command": "a", "env": {"A": 1}}, {}, "'env' must be a mapping of texts to texts"),
        ({"args": []}, {}, "has neither 'url' nor 'command'"),
        ({"url": "http://h", "token": "k-secret"}, {}, "has unknown keys token; known are"),
        ({"command": "a", "type": "carrier pigeon"}, {}, "unknown type 'carrier pigeon'"),
        (7, {}, "is given as int; give a URL, a command as a list, or a dict with 'command'"),
    ],
)
def test_what_is_neither_is_one_clear_error(target: Any, options: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read_target("x", target, **options)
    assert "the MCP server 'x'" in str(raised.value)
    assert said in str(raised.value)
    assert "k-secret" not in str(raised.value)
