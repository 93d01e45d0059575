"""A WebSocket by hand, that can also do what no library lets one do."""

from __future__ import annotations

import itertools
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

import attrs
import msgpack

CONTINUATION, TEXT, BINARY, CLOSE, PING = 0, 1, 2, 8, 9
PATIENCE_SECONDS = 20.0
"""A server that neither answers nor closes for so long has failed."""
_FIN, _MASKED = 0x80, 0x80
_UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Closed(Exception):
    """The server has closed the connection; the text says how."""


def frame(payload: bytes, opcode: int = BINARY, *, fin: bool = True) -> bytes:
    """One frame of a client, masked with zeros: its payload stays as it is."""
    return frame_head(len(payload), opcode, fin=fin) + payload


def frame_head(length: int, opcode: int = BINARY, *, fin: bool = True) -> bytes:
    """The beginning of a frame that says it has so many bytes."""
    first = opcode | (_FIN if fin else 0)
    if length < 126:
        head = struct.pack("!BB", first, _MASKED | length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", first, _MASKED | 126, length)
    else:
        head = struct.pack("!BBQ", first, _MASKED | 127, length)
    return head + bytes(4)


def message(kind: str, **fields: Any) -> bytes:
    """A message of the wire protocol as a frame."""
    return frame(msgpack.packb({"type": kind, **fields}))


@attrs.define(eq=False)
class Raw:
    """A connection; `send` and `answer` raise Closed once the server has ended it."""

    _socket: socket.socket
    _left: bytearray = attrs.field(factory=bytearray)
    _head_due: bool = False
    """The answer to the upgrade has not been read."""
    _numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))

    @classmethod
    def open(cls, port: int) -> Raw:
        """A TCP connection, of which nothing has been said."""
        raw = cls(socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS))
        raw._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return raw

    @classmethod
    def upgraded(cls, port: int) -> Raw:
        """A WebSocket; raises Closed if the server does not want one."""
        raw = cls.open(port)
        raw.upgrade_blindly()
        raw.take_head()
        return raw

    @classmethod
    def user(cls, port: int, name: str) -> Raw:
        """A WebSocket that has authenticated."""
        raw = cls.upgraded(port)
        answer = raw.ask("identification", username=name)
        if not answer["successful"]:
            raise Closed(answer["result"])
        return raw

    def upgrade_blindly(self) -> None:
        """Send the upgrade, and do not look at what comes."""
        self._head_due = True
        self.send(_UPGRADE)

    def send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            raise Closed(self._farewell()) from None

    def ask(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Make a request, and give its answer."""
        number = next(self._numbers)
        self.send(message(kind, corr_id=number, **fields))
        return self.answer(number)

    def answer(self, number: int) -> dict[str, Any]:
        """Read on to the answer with this corr_id."""
        while True:
            opcode, payload = self._read()
            if opcode == CLOSE:
                raise Closed(_said(payload))
            if opcode == BINARY:
                answer: dict[str, Any] = msgpack.unpackb(payload)
                if answer.get("corr_id") == number:
                    return answer

    def end(self) -> str:
        """Read on to the end that the server makes, and say which it was."""
        try:
            while True:
                opcode, payload = self._read()
                if opcode == CLOSE:
                    return _said(payload)
        except Closed as closed:
            return str(closed)

    def look(self) -> str:
        """What the server has said of the connection by now: `open`, or how it was ended."""
        self._socket.settimeout(0.001)
        try:
            return self.end()
        except TimeoutError:
            return "open"
        finally:
            self._socket.settimeout(PATIENCE_SECONDS)

    def skip(self) -> None:
        """Throw away what has come, so that the server can go on sending."""
        self._left.clear()
        self._socket.setblocking(False)
        try:
            while self._socket.recv(1 << 16):
                pass
        except (BlockingIOError, ConnectionResetError):
            pass
        finally:
            self._socket.settimeout(PATIENCE_SECONDS)

    def fileno(self) -> int:
        """For selectors."""
        return self._socket.fileno()

    def count(self) -> int:
        """Read once, and say how many frames are complete now; nothing else is known of them."""
        self._fill()
        frames, at = 0, 0
        while (length := _frame_length(self._left, at)) is not None:
            frames, at = frames + 1, at + length
        del self._left[:at]
        return frames

    def close(self) -> None:
        self._socket.close()

    def _read(self) -> tuple[int, bytes]:
        """The next frame: the server's are whole messages, and not masked."""
        if self._head_due:
            self.take_head()
        while (whole := _parse(self._left)) is None:
            self._fill()
        opcode, payload, length = whole
        del self._left[:length]
        return opcode, payload

    def take_head(self) -> None:
        """Read the answer to the upgrade; raises Closed if it is no."""
        while b"\r\n\r\n" not in self._left:
            self._fill()
        head, _, rest = bytes(self._left).partition(b"\r\n\r\n")
        self._left, self._head_due = bytearray(rest), False
        status = head.split(b"\r\n")[0].decode(errors="replace")
        if " 101 " not in status:
            self.close()
            raise Closed(status)

    def _fill(self) -> None:
        try:
            data = self._socket.recv(1 << 16)
        except ConnectionResetError:
            raise Closed("reset") from None
        if not data:
            raise Closed("end of stream")
        self._left += data

    def _farewell(self) -> str:
        """What the server had said before it stopped listening."""
        try:
            return self.end()
        except OSError:
            return "reset"


def _parse(data: bytearray) -> tuple[int, bytes, int] | None:
    """Opcode, payload and length of the frame that `data` begins with, if all of it is there."""
    length = _frame_length(data, 0)
    if length is None:
        return None
    head = {126: 4, 127: 10}.get(data[1], 2)
    return data[0] & 0x0F, bytes(data[head:length]), length


def _frame_length(data: bytearray, at: int) -> int | None:
    """The length of the server's frame at a place, if all of it is there."""
    there = len(data) - at
    if there < 2:
        return None
    size, head = data[at + 1], 2
    if size >= 126:
        form, head = ("!H", 4) if size == 126 else ("!Q", 10)
        if there < head:
            return None
        (size,) = struct.unpack_from(form, data, at + 2)
    return None if there < head + size else head + size


def _said(payload: bytes) -> str:
    """A close frame's code and reason."""
    if len(payload) < 2:
        return "closed"
    return f"{struct.unpack('!H', payload[:2])[0]} {payload[2:].decode(errors='replace')}".strip()


def noise(size: int) -> bytes:
    """Random bytes, but always the same: making new ones takes longer than refusing them."""
    return (_NOISE * (size // len(_NOISE) + 1))[:size]


_NOISE = os.urandom(1 << 20)
