"""Streams that are cut: into pieces, which must change nothing, or off, which must never pass for an answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from plait.entries import MessageEntry, decode, encode, entry
from plait.errors import PlaitError, ProtocolViolation, StreamTruncated, TransportError
from plait.events import Answer, Fold
from plait.messages import UserMessage
from plait.providers.base import Request
from soak.server import CHUNKED, LAST_CHUNK, OK, UNTIL_CLOSED, Server, Step, chunk
from soak.streams import in_pieces

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence

    from plait.providers.remote import HttpProvider
    from soak.progress import Proof
    from soak.streams import Reference, Seen, Subject

PATIENCE = 20.0  # seconds for one answer through a socket
LONGEST_SENTENCE = 700  # characters of an error


def read(subject: Subject, pieces: Iterable[bytes], *, clean: bool = True) -> Answer | PlaitError:
    """Read a stream with plait's pure parts, as its provider does; gives the answer, or the error that is raised.

    Args:
        subject: the dialect.
        pieces: what the reads of the socket give.
        clean: whether the stream ends after them, or breaks off.
    """
    frames, answers, fold = subject.framing(), subject.reader(), Fold("", "m-1")
    begun = b""
    try:
        for piece in pieces:
            begun = (begun + piece)[:1000]
            if events := frames.feed(piece):
                fold.add(answers.feed(events))
            if answers.done:
                break
        else:
            if clean and (events := frames.end()):
                fold.add(answers.feed(events))
        fold.add(answers.end(begun, broken=None if clean else TransportError("it broke")))
    except PlaitError as error:
        error.partial = error.partial or answers.partial
        return error
    return fold.answer()


def said(answer: Answer) -> dict[str, Any]:
    """Give what an answer says, in the words of `Reference`."""
    message, usage = answer.message, answer.usage
    return {
        "text": message.text,
        "reasoning": message.reasoning,
        "refusal": message.refusal,
        "calls": tuple((call.id, call.name, call.arguments) for call in message.tool_calls),
        "finish": answer.finish_reason,
        "usage": None if usage is None else (usage.input_tokens, usage.output_tokens),
    }


def expected(reference: Reference) -> dict[str, Any]:
    """Give what the answer to a reference stream must say."""
    names = ("text", "reasoning", "refusal", "calls", "finish", "usage")
    return {name: getattr(reference, name) or (None if name == "usage" else getattr(reference, name)) for name in names}


def wrong_whole(reference: Reference, outcome: Answer | PlaitError) -> str | None:
    """Say what is wrong with the outcome of a stream that came in pieces, all of them."""
    if isinstance(outcome, PlaitError):
        return f"an error for a whole stream: {outcome!r}"
    told = said(outcome)
    return None if told == expected(reference) else f"read as {told}"


def wrong_cut(reference: Reference, outcome: Answer | PlaitError, there: Seen, *, exact: bool = True) -> str | None:
    """Say what is wrong with the outcome of a stream that was cut off.

    Args:
        reference: the stream.
        outcome: what came of it.
        there: what it said up to the cut.
        exact: False where the end of what was sent may have been lost on its way.
    """
    if isinstance(outcome, Answer):
        told = said(outcome)
        if not there.finished:
            return f"a success without an end mark: {told}"
        usage = told.pop("usage")
        wanted = expected(reference)
        whole = wanted.pop("usage")
        return None if told == wanted and usage in (None, whole) else f"read as {told}, {usage}"
    if exact and there.finished:
        return f"an error after the end mark: {outcome!r}"
    if not (isinstance(outcome, StreamTruncated) or (isinstance(outcome, ProtocolViolation) and not there.anything)):
        return f"the error is {outcome!r}"
    if exact and outcome.partial != there.text:
        return f"the partial text is {outcome.partial!r}, not {there.text!r}"
    return None if reference.text.startswith(outcome.partial) else f"the partial text is {outcome.partial!r}"


def positions(proof: Proof, subject: Subject) -> None:
    """Cut each reference stream at each position (some thousands), with each kind of line end: in two, and off."""
    wire = subject.wire
    streams = [(one, wire.plainly(one.events, end)) for one in subject.references for end in wire.ends]
    places = [(number, cut) for number, (_, stream) in enumerate(streams) for cut in range(len(stream) + 1)]
    proof.wanted = min(proof.wanted, len(places))
    step = len(places) / proof.wanted
    for case in proof.cases():
        place = case if proof.at is not None else int(case * step)
        number, cut = places[place]
        reference, stream = streams[number]
        if wrong := wrong_whole(reference, read(subject, [stream[:cut], stream[cut:]])):
            proof.differs(place, f"{reference.name} cut at {cut}: {wrong}")
        for clean in (True, False):
            _cut_off(proof, place, subject, reference, [stream[:cut]] if cut else [], clean=clean)
        proof.did()


def cuts(proof: Proof, subject: Subject) -> None:
    """Write reference streams down at random, cut them into random pieces, and off at a random position."""
    for case in proof.cases():
        chance = proof.chance(case)
        reference = chance.choice(subject.references)
        stream = subject.wire.written(reference.events, chance)
        if wrong := wrong_whole(reference, read(subject, in_pieces(stream, chance))):
            proof.differs(case, wrong)
        cut, clean = chance.randrange(len(stream)), chance.random() < 0.5
        _cut_off(proof, case, subject, reference, in_pieces(stream[:cut], chance), clean=clean)
        proof.did()


def _cut_off(
    proof: Proof, place: int, subject: Subject, reference: Reference, pieces: Sequence[bytes], *, clean: bool
) -> None:
    """Read the beginning of a reference stream, and note what is wrong with the outcome."""
    sent = b"".join(pieces)
    there = subject.seen(sent, clean=clean)
    proof.counts["ends that were an answer" if there.finished else "ends that were none"] += 1
    if wrong := wrong_cut(reference, read(subject, pieces, clean=clean), there):
        how = "cleanly" if clean else "broken"
        proof.differs(place, f"{reference.name} ended at {len(sent)} ({how}): {wrong}")


# --- through a socket ------------------------------------------------------------------------------------------------


def sockets(proof: Proof, subject: Subject) -> None:
    """Send streams through a socket: whole in pieces, ended too soon, broken off, reset."""
    asyncio.run(_sockets(proof, subject))


async def _sockets(proof: Proof, subject: Subject) -> None:
    steps: list[Step] = []
    head = OK + f"content-type: {subject.content_type}\r\n".encode()
    async with Server(lambda _: steps) as server:
        provider = subject.provider(server.url)
        request = Request(messages=[UserMessage(text="go on")], stream=True)
        for case in proof.cases():
            chance = proof.chance(case)
            reference = chance.choice(subject.references)
            stream = subject.wire.written(reference.events, chance)
            how = chance.choice(["whole", "whole", "ended", "broken", "reset"])
            proof.counts[how] += 1
            cut = len(stream) if how == "whole" else chance.randrange(len(stream))
            steps = _sent(head, stream[:cut], how, chance)
            try:
                outcome = await asyncio.wait_for(_asked(provider, request), PATIENCE)
            except TimeoutError:
                proof.differs(case, f"{how} at {cut}: no outcome within {PATIENCE:g} s")
                continue
            there = subject.seen(stream[:cut], clean=True)
            if how == "whole":
                wrong = wrong_whole(reference, outcome)
            elif how == "ended":
                wrong = wrong_cut(reference, outcome, there)
            elif not cut and isinstance(outcome, TransportError):
                wrong = None  # it broke before the answer began
            else:
                wrong = wrong_cut(reference, outcome, there, exact=False)
            if wrong:
                proof.differs(case, f"{how} at {cut}: {wrong}")
            proof.did()


async def _asked(provider: HttpProvider, request: Request) -> Answer | PlaitError:
    fold = Fold(provider.name, provider.model)
    try:
        async for batch in provider.stream(request):
            fold.add(batch)
    except PlaitError as error:
        return error
    return fold.answer()


def _sent(head: bytes, body: bytes, how: str, chance: random.Random) -> list[Step]:
    """Give the steps that send a body, framed in one of HTTP's ways, in random pieces."""
    pieces = in_pieces(body, chance) if body else []
    if how in {"whole", "ended"} and chance.random() < 0.3:
        return [head + UNTIL_CLOSED, *pieces, "close"]
    framed = b"".join(map(chunk, pieces))
    sent: list[Step] = [head + CHUNKED]
    sent += in_pieces(framed, chance) if framed and chance.random() < 0.5 else map(chunk, pieces)
    endings: dict[str, Step] = {"whole": LAST_CHUNK, "ended": LAST_CHUNK, "broken": "close", "reset": "reset"}
    return [*sent, endings[how]]


