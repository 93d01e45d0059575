"""An ordinary client and what it must hear, for the benchmark and the tests of the server."""

from __future__ import annotations

import itertools
import socket
import struct
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import attrs
import msgpack
from websockets.asyncio.client import ClientConnection, connect

GUEST = Path(__file__).parents[2] / "tests" / "guests" / "stream.wat"
"""The inferlet that clients launch."""
COMPLETED = 1
_EVENTS = ("instance_event", "streaming_output", "download_blob")
_MASK = (1 << 64) - 1
_LETTERS = 26

Message = dict[str, Any]


class Refused(Exception):
    """The server says no, and why."""


@attrs.define(eq=False)
class Heard:
    """What an instance has said so far."""

    pieces: list[str] = attrs.field(factory=list)
    times: list[float] = attrs.field(factory=list)
    """When each piece came, on `perf_counter`."""
    end: tuple[int, str] | None = None
    """The terminal event."""

    def take(self, message: Message) -> None:
        assert message["type"] == "instance_event", message
        assert self.end is None, f"{message} after {self.end}"
        if message["event"] == 0:
            self.pieces.append(message["message"])
            self.times.append(time.perf_counter())
        else:
            self.end = message["event"], message["message"]

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@attrs.define(eq=False)
class Client:
    """One connection of the wire protocol, in asyncio."""

    _socket: ClientConnection
    waiting: deque[Message] = attrs.field(factory=deque)
    """Came before an answer, and was not asked for yet."""
    _numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))

    async def ask(self, kind: str, **fields: Any) -> Message:
        """Make a request, and give its answer; raises Refused."""
        number = next(self._numbers)
        await self.send(kind, corr_id=number, **fields)
        while True:
            message = await self._receive()
            if message.get("corr_id") == number:
                break
            self.waiting.append(message)
        if not message.get("successful", True):
            raise Refused(message.get("result") or message.get("message"))
        return message

    async def send(self, kind: str, **fields: Any) -> None:
        await self._socket.send(msgpack.packb({"type": kind, **fields}))

    async def next(self) -> Message:
        """The next message that is no answer."""
        return self.waiting.popleft() if self.waiting else await self._receive()

    async def launch(self, program: str, *arguments: str, detached: bool = False) -> str:
        """The new instance's id."""
        answer = await self.ask(
            "launch_instance", program_hash=program, arguments=arguments, detached=detached
        )
        return cast(str, answer["message"])

    async def hear(self, heard: Heard, *, pieces: int | None = None) -> None:
        """Listen to the only instance of this connection until its end, or for so many pieces."""
        while heard.end is None and (pieces is None or len(heard.pieces) < pieces):
            message = await self.next()
            if message["type"] in _EVENTS:
                heard.take(message)

    async def close(self) -> None:
        await self._socket.close()

    def abort(self, *, reset: bool) -> None:
        """Vanish without a word; with `reset` the server's system hears of it as an error."""
        if reset:
            sock: socket.socket = self._socket.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.transport.abort()

    async def _receive(self) -> Message:
        data = await self._socket.recv()
        return cast(Message, msgpack.unpackb(data))


@asynccontextmanager
async def connected(port: int, user: str) -> AsyncIterator[Client]:
    """A client who has logged in."""
    async with connect(
        f"ws://127.0.0.1:{port}", compression=None, ping_interval=None, open_timeout=None
    ) as socket:
        client = Client(socket)
        await client.ask("identification", username=user)
        yield client


async def stream(client: Client, program: str, prompt: str, tokens: int) -> Heard:
    """Launch the inferlet, hear all its tokens, and see that they are right and that is all."""
    heard = Heard()
    await client.launch(program, "tokens", str(tokens), prompt)
    await client.hear(heard)
    check(heard, expected(prompt, tokens))
    await client.ask("ping")
    assert not client.waiting, f"after the end came {client.waiting}"
    return heard


def check(heard: Heard, text: str) -> None:
    """Fail unless every token was heard once and in order, and then the end."""
    assert heard.text == text, f"heard {heard.text!r} instead of {text!r}"
    assert heard.end == (COMPLETED, text), heard.end


def expected(prompt: str, tokens: int) -> str:
    """What the inferlet says with `pie.testing.HashModel`, which is computed here by hand."""
    given, text = prompt.encode(), bytearray()
    first = second = 0
    for position in range(len(given) + tokens - 1):
        token = given[position] if position < len(given) else text[position - len(given)]
        first = (first + _mixed(_mixed(token) + position)) & _MASK
        second = (second + _mixed(first)) & _MASK
        if position >= len(given) - 1:
            text.append(ord("a") + _mixed(second) % _LETTERS)
    return text.decode()


def _mixed(value: int) -> int:
    """The finaliser of SplitMix64."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
