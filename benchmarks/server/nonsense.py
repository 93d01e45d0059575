"""What a server may be sent that means nothing: each kind is what one connection sends."""

from __future__ import annotations

from collections.abc import Iterator

from .raw import TEXT, frame, frame_head, noise

MIB = 1 << 20
STREAMED = 1024
"""Pieces of 64 KiB that follow the head of a frame which says it is much longer."""
UNREADABLE = 16
"""Messages that a server reads of a client none of whose can be read."""


def no_http() -> Iterator[bytes]:
    yield noise(4096)


def endless_header() -> Iterator[bytes]:
    yield b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: "
    for _ in range(STREAMED):
        yield b"x" * (1 << 16)


def no_frames() -> Iterator[bytes]:
    yield noise(1 << 16)


def unreadable() -> Iterator[bytes]:
    for size in range(UNREADABLE):
        yield frame(noise(10 + size * 100))


def texts() -> Iterator[bytes]:
    for number in range(UNREADABLE):
        yield frame(b"hello " * (number + 1), TEXT)


def huge() -> Iterator[bytes]:
    """A frame that says it has 2^62 bytes, and many of them."""
    yield frame_head(1 << 62)
    for _ in range(STREAMED):
        yield noise(1 << 16)


def largest() -> Iterator[bytes]:
    """Messages as long as may be, none of which can be read."""
    for _ in range(UNREADABLE):
        yield frame(noise(4 * MIB))


def too_large() -> Iterator[bytes]:
    yield frame(noise(5 * MIB))
    for _ in range(STREAMED):
        yield frame(noise(1 << 16))


def nested() -> Iterator[bytes]:
    for _ in range(UNREADABLE):
        yield frame(b"\x91" * MIB)


def many_keys() -> Iterator[bytes]:
    keys = b"".join(b"\xa4%04x\xc0" % number for number in range(1 << 16))
    for _ in range(UNREADABLE):
        yield frame(b"\xdf" + (1 << 16).to_bytes(4, "big") + keys)


MESSES = (
    no_http,
    endless_header,
    no_frames,
    unreadable,
    texts,
    huge,
    largest,
    too_large,
    nested,
    many_keys,
)
BEFORE_UPGRADE = (no_http, endless_header)
AFTER_LOGIN = (largest, nested, many_keys)
