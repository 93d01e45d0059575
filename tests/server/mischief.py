"""What a client may send that it should not, drawn from a seed, and what it must get for it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import attrs
import msgpack
import trio

from pie.server.frames import CHUNK
from pie.server.inflow import STRANGER_BYTES

from .live import ROOT, Live
from .raw import PATIENCE_SECONDS, RawClient, launched, raw_client
from .wire import packed

Message: TypeAlias = dict[str, Any]

UNREADABLE = 8
"""Messages in a row, at most: at twice as many the server closes the connection."""
WRONG: tuple[object, ...] = ({"x": 1}, [[]], 1.5, -1, 1 << 63, msgpack.ExtType(5, b"x"), True)
"""No field of any message may be one of these, but for the last."""
NAMES = ("u", "", "internal", "é\0", "x" * 5000, "../u")
HASHES = ("0" * 64, "", "no hash", "../../etc/passwd", "x" * 100_000)
LOGINS = ("identification", "signature", "internal_authenticate")


@attrs.define(eq=False, kw_only=True)
class Mischief:
    """Sends nonsense; `owed` are the requests that must be answered."""

    random: Random
    client: RawClient
    program: str
    known: bool
    """Whether it is logged in."""
    instances: list[str] = attrs.field(factory=list)
    owed: set[int] = attrs.field(factory=set)
    may_be_closed: bool = False
    _unreadable: int = 0
    _uploads: list[Message] = attrs.field(factory=list)

    async def go_on(self) -> None:
        """Do one thing."""
        moves = (self._nonsense, self._misshapen, self._endless, self._proper, self._chunk)
        await self.random.choice(moves)()

    async def _ping(self) -> None:
        self.owed.add(await self.client.post("ping"))
        self._unreadable = 0

    async def _send(self, data: bytes | str) -> None:
        self.may_be_closed |= not self.known and len(data) > STRANGER_BYTES
        await self.client.send(data)

    async def _unread(self, data: bytes | str) -> None:
        """Send what means nothing."""
        if self._unreadable == UNREADABLE:
            await self._ping()
        self._unreadable += 1
        await self._send(data)

    async def _nonsense(self) -> None:
        """Bytes, texts and values that are no messages; or a message that is cut or damaged."""
        random = self.random
        whole = bytearray(packed(**self._message()))
        if random.random() < 0.5:
            del whole[random.randrange(len(whole)) :]
        else:
            whole[random.randrange(len(whole))] ^= 1 << random.randrange(8)
        await self._unread(
            random.choice(
                [
                    b"",
                    "",
                    "Hello?",
                    '{"type": "ping", "corr_id": 1}',
                    random.randbytes(random.randrange(200)),
                    b"\x91" * random.choice([10, 5000, 500_000]),
                    msgpack.packb(random.choice([None, 1, "ping", [], {}, {1: 2}, {"type": 7}])),
                    bytes(whole),
                ]
            )
        )

    async def _misshapen(self) -> None:
        """One field is wrong or missing, or the type is unknown: the sender is told so."""
        message = self._message()
        fields = [name for name in message if name not in ("type", "manifest", "detached")]
        name = self.random.choice(["type", *fields])
        message["corr_id"] = corr_id = self.client.number()
        if name == "type":
            message["type"] = self.random.choice(["", "pong", "authenticate", "x" * 100_000])
        elif self.random.random() < 0.3:
            del message[name]
        else:
            message[name] = self.random.choice(WRONG)
        if message["type"] != "signal_instance":
            self.owed.add(corr_id)
        await self._unread(packed(**message))

    async def _endless(self) -> None:
        """Lengths that are promised and not kept; what came before them can be read."""
        corr_id = self.client.number()
        self.owed.add(corr_id)
        start = msgpack.packb({"type": "upload_program", "corr_id": corr_id})[1:]
        head = self.random.choice([b"\xdf\xff\xff\xff\xff", b"\x8f", b"\xde\xff\xff"])
        key = msgpack.packb("chunk_data")
        length = self.random.choice([b"\xc6\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdb\x7f"])
        await self._unread(head + start + key + length + b"x" * self.random.choice([0, 9, 100_000]))

    async def _proper(self) -> None:
        """A message that is well-formed, whether or not it comes at a good moment."""
        message = self._message()
        if message["type"] in LOGINS:
            self.may_be_closed |= not self.known
        if message["type"] != "signal_instance":
            message["corr_id"] = corr_id = self.client.number()
            index, total = message.get("chunk_index", 0), message.get("total_chunks", 1)
            if index or index + 1 >= total:
                self.owed.add(corr_id)
            else:
                self._uploads.append(message)
        self._unreadable = 0
        await self._send(packed(**message))

    async def _chunk(self) -> None:
        """One more of an upload, the right one or not. After the last one there is a reply."""
        if not self._uploads:
            await self._ping()
            return
        message = self.random.choice(self._uploads)
        index = self.random.choice([message["chunk_index"] + 1, 0, 7, message["total_chunks"] - 1])
        message |= {"chunk_index": index, "chunk_data": self._data()}
        if index + 1 >= message["total_chunks"]:
            self._uploads.remove(message)
            self.owed.add(message["corr_id"])
        self._unreadable = 0
        await self._send(packed(**message))

    def _data(self) -> bytes:
        return self.random.randbytes(self.random.choice([0, 1, 1000, CHUNK, CHUNK + 1]))

    def _message(self) -> Message:
        """A well-formed message of any kind, but for its `corr_id`."""
        random = self.random
        uuid = random.choice([*self.instances, "1234", ""])
        text = random.choice(["", "quit", "é" * 1000, "\0", "a" * 300_000])
        name = random.choice([*HASHES, self.program])
        words = random.choice([["say", "it"], ["echo"], ["breaks"], [], ["no such mode"]])
        start = {"arguments": words, "detached": random.random() < 0.5}
        chunk = {
            "chunk_index": random.choice([0, 0, 0, 1, (1 << 32) - 1]),
            "total_chunks": random.choice([0, 1, 2, 3, (1 << 32) - 1]),
            "chunk_data": self._data(),
        }
        subject = random.choice(["program_exists", "model_status", "backend_stats", text])
        fields: dict[str, Message] = {
            "identification": {"username": random.choice(NAMES)},
            "signature": {"signature": random.choice(["", "AAAA", "!", "é", "x" * 9999])},
            "internal_authenticate": {"token": random.choice(["", "x" * 64, "é"])},
            "query": {"subject": subject, "record": name},
            "upload_program": {"program_hash": name, **chunk},
            "upload_blob": {"instance_id": uuid, "blob_hash": name, **chunk},
            "launch_instance": {"program_hash": name, **start},
            "launch_instance_from_registry": {"inferlet": name, **start},
            "launch_server_instance": {"port": 80, "program_hash": name, "arguments": words},
            "attach_instance": {"instance_id": uuid},
            "list_instances": {},
            "signal_instance": {"instance_id": uuid, "message": text},
            "terminate_instance": {"instance_id": uuid},
            "ping": {},
        }
        kind = random.choice(list(fields))
        return {"type": kind, **fields[kind]}


_MASK = b"\0\0\0\0"
VIOLATIONS = (
    b"\x82\x01a",  # not masked
    b"\x83\x80" + _MASK,  # an opcode that is not there
    b"\x82\xff" + (1 << 63).to_bytes(8, "big") + _MASK,  # no length
    b"\x82\xff" + (1 << 62).to_bytes(8, "big") + _MASK + bytes(5 << 20),
    b"\x02\x81" + _MASK + b"x\x02\x81" + _MASK + b"x",  # a message in another
    b"\x80\x81" + _MASK + b"x",  # the rest of nothing
    b"\x81\x82" + _MASK + b"\xff\xff",  # not UTF-8
    b"\x88\x82" + _MASK + b"\0\0",  # no close code
    b"GET / HTTP/1.1\r\n\r\n",
)
"""What no WebSocket may do after its handshake."""
UNFINISHED = (
    b"",
    b"\x82",
    b"\x82\xfe\xff\xff" + _MASK + b"half of a message",
    b"\x02\x81" + _MASK + b"x",
)
"""To leave in the middle of."""


def harmless(text: str, folder: Path) -> None:
    """It tells a client nothing about our code or our files."""
    telltales = ("Traceback", 'File "', ".py", "internal error", str(ROOT), sys.prefix, str(folder))
    assert not [telltale for telltale in telltales if telltale in text], text


@asynccontextmanager
async def beside(live: Live, program: str) -> AsyncIterator[None]:
    """For the duration, a client of the user `internal` is served as ever."""
    count = 0

    async def talk(scope: trio.CancelScope) -> None:
        nonlocal count
        while not scope.cancel_called:
            await client.tell(echo, str(count))
            assert await client.heard(echo) == ("MESSAGE", f"echo {count}")
            count += 1

    async with raw_client(live.port, None) as client:
        token = live.server.authentication.token
        assert (await client.ask("internal_authenticate", token=token))["successful"]
        echo = await launched(client, program, "echo")
        async with trio.open_nursery() as nursery:
            ending = trio.CancelScope()
            nursery.start_soon(talk, ending)
            yield
            ending.cancel()
        await client.tell(echo, "quit")
        assert await client.heard(echo) == ("COMPLETED", f"{count} messages")
        assert count


async def until(true: Callable[[], bool]) -> None:
    """Wait for something in the server that nobody tells us."""
    with trio.fail_after(PATIENCE_SECONDS):
        while not true():  # noqa: ASYNC110
            await trio.sleep(0.01)
