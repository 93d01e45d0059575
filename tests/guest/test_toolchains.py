"""Components of the usual toolchains run on our WASI: Python, JavaScript and C."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from pie.errors import GuestError
from pie.guest.host import Err, HostInterface, Ok
from pie.guest.instance import Instance
from pie.guest.wasm import Fuel, WasmHost
from pie.ids import EventCode
from pie.messages import Event, Output
from pie.offload import inline
from pie.signals import Deadline
from tests.guests import build

from .support import make_instance

MIB = 1 << 20


@attrs.define(eq=False)
class Counter:
    value: int


def toy(mode: str, notes: list[str]) -> HostInterface:
    api = HostInterface("test:toy/api")
    api.function("mode")(lambda instance: mode)
    api.function("note")(lambda instance, text: notes.append(text))
    api.function("[constructor]counter")(lambda instance, start: Counter(start))

    @api.function("[method]counter.add")
    def add(instance: Instance, counter: Counter, amount: int) -> int:
        counter.value += amount
        return counter.value

    @api.function("[method]counter.after")
    def after(instance: Instance, counter: Counter, milliseconds: int) -> Deadline:
        return Deadline(trio.current_time() + milliseconds / 1000)

    @api.function("swap")
    def swap(instance: Instance, pair: dict[str, Any]) -> Any:
        if not pair["second"]:
            return Err("nothing to swap")
        return Ok({"first-part": pair["first-part"] + 1, "second": pair["second"][::-1]})

    return api


async def run(
    path: Path, mode: str = "", *, memory: int = 256 * MIB
) -> tuple[Ok[None] | Err[str], list[str], bytes]:
    """The result, what the guest noted, and what it wrote to its client."""
    notes: list[str] = []
    host = WasmHost(
        [toy(mode, notes)],
        preemption=Fuel(units=10_000_000, seconds=0.001),
        cache=build.CACHE / "machine-code",
        offload=inline,
    )
    instance = make_instance(memory_bytes=memory)
    try:
        result = await host.run(await host.load(path), instance)
    finally:
        assert host.guests == 0
        host.close()
    instance.outbox.finish(Event(EventCode.COMPLETED, ""))
    written = [item.data async for item in instance.outbox if isinstance(item, Output)]
    return result, notes, b"".join(written)


GUESTS = {
    "python": build.python_guest,
    "javascript": build.javascript_guest,
}


@pytest.fixture(params=["python", "javascript"])
def scripted(request: pytest.FixtureRequest) -> Path:
    if request.param == "javascript" and build.npm_is_missing():
        pytest.skip("JAVASCRIPT GUESTS ARE NOT TESTED: node and npm are not installed")
    make: Callable[[], Path] = GUESTS[request.param]
    return make()


async def test_a_scripted_guest_runs_to_its_end(scripted: Path) -> None:
    start = trio.current_time()
    result, notes, written = await run(scripted)
    assert result == Ok()
    assert notes[:2] == ["refused: nothing to swap", "[1, 2] 43 sdrow"] or notes[:2] == [
        "refused: nothing to swap",
        "1,2 43 sdrow",
    ]
    assert written == b"to the client\n"
    assert trio.current_time() - start >= 0.2, "it waited in virtual time"


async def test_a_scripted_guest_ends_with_its_own_error(scripted: Path) -> None:
    result, _, _ = await run(scripted, "error")
    assert result == Err("a wanted error")


async def test_an_exception_of_a_scripted_guest_is_its_error(scripted: Path) -> None:
    with pytest.raises(GuestError, match=r"^the program "):
        await run(scripted, "exception")


async def test_a_python_guest_sleeps_in_virtual_time() -> None:
    _, notes, _ = await run(build.python_guest())
    assert notes[2] == "slept 0.5"


async def test_a_python_guest_can_exit() -> None:
    with pytest.raises(GuestError, match=r"^the program ended itself with exit code [13]$"):
        await run(build.python_guest(), "exit")


async def test_a_python_guest_out_of_memory_hears_of_the_limit() -> None:
    with pytest.raises(GuestError, match=r"at most 64\.0 MiB \(limits\.memory_bytes\)"):
        await run(build.python_guest(), "memory", memory=64 * MIB)


async def test_a_c_guest_runs_to_its_end() -> None:
    result, notes, _ = await run(build.c_guest())
    assert (result, notes) == (Ok(), ["2 sdrow"])
    result, _, _ = await run(build.c_guest(), "error")
    assert result == Err("a wanted error")


async def test_a_c_guest_that_recurses_for_ever_traps() -> None:
    with pytest.raises(GuestError, match=r"^the program trapped: stack overflow"):
        await run(build.c_guest(), "deep")


async def test_a_c_guest_out_of_memory_hears_of_the_limit() -> None:
    with pytest.raises(GuestError, match=r"at most 32\.0 MiB \(limits\.memory_bytes\)"):
        await run(build.c_guest(), "memory", memory=32 * MIB)
