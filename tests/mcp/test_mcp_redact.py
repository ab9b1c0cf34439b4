"""What a server says, without what it was entrusted with."""

from __future__ import annotations

import json
import sys
from urllib.parse import quote

import pytest

from plait.errors import MCPError
from plait.mcp.client.connection import MCPConnection
from plait.mcp.client.redact import Redactor

SECRET = 'pa"ss\\word é'


@pytest.mark.fault("S01")
@pytest.mark.parametrize(
    "written", [SECRET, json.dumps(SECRET), json.dumps(SECRET, ensure_ascii=False), repr(SECRET), quote(SECRET)]
)
def test_a_secret_is_found_however_it_is_written(written: str) -> None:
    assert Redactor([SECRET])(f"a {written} b").replace('"', "").replace("'", "") == "a *** b"


def test_a_short_value_is_no_secret_and_a_longer_one_goes_first() -> None:
    assert Redactor(["1", "e", ""])("step 1 of the rest") == "step 1 of the rest"
    assert Redactor(["secret", "secret-and-more"])("a secret-and-more, a secret") == "a ***, a ***"


def test_the_rest_of_a_secret_at_the_beginning_of_a_tail_goes() -> None:
    redactor = Redactor(["sk-abcdef"])
    assert (redactor("cdef rest", is_tail=True), redactor("cdef rest")) == (" rest", "cdef rest")


@pytest.mark.fault("S01")
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("'bad key ' + json.dumps(os.environ['K'])", 'bad key "***"'),
        ("'x ' + os.environ['K'] + ' ' + 'y' * 1960", " " + "y" * 1960),
        ("'port 8080 in use, step 1'", "port 8080 in use, step 1"),
    ],
)
async def test_the_last_words_of_a_program_are_without_its_secrets(said: str, expected: str) -> None:
    program = f"import json, os, sys; sys.stderr.write({said}); sys.exit(1)"
    env = {"K": 'sk-"' + "z" * 60, "DEBUG": "1", "LANG": "e"}
    with pytest.raises(MCPError) as caught:
        await MCPConnection("s", {"command": sys.executable, "args": ["-c", program], "env": env}).open()
    words = str(caught.value).rpartition("its last words were: ")[2]
    assert words == (expected if len(expected) <= 200 else expected.strip()[:200] + "…")
