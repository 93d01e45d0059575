"""The client of an instance, against the real engine on a simulated model."""

from __future__ import annotations

import json
import os
import pty
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import inferlet
import pytest
import trio

from pie.cli.client import lines, serve_client
from pie.cli.views import Ending, Json, View
from pie.config import EngineConfig, Limits
from pie.engine import Engine
from pie.errors import UsageError
from pie.ids import EventCode
from pie.programs import NativeProgram
from pie.testing import HashModel, SimulatedGpu, simulated_engine

pytestmark = pytest.mark.slow


@attrs.define
class Recorder:
    """A view that keeps what it is given, and sees a signal when a text is written."""

    signal_at: str = ""
    items: list[str] = attrs.field(factory=list)
    ending: Ending | None = None

    async def output(self, stream: str, data: bytes, /) -> None:
        self.items.append(data.decode())
        if data.decode() == self.signal_at:
            signal.raise_signal(signal.SIGINT)

    async def message(self, text: str, /) -> None:
        self.items.append(text)

    async def blob(self, data: bytes, /) -> None:
        self.items.append(repr(data))

    async def end(self, ending: Ending, /) -> None:
        self.ending = ending

    @property
    def event(self) -> tuple[EventCode, str]:
        assert self.ending is not None
        return self.ending.event.code, self.ending.event.text


@contextmanager
def stdin_of(data: bytes, *, open_end: bool = False) -> Iterator[int]:
    """A file descriptor to read `data` from; with `open_end`, more could come."""
    reading, writing = os.pipe()
    os.write(writing, data)
    if not open_end:
        os.close(writing)
    try:
        yield reading
    finally:
        if open_end:
            os.close(writing)
        os.close(reading)


async def serve(engine: Engine, main: inferlet.entry.Main, view: View, data: bytes = b"") -> int:
    with stdin_of(data) as source:
        return await serve_client(engine, NativeProgram(main), (), view, source=source)


async def collect(args: list[str]) -> str:
    """Receive until there is nothing more."""
    received: list[str] = []
    while "quit" not in received:
        received.append(await inferlet.receive())
    return ",".join(received)


async def hold(args: list[str]) -> str:
    await inferlet.print("ready", end="")
    return await inferlet.receive()


async def ask_too_much(args: list[str]) -> str:
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.fill("x" * 400)
    return (await context.generate(stop=inferlet.max_tokens(1))).text


async def test_given_messages_come_before_lines() -> None:
    view = Recorder()
    async with simulated_engine() as engine:
        with stdin_of(b"three\nquit\nunread\n", open_end=True) as source:
            code = await serve_client(
                engine,
                NativeProgram(collect),
                (),
                view,
                sends=("one", "two\nlines"),
                source=source,
            )

    assert (code, view.event) == (0, (EventCode.COMPLETED, "one,two\nlines,three,quit"))


async def test_the_end_of_input_is_known_to_the_inferlet() -> None:
    view = Recorder()
    async with simulated_engine() as engine:
        code = await serve(engine, collect, view, b"one\n")

    assert (code, view.event) == (1, (EventCode.EXCEPTION, "no client will send"))


async def test_a_signal_terminates_the_instance_which_still_reports() -> None:
    view = Recorder(signal_at="ready")
    async with simulated_engine() as engine:
        with stdin_of(b"", open_end=True) as source:
            code = await serve_client(engine, NativeProgram(hold), (), view, source=source)
        assert await engine.instances() == []

    assert (code, view.event) == (130, (EventCode.ABORTED, "interrupted by SIGINT"))


async def test_memory_that_can_never_suffice_has_its_own_status(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with simulated_engine(SimulatedGpu(HashModel(pages=4))) as engine:
        code = await serve(engine, ask_too_much, Json())

    report = json.loads(capfd.readouterr().out)
    assert (code, report["status"], report["return"]) == (1, "out-of-resources", None)
    assert "4" in report["error"]


async def test_more_input_than_an_inbox_holds_is_an_error() -> None:
    line = b"x" * 1_000_000 + b"\n"
    with stdin_of(b"", open_end=True) as source:
        async with simulated_engine() as engine:
            with pytest.RaisesGroup(
                pytest.RaisesExc(UsageError, match="bytes of messages it has not received"),
                flatten_subgroups=True,
                allow_unwrapped=True,
            ):
                await serve_client(
                    engine,
                    NativeProgram(sleep_for_ever),
                    (),
                    Recorder(),
                    sends=[line.decode()] * 100,
                    source=source,
                )


async def sleep_for_ever(args: list[str]) -> str:
    await trio.sleep_forever()
    raise AssertionError


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\n\nb", ["a", "", "b"]),
        ("ü\r\n€".encode(), ["ü\r", "€"]),
        (b"x" * 9000 + b"\n" + b"y", ["x" * 9000, "y"]),
    ],
)
async def test_a_line_is_a_message_without_its_end(data: bytes, expected: list[str]) -> None:
    with stdin_of(data) as source:
        assert [line async for line in lines(source, 10_000)] == expected


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"fine\n\xff\n", "line 2 of stdin is not UTF-8"),
        (b"fine\nlong long line", "line 2 of stdin is longer than 8 bytes"),
    ],
)
async def test_a_line_that_is_no_message_is_refused(data: bytes, reason: str) -> None:
    with stdin_of(data) as source, pytest.raises(UsageError, match=reason):
        async for _ in lines(source, 8):
            pass


async def test_a_closed_stdin_is_an_empty_one(capfd: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)

    assert [line async for line in lines(reading, 8)] == []
    assert capfd.readouterr().err == "pie: stdin cannot be read: Bad file descriptor\n"


async def test_a_message_longer_than_the_limit_is_refused() -> None:
    config = EngineConfig(limits=Limits(max_message_bytes=100))
    async with simulated_engine(config=config) as engine:
        with pytest.RaisesGroup(
            pytest.RaisesExc(UsageError, match="line 1 of stdin is longer than 100 bytes"),
            flatten_subgroups=True,
            allow_unwrapped=True,
        ):
            await serve(engine, collect, Recorder(), b"x" * 101)


async def test_a_terminal_that_is_not_our_own_is_read() -> None:
    """Asking it for its foreground job fails, and reading from it cannot stop us."""
    ours, terminal = pty.openpty()
    os.write(ours, b"typed\nquit\n")
    view = Recorder()
    async with simulated_engine() as engine:
        code = await serve_client(engine, NativeProgram(collect), (), view, source=terminal)
    os.close(ours)
    os.close(terminal)

    assert (code, view.event) == (0, (EventCode.COMPLETED, "typed,quit"))
