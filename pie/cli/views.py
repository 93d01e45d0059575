"""What the user of `pie run` sees: a stream of text, or one JSON object."""

from __future__ import annotations

import base64
import json
import os
from typing import Any, Protocol

import attrs
import trio

from pie.ids import EventCode
from pie.messages import Event, ServiceStats

STDOUT, STDERR = 1, 2
_TAIL = 2 << 20
"""Bytes of stdout kept to compare with the return value, which is at most half as long."""

STATUS = {
    EventCode.COMPLETED: "completed",
    EventCode.ABORTED: "aborted",
    EventCode.EXCEPTION: "exception",
    EventCode.SERVER_ERROR: "server-error",
    EventCode.OUT_OF_RESOURCES: "out-of-resources",
}


@attrs.frozen(kw_only=True)
class Figures:
    """What a run took."""

    seconds: float
    """From the launch to the terminal event."""
    tokens: int
    """Sampled tokens."""
    tokens_per_second: float
    passes: int
    batches: int
    rows: int
    busy_seconds: float
    """Time the model was running."""
    pages_peak: int
    pages: int

    @staticmethod
    def of(stats: ServiceStats, seconds: float) -> Figures:
        return Figures(
            seconds=round(seconds, 6),
            tokens=stats.sampled,
            tokens_per_second=round(stats.sampled / seconds, 2) if seconds else 0.0,
            passes=stats.passes,
            batches=stats.batches,
            rows=stats.rows,
            busy_seconds=round(stats.busy_seconds, 6),
            pages_peak=stats.pages_peak,
            pages=stats.pages,
        )

    def __str__(self) -> str:
        return (
            f"{self.tokens} tokens in {self.seconds:.2f} s ({self.tokens_per_second:.1f} "
            f"tokens/s); {self.passes} passes with {self.rows} rows in {self.batches} batches "
            f"({self.busy_seconds:.2f} s); at most {self.pages_peak} of {self.pages} pages"
        )


@attrs.frozen
class Ending:
    """How an instance ended."""

    event: Event
    figures: Figures


class View(Protocol):
    """Gets everything an instance has for its client, in order."""

    async def output(self, stream: str, data: bytes, /) -> None: ...

    async def message(self, text: str, /) -> None: ...

    async def blob(self, data: bytes, /) -> None: ...

    async def end(self, ending: Ending, /) -> None: ...


async def write(descriptor: int, data: bytes) -> None:
    """Write all of `data`. A reader that does not read holds up nobody but us."""
    while data:
        # Not through sys.stdout, whose lock an abandoned thread would hold at exit.
        sent = await trio.to_thread.run_sync(os.write, descriptor, data, abandon_on_cancel=True)
        data = data[sent:]


@attrs.define
class Stream:
    """Shows everything as it comes: stdout and messages on stdout, the rest on stderr.

    A message is a line of its own. So is the return value, at the end, unless the inferlet's
    stdout has ended with the same text.
    """

    show_figures: bool = False
    _tail: bytes = b""
    """The end of what the inferlet itself wrote to stdout."""
    _in_line: bool = False

    async def output(self, stream: str, data: bytes, /) -> None:
        if stream == "stderr":
            await write(STDERR, data)
        elif data:
            await write(STDOUT, data)
            self._in_line = not data.endswith(b"\n")
            self._tail = (self._tail + data)[-_TAIL:]

    async def message(self, text: str, /) -> None:
        await self._line(text)

    async def blob(self, data: bytes, /) -> None:
        await write(STDERR, f"pie: got a blob of {len(data)} bytes; --json shows it\n".encode())

    async def end(self, ending: Ending, /) -> None:
        event = ending.event
        if event.code is EventCode.COMPLETED:
            value = event.text.encode()
            if value and not self._tail.rstrip().endswith(value.rstrip()):
                await self._line(event.text)
        else:
            if self._in_line and os.isatty(STDOUT):
                await write(STDOUT, b"\n")
            await write(STDERR, f"pie: {_reason(event)}\n".encode())
        if self.show_figures:
            await write(STDERR, f"pie: {ending.figures}\n".encode())

    async def _line(self, text: str) -> None:
        start, end = "\n" if self._in_line else "", "" if text.endswith("\n") else "\n"
        await write(STDOUT, f"{start}{text}{end}".encode())
        self._in_line = False


def _reason(event: Event) -> str:
    if event.code is EventCode.EXCEPTION:
        return event.text.rstrip() or "the inferlet failed without a reason"
    return f"{STATUS[event.code]}: {event.text.rstrip()}"


@attrs.define
class Json:
    """Keeps everything for one object at the end.

    Its keys: `status`, `return` (null unless completed), `stdout`, `stderr`, `messages`, `blobs`
    (base64), `error` (null if completed), `stats` (see `Figures`).
    """

    _streams: dict[str, bytearray] = attrs.field(
        factory=lambda: {"stdout": bytearray(), "stderr": bytearray()}
    )
    _messages: list[str] = attrs.field(factory=list)
    _blobs: list[str] = attrs.field(factory=list)

    async def output(self, stream: str, data: bytes, /) -> None:
        self._streams[stream] += data

    async def message(self, text: str, /) -> None:
        self._messages.append(text)

    async def blob(self, data: bytes, /) -> None:
        self._blobs.append(base64.b64encode(data).decode())

    async def end(self, ending: Ending, /) -> None:
        event = ending.event
        completed = event.code is EventCode.COMPLETED
        report: dict[str, Any] = {
            "status": STATUS[event.code],
            "return": event.text if completed else None,
            "stdout": self._streams["stdout"].decode(errors="replace"),
            "stderr": self._streams["stderr"].decode(errors="replace"),
            "messages": self._messages,
            "blobs": self._blobs,
            "error": None if completed else event.text,
            "stats": attrs.asdict(ending.figures),
        }
        await write(STDOUT, json.dumps(report, ensure_ascii=False).encode() + b"\n")