# --- streams that are not what they should be -------------------------------------------------------------------------


def junk(proof: Proof, subject: Subject) -> None:
    """Spoil streams and whole answers: a result or a typed error comes out, the same one however they are cut."""
    for case in proof.cases():
        chance = proof.chance(case)
        reference = chance.choice(subject.references)
        stream = _spoilt(subject, subject.wire.written(reference.events, chance), chance)
        clean = chance.random() < 0.5
        outcome = _judged(proof, case, subject, [stream], clean=clean)
        again = _judged(proof, case, subject, in_pieces(stream, chance) if stream else [], clean=clean)
        if said_at_all(outcome) != said_at_all(again):
            proof.differs(case, f"in one piece {said_at_all(outcome)}, in many {said_at_all(again)}")
        proof.counts[type(outcome).__name__] += 1
        proof.did()


def said_at_all(outcome: Answer | PlaitError | None) -> object:
    """Give what can be compared of an outcome."""
    if isinstance(outcome, Answer):
        return said(outcome), outcome.message
    return type(outcome), str(outcome), getattr(outcome, "partial", None)


def _judged(
    proof: Proof, case: int, subject: Subject, pieces: list[bytes], *, clean: bool
) -> Answer | PlaitError | None:
    """Read a spoilt stream; what comes out must be fit to be stored, or an error fit to be shown."""
    try:
        outcome = read(subject, pieces, clean=clean)
        if isinstance(outcome, PlaitError):
            sentence = str(outcome)
            if not sentence.isprintable() or len(sentence) > LONGEST_SENTENCE:
                proof.differs(case, f"the error's sentence is not fit to be shown: {sentence[:2000]!r}")
        else:
            kept = entry(1, MessageEntry(message=outcome.message, usage=outcome.usage), "run_1")
            if decode(encode(kept)) != kept:
                proof.differs(case, f"the log does not give the message back: {outcome.message!r}")
    except Exception as error:  # noqa: BLE001  # that is what is looked for
        proof.differs(case, f"{type(error).__name__} came out: {str(error)[:300]}")
        return None
    return outcome


def _spoilt(subject: Subject, stream: bytes, chance: random.Random) -> bytes:
    """Change a stream in one to five places."""
    made, gap = bytearray(stream), subject.wire.gap
    for _ in range(chance.choice([1, 1, 2, 5])):
        place = chance.randrange(len(made) + 1)
        far = min(len(made), place + chance.choice([1, 1, 3, 40, 300]))
        match chance.randrange(6):
            case 0:
                made[place:far] = bytes(chance.randrange(256) for _ in range(far - place))
            case 1:
                made[place : place + 1] = bytes([made[place] ^ 1 << chance.randrange(8)]) if place < len(made) else b""
            case 2:
                del made[place:far]
            case 3:
                made[place:place] = made[place:far] * chance.choice([1, 2, 50])
            case 4:
                made[place:place] = subject.junk_of(chance)
            case _:
                ends = [n + len(gap) for n in range(len(made)) if made[n : n + len(gap)] == gap] or [0]
                place = chance.choice(ends)
                made[place:place] = subject.junk_of(chance)
    return bytes(made)
