"""Compiling in a process of its own: what comes of it, and what it may not take."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from wasmtime import wat2wasm

from pie.errors import ProgramError, UsageError
from pie.guest import apart
from pie.guest import cache as cache_module
from pie.guest.apart import CompileLimits
from pie.guest.host import Ok
from pie.guest.wasm import Epochs

from .support import component, hosting, make_instance

pytestmark = pytest.mark.slow

NOOP = bytes(wat2wasm(component("", [], "", functions=[])))


def multiplying(functions: int, factors: int) -> bytes:
    """A component that takes so many functions of that size to compile, and exports nothing."""
    one = f"(func (result i64) {'(i64.const 3) ' * factors} {'i64.mul ' * (factors - 1)})"
    return bytes(wat2wasm(f"(component (core module {one * functions}))"))


SECONDS_OF_WORK = multiplying(6000, 500)
MUCH_MEMORY = multiplying(1, 500_000)


async def test_what_is_compiled_apart_is_found_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosting(cache=tmp_path / "cache", preemption=Epochs()) as host:
        assert await host.needs_compiling(NOOP)
        await host.compile(NOOP, name="it")
        assert not await host.needs_compiling(NOOP)
        monkeypatch.setattr(cache_module, "compile_component", None)
        assert await host.run(await host.load(NOOP), make_instance()) == Ok()


async def test_each_kind_of_preemption_has_its_own_machine_code(tmp_path: Path) -> None:
    async with hosting(cache=tmp_path / "cache") as host:
        await host.compile(NOOP, name="it")
        assert not await host.needs_compiling(NOOP)
    async with hosting(cache=tmp_path / "cache", preemption=Epochs()) as host:
        assert await host.needs_compiling(NOOP)


async def test_without_a_cache_nothing_needs_to_be_compiled_before() -> None:
    async with hosting() as host:
        assert not await host.needs_compiling(NOOP)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"#!/bin/sh", "it: not WebAssembly: it begins with b'#!/b'"),
        (b"\0asm\x0d\0\x01\0junk", "it: not a valid component: unexpected end-of-file"),
    ],
)
async def test_what_is_no_component_is_refused_in_one_line(
    source: bytes, reason: str, tmp_path: Path
) -> None:
    async with hosting(cache=tmp_path / "cache") as host:
        with pytest.raises(ProgramError) as caught:
            await host.compile(source, name="it")
    assert str(caught.value).startswith(reason)
    assert "\n" not in str(caught.value)


async def test_more_time_than_allowed_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limits = CompileLimits(seconds=1, seconds_per_mib=0)
    async with hosting(cache=tmp_path / "cache") as host:
        with pytest.raises(ProgramError, match="it: compiling it takes more than 1 s of a proc"):
            await host.compile(SECONDS_OF_WORK, name="it", limits=limits)
    assert list((tmp_path / "cache").iterdir()) == []


async def test_more_memory_than_allowed_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limits = CompileLimits(memory=200 << 20, memory_per_byte=0)
    async with hosting(cache=tmp_path / "cache") as host:
        with pytest.raises(ProgramError, match=r"it: compiling it .* may take 200 MiB of memory"):
            await host.compile(MUCH_MEMORY, name="it", limits=limits)
    assert list((tmp_path / "cache").iterdir()) == []


async def test_a_process_that_nobody_waits_for_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    kill = apart._kill

    async def remember(process: trio.Process) -> None:
        started.append(process.pid)
        await kill(process)

    monkeypatch.setattr(apart, "_kill", remember)
    async with hosting(cache=tmp_path / "cache") as host:
        with trio.move_on_after(0.5) as scope:
            await host.compile(SECONDS_OF_WORK, name="it")
    assert scope.cancelled_caught
    (pid,) = started
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    async with hosting(cache=tmp_path / "cache") as host:
        (tmp_path / "cache").chmod(0o750)
        with pytest.raises(UsageError, match=r"the compile cache .* must be a folder of user"):
            await host.compile(NOOP, name="it")


async def test_a_compiler_that_does_not_start_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A package that is being replaced, say: the server goes on, and says what is wrong."""
    limits = CompileLimits(nice="much")  # type: ignore[arg-type]
    async with hosting(cache=tmp_path / "cache") as host:
        with pytest.raises(UsageError, match="it: the server's compiler does not work"):
            await host.compile(NOOP, name="it", limits=limits)
    assert "TypeError" in caplog.records[-1].getMessage()
    assert caplog.records[-1].levelno == logging.ERROR


async def test_a_system_that_starts_no_process_is_no_bug_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))
    async with hosting(cache=tmp_path / "cache") as host:
        with pytest.raises(UsageError, match="it: cannot start the compiler: No such file"):
            await host.compile(NOOP, name="it")


def test_the_compiler_steps_back() -> None:
    """Threads of wasmtime are as patient as the thread that makes them: it must be said before."""
    code = (
        "from pie.guest import compiling as c; import os, resource;"
        "c._step_back(c.Task(cache='', fuel=False, nice=19, seconds=7, memory=1 << 40));"
        "print(os.getpriority(os.PRIO_PROCESS, 0), resource.getrlimit(resource.RLIMIT_CPU)[0],"
        "open('/proc/self/oom_score_adj').read())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["19", "7", "1000"]
