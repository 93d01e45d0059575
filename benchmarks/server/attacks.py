"""What clients do that mean no good."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import attrs
import msgpack
from blake3 import blake3

from .nonsense import AFTER_LOGIN, BEFORE_UPGRADE, MESSES
from .raw import BINARY, CONTINUATION, PING, Closed, Raw, frame, message, noise

CHUNK = 256 * 1024
CROWD = 1000
"""Connections at once."""
_HOLD_SECONDS = 1.0
_FLOODED = "x" * 2048


@attrs.frozen
class Target:
    """Where the server is, and the hash of an inferlet that anybody may launch."""

    port: int
    program: str
    wasm: bytes
    """The inferlet."""
    user: str
    """Nobody else has this name, or one that begins with it."""


Attack = Callable[[Target], Iterator[str]]
"""Yields what each act came to."""


def deaf(target: Target) -> Iterator[str]:
    """Launches inferlets that send without end, asks for more, and reads nothing."""
    raw = Raw.user(target.port, target.user)
    for number in range(100, 104):
        raw.send(_launch(target, number, "flood", "0", _FLOODED))
    raw.send(b"".join(message("ping", corr_id=number) for number in range(1000)))
    while True:
        yield "nothing read"
        time.sleep(1)


def garbage(target: Target) -> Iterator[str]:
    """One connection after the other, each with another kind of nonsense."""
    for mess in itertools.cycle(MESSES):
        raw = Raw.open(target.port) if mess in BEFORE_UPGRADE else Raw.upgraded(target.port)
        if mess in AFTER_LOGIN:
            raw.ask("identification", username=target.user)
        try:
            for data in mess():
                raw.send(data)
            outcome = raw.end()
        except Closed as closed:
            outcome = str(closed)
        raw.close()
        yield f"{mess.__name__}: {outcome}"


def uploads(target: Target) -> Iterator[str]:
    """Valid chunks without end, of programs that never are, and programs that are."""
    for turn in itertools.count():
        raw = Raw.user(target.port, f"{target.user} {turn}")
        for number in range(12):
            raw.skip()
            yield _distinct(raw, target, turn, number) if number % 4 else _never_ending(raw, number)
        raw.close()


def silent(target: Target) -> Iterator[str]:
    """A thousand connections of which no more is heard; every second is a WebSocket."""

    def begin(raw: Raw, number: int) -> None:
        if number % 2:
            raw.upgrade_blindly()

    return _crowd(target, begin)


def crowding(target: Target) -> Iterator[str]:
    """A thousand connections that log in."""

    def log_in(raw: Raw, number: int) -> None:
        raw.take_head()
        raw.send(message("identification", corr_id=1, username=target.user))

    return _crowd(target, lambda raw, number: raw.upgrade_blindly(), log_in)


def launches(target: Target) -> Iterator[str]:
    """Launches an inferlet and vanishes, again and again."""
    while True:
        raw = Raw.user(target.port, target.user)
        answer = raw.ask(
            "launch_instance", program_hash=target.program, arguments=["tokens", "40", "launched"]
        )
        raw.close()
        yield "launched" if answer["successful"] else answer["message"]


def fragments(target: Target) -> Iterator[str]:
    """Messages of which each byte is a frame; frames of nothing; and pings in between."""
    raw = Raw.user(target.port, target.user)
    for number in itertools.count(1000):
        whole = msgpack.packb({"type": "ping", "corr_id": number, "more": bytes(20_000)})
        first, *rest = (whole[at : at + 1] for at in range(len(whole)))
        pieces = [frame(first, BINARY, fin=False)]
        for at, piece in enumerate(rest):
            pieces += [
                frame(b"", CONTINUATION, fin=False) if at % 2 else frame(b"", PING),
                frame(piece, CONTINUATION, fin=at == len(rest) - 1),
            ]
        raw.send(b"".join(pieces))
        yield str(raw.answer(number)["result"])


def requests(target: Target) -> Iterator[str]:
    """Requests as fast as they are answered, or refused."""
    raw = Raw.user(target.port, target.user)
    for first in itertools.count(1000, 100):
        numbers = range(first, first + 100)
        raw.send(b"".join(message("ping", corr_id=number) for number in numbers))
        for number in numbers:
            yield str(raw.answer(number)["result"])[:30]


def spin(target: Target) -> Iterator[str]:
    """Does nothing to the server, and takes a processor: for comparison."""
    while True:
        until = time.perf_counter() + 0.1
        while time.perf_counter() < until:
            pass
        yield "spun"


@attrs.frozen
class Kind:
    """An attack, and how many of its kind go on at once."""

    attack: Attack
    at_once: int


ATTACKS = {
    "deaf": Kind(deaf, 8),
    "garbage": Kind(garbage, 8),
    "uploads": Kind(uploads, 8),
    "silent": Kind(silent, 1),
    "crowding": Kind(crowding, 1),
    "launches": Kind(launches, 4),
    "fragments": Kind(fragments, 4),
    "requests": Kind(requests, 4),
    "spin": Kind(spin, 1),
}


def _launch(target: Target, corr_id: int, *arguments: str) -> bytes:
    return message(
        "launch_instance", corr_id=corr_id, program_hash=target.program, arguments=arguments
    )


def _chunk(corr_id: int, key: str, index: int, total: int, data: bytes) -> bytes:
    return message(
        "upload_program",
        corr_id=corr_id,
        program_hash=key,
        chunk_index=index,
        total_chunks=total,
        chunk_data=data,
    )


def _never_ending(raw: Raw, number: int) -> str:
    """The first halves of four of the largest programs that may be, at once."""
    data, first = noise(CHUNK), 1000 + 4 * number
    for index in range(256):
        for corr_id in range(first, first + 4):
            raw.send(_chunk(corr_id, "0" * 64, index, 512, data))
        raw.skip()
    raw.send(_chunk(first, "0" * 64, 0, 0, b""))
    return str(raw.answer(first)["result"])


def _distinct(raw: Raw, target: Target, turn: int, number: int) -> str:
    """The inferlet with something added that makes it another one."""
    note = f"{target.user}.{turn}.{number}".encode()
    section = bytes((len(note),)) + note
    wasm = target.wasm + bytes((0, len(section))) + section
    raw.send(_chunk(2000 + number, blake3(wasm).hexdigest(), 0, 1, wasm))
    answer = raw.answer(2000 + number)
    return "kept" if answer["successful"] else str(answer["result"])


def _crowd(target: Target, *steps: Callable[[Raw, int], None]) -> Iterator[str]:
    """Each step with all connections, before the next; then look what has become of them."""
    while True:
        crowd = [Raw.open(target.port) for _ in range(CROWD)]
        for step in steps:
            for number, raw in enumerate(crowd):
                with suppress(Closed):
                    step(raw, number)
        time.sleep(_HOLD_SECONDS)
        for raw in crowd:
            yield raw.look()
        for raw in crowd:
            raw.close()
