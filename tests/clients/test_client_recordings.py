"""Every recorded exchange of the chat dialect, asked for by the chat client and by the official SDK, and compared."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from plait import AsyncOpenRouterClient
from plait.errors import ProviderError
from recorded import FAMILIES

NOT_SENT_AGAIN = {"model", "messages", "stream", "stream_options"}


def asked(recording: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Give the messages of a recorded request, and its options, as the SDK takes them."""
    body = recording["request"]["body"]
    return body["messages"], {name: value for name, value in body.items() if name not in NOT_SENT_AGAIN}


def clients(recording: dict[str, Any], server: str) -> tuple[AsyncOpenRouterClient, openai.AsyncOpenAI]:
    url = server + recording["request"]["path"].removesuffix("/chat/completions")
    headers, name = {"x-replay-id": recording["id"]}, FAMILIES[recording["provider"]]
    model = recording["request"]["body"]["model"]
    return (
        AsyncOpenRouterClient("sk-test", model, url, headers, 0, provider=name),
        openai.AsyncOpenAI(api_key="sk-test", base_url=url, default_headers=headers, max_retries=0),
    )


async def whole_of(client: AsyncOpenRouterClient, messages: Any, options: dict[str, Any], *, stream: bool) -> Any:
    if not stream:
        return await client.create(messages, **options)
    return await (await client.create(messages, stream=True, **options)).get_final_completion()


def said(message: dict[str, Any]) -> dict[str, Any]:
    """Give what both must agree on of a message; the SDK has no word for what is not OpenAI's."""
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or ()]
    return {
        "content": message.get("content") or None,
        "refusal": message.get("refusal") or None,
        "calls": calls,
        "reasoning": message.get("reasoning") or None,
    }


def tokens(usage: dict[str, Any] | None) -> tuple[int, ...] | None:
    return None if usage is None else (usage["prompt_tokens"], usage["completion_tokens"])


async def of_sdk(recording: dict[str, Any], sdk: openai.AsyncOpenAI) -> dict[str, Any]:
    """Ask as the SDK asks, and give the completion; a stream is put together here."""
    messages, options = asked(recording)
    known = {"messages": messages, "model": recording["request"]["body"]["model"]}
    if not recording["request"]["body"].get("stream"):
        whole = await sdk.chat.completions.create(**known, extra_body=options)
        return dict(whole.model_dump())
    choices: dict[int, dict[str, Any]] = {}
    usage = None
    async for chunk in await sdk.chat.completions.create(**known, stream=True, extra_body=options):
        told = chunk.model_dump()
        usage = told["usage"] or usage
        for choice in told["choices"]:
            made = choices.setdefault(choice["index"], {"message": {}, "finish_reason": None, "calls": {}})
            delta = choice["delta"]
            for name in ("content", "refusal", "reasoning"):
                if delta.get(name):
                    made["message"][name] = made["message"].get(name, "") + delta[name]
            for call in delta.get("tool_calls") or ():
                known_call = made["calls"].setdefault(call["index"], {"function": {"name": "", "arguments": ""}})
                for name in ("name", "arguments"):
                    known_call["function"][name] += call["function"][name] or ""
            made["finish_reason"] = choice["finish_reason"] or made["finish_reason"]
            made["message"]["tool_calls"] = list(made["calls"].values())
    return {"choices": [choices[number] for number in sorted(choices)], "usage": usage}


async def test_completions_are_as_the_sdk_reads_them(
    recordings: list[dict[str, Any]], servers: dict[str, str], subtests: pytest.Subtests
) -> None:
    server, compared = servers["as recorded"], 0
    for recording in recordings:
        with subtests.test(recording["id"]):
            client, sdk = clients(recording, server)
            messages, options = asked(recording)
            stream = bool(recording["request"]["body"].get("stream"))
            try:
                async with sdk:
                    expected = await of_sdk(recording, sdk)
            except openai.APIError:
                with pytest.raises(ProviderError):
                    await whole_of(client, messages, options, stream=stream)
                continue
            chunks: list[dict[str, Any]] = []
            if stream:
                streamed = await client.create(messages, stream=True, **options)
                chunks = [chunk.model_dump() async for chunk in streamed]
                whole = await streamed.get_final_completion()
            else:
                whole = await client.create(messages, **options)
            made = whole.model_dump()
            assert ChatCompletion.model_validate(made).model_dump(exclude_unset=True)["choices"]
            assert ChatCompletion.model_validate(whole, from_attributes=True).id == whole.id
            assert [said(choice["message"]) for choice in made["choices"]] == [
                said(choice["message"]) for choice in expected["choices"]
            ]
            assert tokens(made["usage"]) == tokens(expected["usage"])
            assert [choice["finish_reason"] for choice in made["choices"]] == [
                choice["finish_reason"] for choice in expected["choices"]
            ]
            if stream:
                check_chunks(chunks, made)
            compared += 1
    assert compared > 40


def check_chunks(chunks: list[dict[str, Any]], whole: dict[str, Any]) -> None:
    """The chunks are the SDK's, each has a choice, and together they say what the whole says."""
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk)
        assert len(chunk["choices"]) == 1
    assert {chunk["id"] for chunk in chunks} == {whole["id"]}
    last = chunks[-1]
    assert (last["usage"], last["choices"][0]["finish_reason"]) == (
        whole["usage"],
        whole["choices"][-1]["finish_reason"],
    )
    for choice in whole["choices"]:
        grown = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == choice["index"]]
        deltas = [one["delta"] for one in grown]
        assert "".join(delta["content"] or "" for delta in deltas) == (choice["message"]["content"] or "")
        assert [delta["role"] for delta in deltas] == ["assistant", *[None] * (len(deltas) - 1)]
        assert [one["finish_reason"] for one in grown] == [*[None] * (len(grown) - 1), choice["finish_reason"]]
