"""`wasi:io/streams`: output goes to the instance's client, input has ended."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import attrs

from pie.errors import GuestError
from pie.guest.host import Err, HostInterface, Ok
from pie.guest.instance import Instance
from pie.messages import Output
from pie.signals import Signal

_WRITE_BYTES = 1 << 16
"""What one `write` may carry; the guest is told, and splits its output."""

_error = HostInterface("wasi:io/error")
_streams = HostInterface("wasi:io/streams")
INTERFACES = [_error, _streams]


@attrs.frozen(eq=False)
class InputStream:
    """A stream that is at its end."""


@attrs.frozen(eq=False)
class OutputStream:
    """A way to the client: `name` is "stdout" or "stderr"."""

    name: str


@_error.function("[method]error.to-debug-string")
def to_debug_string(instance: Instance, error: object) -> str:
    return str(error)


@_streams.function("[method]output-stream.check-write")
def check_write(instance: Instance, stream: OutputStream) -> Ok[int]:
    return Ok(_WRITE_BYTES)


@_streams.function("[method]output-stream.blocking-write-and-flush", suspends=True)
@_streams.function("[method]output-stream.write", suspends=True)
def write(
    instance: Instance, stream: OutputStream, contents: bytes
) -> Coroutine[Any, Any, Ok[None]] | Ok[None]:
    """Waits for a slow client, the non-blocking form too: its bytes would have to be kept."""
    if len(contents) > _WRITE_BYTES:
        raise GuestError(
            f"wasi:io/streams: {len(contents)} bytes in one write, {_WRITE_BYTES} may be written"
        )
    waiting = instance.deliver(Output(stream.name, contents)) if contents else None
    return Ok() if waiting is None else _when_delivered(waiting)


@_streams.function("[method]output-stream.blocking-write-zeroes-and-flush", suspends=True)
@_streams.function("[method]output-stream.write-zeroes", suspends=True)
def write_zeroes(
    instance: Instance, stream: OutputStream, length: int
) -> Coroutine[Any, Any, Ok[None]] | Ok[None]:
    return write(instance, stream, bytes(min(length, _WRITE_BYTES + 1)))


async def _when_delivered(waiting: Coroutine[Any, Any, None]) -> Ok[None]:
    await waiting
    return Ok()


@_streams.function("[method]output-stream.flush")
@_streams.function("[method]output-stream.blocking-flush")
def flush(instance: Instance, stream: OutputStream) -> Ok[None]:
    return Ok()


@_streams.function("[method]output-stream.subscribe")
@_streams.function("[method]input-stream.subscribe")
def subscribe(instance: Instance, stream: OutputStream | InputStream) -> Signal:
    return Signal(ready=True)


@_streams.function("[method]input-stream.read")
@_streams.function("[method]input-stream.blocking-read")
@_streams.function("[method]input-stream.skip")
@_streams.function("[method]input-stream.blocking-skip")
def read(instance: Instance, stream: InputStream, length: int) -> Err[tuple[str, None]]:
    return Err(("closed", None))


@_streams.function("[method]output-stream.splice")
@_streams.function("[method]output-stream.blocking-splice")
def splice(
    instance: Instance, stream: OutputStream, source: InputStream, length: int
) -> Err[tuple[str, None]]:
    return Err(("closed", None))
