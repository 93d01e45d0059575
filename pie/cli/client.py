"""The client of one instance: what it writes is shown, what we are given is sent to it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import attrs
import trio

from pie.engine import Engine, GuestProgram
from pie.errors import UsageError
from pie.ids import EventCode, InstanceId
from pie.messages import BlobSent, Event, Launched, Output

from .views import Ending, Figures, View

_CHUNK = 1 << 16
STDIN = 0


@attrs.define
class _Interruption:
    """The signal that ended the instance, or 0."""

    signal: int = 0


async def serve_client(
    engine: Engine,
    program: GuestProgram,
    arguments: Sequence[str],
    view: View,
    *,
    seed: int | None = None,
    sends: Sequence[str] = (),
    source: int = STDIN,
) -> int:
    """Run `program` in `view`, with messages from file descriptor `source`; the exit code.

    A first SIGINT or SIGTERM terminates the instance, which still ends as it should.
    """
    began = trio.current_time()
    launched = await engine.launch(program, arguments, seed=seed)
    interruption = _Interruption()
    async with trio.open_nursery() as nursery:
        await nursery.start(_terminate_on_signal, engine, launched.instance, interruption)
        nursery.start_soon(_feed, engine, launched.instance, sends, source)
        event = await _follow(launched, view)
        nursery.cancel_scope.cancel()
    seconds = trio.current_time() - began
    stats = next(iter((await engine.stats()).values()))
    await view.end(Ending(event, Figures.of(stats, seconds)))
    if interruption.signal:
        return 128 + interruption.signal
    return 0 if event.code is EventCode.COMPLETED else 1


async def _follow(launched: Launched, view: View) -> Event:
    """Show everything up to the terminal event."""
    async for item in launched.outbox:
        match item:
            case Output(stream, data):
                await view.output(stream, data)
            case BlobSent(data):
                await view.blob(data)
            case Event(EventCode.MESSAGE, text):
                await view.message(text)
            case Event():
                return item
    raise AssertionError("an outbox ends with a terminal event")


async def _terminate_on_signal(
    engine: Engine,
    instance: InstanceId,
    interruption: _Interruption,
    task_status: trio.TaskStatus[None],
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        interruption.signal = await anext(signals)
    # From here on a second signal is for whoever listens outside: it does not wait for anybody.
    await engine.terminate(instance, f"interrupted by {signal.Signals(interruption.signal).name}")


async def _feed(engine: Engine, instance: InstanceId, sends: Sequence[str], source: int) -> None:
    """Send `sends`, then each line of `source`, then the end."""
    limit = engine.config.limits.max_message_bytes
    for text in sends:
        await _send(engine, instance, text)
    if is_ours_to_read(source):
        async with aclosing(lines(source, limit)) as texts:
            async for text in texts:
                await _send(engine, instance, text)
    engine.end_input(instance)


async def _send(engine: Engine, instance: InstanceId, text: str) -> None:
    try:
        await engine.send(instance, text)
    except UsageError:
        if any(running.instance == instance for running in await engine.instances()):
            raise
        # It has ended, and we are about to hear of it.


def is_ours_to_read(source: int) -> bool:
    """A job in the background would be stopped if it read from its terminal."""
    if not os.isatty(source):
        return True
    try:
        return os.tcgetpgrp(source) == os.getpgrp()
    except OSError:  # a terminal that does not control us cannot stop us either
        return True


async def lines(source: int, limit: int) -> AsyncGenerator[str, None]:
    """The lines of a file descriptor, without their ends; a last one may lack it.

    Raises UsageError for a line that is longer than `limit` bytes or not UTF-8.
    """
    pending, number = b"", 0
    while chunk := await _read(source):
        *complete, pending = (pending + chunk).split(b"\n")
        for line in complete:
            number += 1
            yield _text(line, number)
        if len(pending) > limit:
            raise UsageError(f"line {number + 1} of stdin is longer than {limit} bytes")
    if pending:
        yield _text(pending, number + 1)


async def _read(source: int) -> bytes:
    # Not through sys.stdin, whose lock an abandoned thread would hold at exit.
    try:
        return await trio.to_thread.run_sync(os.read, source, _CHUNK, abandon_on_cancel=True)
    except OSError as error:
        sys.stderr.write(f"pie: stdin cannot be read: {error.strerror}\n")
        return b""


def _text(line: bytes, number: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"line {number} of stdin is not UTF-8: {error.reason}") from None
