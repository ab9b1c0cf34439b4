"""The programs in examples/ run as they stand, against recordings."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


async def run(program: str, *arguments: str, **variables: str) -> tuple[int | None, list[str], bytes]:
    """Run a program in the working folder of the test; give its exit code, what it printed, and its errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLES / program), *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables},
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, out.decode().splitlines(), err


def asked(server: str, count: int) -> list[tuple[str, dict[str, str]]]:
    """Give path and body of the last requests that a replay server got."""
    with urlopen(f"{server}/__journal") as answer:  # noqa: S310  # on 127.0.0.1
        return [(one["path"], one["body"]) for one in json.load(answer)[-count:]]


async def test_images_at_openai(servers: dict[str, str], tmp_path: Path) -> None:
    server = servers["as recorded"]
    done = await run("images.py", OPENAI_API_KEY="sk-test", OPENAI_BASE_URL=f"{server}/v1")
    assert done == (0, ["Generated cityscape.png", "Edited cityscape-with-rainbow.png"], b"")
    made = {name: (tmp_path / name).read_bytes()[:8] for name in ("cityscape.png", "cityscape-with-rainbow.png")}
    assert made == dict.fromkeys(made, PNG)
    settings = {"model": "gpt-image-1", "size": "1024x1024"}
    words = "A futuristic cityscape with flying cars at sunset"
    assert asked(server, 2) == [
        ("/v1/images/generations", {**settings, "prompt": words, "quality": "high"}),
        ("/v1/images/edits", {**settings, "prompt": "Add a rainbow in the sky", "image": "<file>"}),
    ]


async def test_images_at_openrouter(servers: dict[str, str], tmp_path: Path) -> None:
    server = servers["as recorded"]
    variables = {"OPENROUTER_API_KEY": "sk-test", "OPENROUTER_BASE_URL": f"{server}/api/v1"}
    done = await run("images.py", "openrouter", **variables)
    assert done == (0, ["Generated cityscape.jpg", "Edited cityscape-with-rainbow.jpg"], b"")
    assert (tmp_path / "cityscape.jpg").read_bytes()[:3] == JPEG
    (first, made), (second, edited) = asked(server, 2)
    assert (first, second) == ("/api/v1/images", "/api/v1/images")
    assert sorted(made) == ["model", "prompt", "quality"]
    assert sorted(edited) == ["input_references", "model", "prompt"]


@pytest.mark.parametrize("variables", [{}, {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}])
async def test_what_goes_wrong_is_said(variables: dict[str, str]) -> None:
    code, said, errors = await run("images.py", **variables)
    assert code == 1
    last = (said or errors.decode().splitlines())[-1]
    assert ("cannot connect to 127.0.0.1:1" if variables else "set OPENAI_API_KEY") in last
