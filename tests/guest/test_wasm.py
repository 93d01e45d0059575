"""Guests run, wait, fail and are killed without leaving anything behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from pie.activity import Activity
from pie.errors import Closed, GuestError, ProgramError, UsageError
from pie.guest.host import Err, HostInterface, Ok, Wait
from pie.guest.mappings import guests_possible
from pie.guest.wasm import Epochs, Fuel, WasmHost
from pie.signals import Signal

from .support import FUEL, GUEST_FILES, component, hosting, make_instance, run_text

BASIC = GUEST_FILES / "basic.wat"
END, ERR, TRAP, SPIN, DEEP, GROW, BOUNDS, NOTE = range(8)
MIB = 1 << 20


@attrs.define
class Toy:
    """The interface of `basic.wat`; tests replace its functions."""

    mode: int = END
    add: Callable[..., Any] = lambda instance, a, b: a + b
    wait: Callable[..., Any] = lambda instance, value: value
    notes: list[str] = attrs.field(factory=list)

    def interface(self) -> HostInterface:
        api = HostInterface("test:toy/api")
        api.function("mode")(lambda instance: self.mode)
        api.function("add")(lambda instance, a, b: self.add(instance, a, b))
        api.function("wait", suspends=True)(lambda instance, value: self.wait(instance, value))
        api.function("note")(lambda instance, text: self.notes.append(text))
        return api


async def run_basic(toy: Toy, **limits: Any) -> Ok[None] | Err[str]:
    async with hosting(toy.interface()) as host:
        return await host.run(await host.load(BASIC), make_instance(**limits))


def raising(error: BaseException) -> Callable[..., Any]:
    def function(*_: Any) -> Any:
        raise error

    return function


def raising_late(error: BaseException) -> Callable[..., Any]:
    async def later() -> Any:
        await trio.sleep(1)
        raise error

    return lambda *_: later()


async def test_a_run_ends_with_what_the_guest_returns() -> None:
    assert await run_basic(Toy(mode=END)) == Ok()
    assert await run_basic(Toy(mode=ERR)) == Err("a wanted error")
    toy = Toy(mode=NOTE)
    assert await run_basic(toy) == Ok()
    assert toy.notes == ["a wanted error"]


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        (TRAP, "the program trapped: it reached an `unreachable` instruction"),
        (DEEP, "the program trapped: stack overflow: its calls nest too deep (in m!deep)"),
        (BOUNDS, "the program trapped: it accessed memory out of bounds (in m!bounds)"),
    ],
)
async def test_a_trap_is_one_line_with_reason_and_place(mode: int, text: str) -> None:
    with pytest.raises(GuestError) as caught:
        await run_basic(Toy(mode=mode))
    assert str(caught.value) == text


async def test_a_guest_that_cannot_grow_its_memory_hears_of_the_limit() -> None:
    with pytest.raises(GuestError) as caught:
        await run_basic(Toy(mode=GROW), memory_bytes=8 * MIB)
    assert str(caught.value).startswith("the program trapped: it reached an `unreachable`")
    assert "it held 7." in str(caught.value)
    assert "at most 8.0 MiB (limits.memory_bytes)" in str(caught.value)


@pytest.mark.parametrize(("tables", "elements"), [(1, 100_001), (21, 1)])
async def test_a_program_with_too_much_in_tables_is_refused(tables: int, elements: int) -> None:
    """They are host memory that `limits.memory_bytes` does not count."""
    many = f"(table {elements} funcref)" * tables
    text = component("", [], "", functions=[many])
    with pytest.raises(ProgramError, match=r"cannot be instantiated: .*table"):
        await run_text(text, HostInterface("test:toy/api"))


async def test_a_guest_whose_memory_does_not_fit_at_the_start_hears_of_the_limit() -> None:
    with pytest.raises(GuestError, match=r"needs 65536 bytes .*memory_bytes is 1000$"):
        await run_basic(Toy(), memory_bytes=1000)


@pytest.mark.parametrize("make", [raising, raising_late])
@pytest.mark.parametrize(
    "error", [GuestError("a rule"), Closed("gone"), ZeroDivisionError("our bug"), LookupError(5)]
)
async def test_the_exception_of_a_host_function_reaches_the_caller_itself(
    make: Callable[..., Any], error: Exception
) -> None:
    """A GuestError ends the guest; anything else is our bug and must stay as it was raised."""
    with pytest.raises(type(error)) as caught:
        await run_basic(Toy(wait=make(error)))
    assert caught.value is error
    names = [entry.name for entry in caught.traceback]
    assert names[-1] in ("function", "later")


async def test_the_exception_of_a_function_that_cannot_wait_reaches_the_caller_itself() -> None:
    error = ZeroDivisionError("our bug")
    with pytest.raises(ZeroDivisionError) as caught:
        await run_basic(Toy(add=raising(error)))
    assert caught.value is error
    assert [entry.name for entry in caught.traceback][-1] == "function"


async def test_errors_of_guests_beside_each_other_stay_apart() -> None:
    async with hosting(Toy(wait=lambda instance, value: fail(instance)).interface()) as host:
        program = await host.load(BASIC)

        async def fail(instance: Any) -> None:
            await trio.sleep(instance.seed % 7)
            raise GuestError(f"seed {instance.seed}")

        async def one(seed: int) -> None:
            with pytest.raises(GuestError, match=f"^seed {seed}$"):
                await host.run(program, make_instance(seed=seed))

        async with trio.open_nursery() as nursery:
            for seed in range(40):
                nursery.start_soon(one, seed)


async def test_a_wait_gives_its_result_when_a_pollable_is_ready() -> None:
    signal = Signal()
    toy = Toy(wait=lambda instance, value: Wait((signal,), lambda: 7))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_basic, toy)
        await trio.sleep(5)
        assert nursery.child_tasks
        signal.set()


async def test_a_guest_counts_as_moving_only_while_it_runs() -> None:
    """The gather rule: a batch may start as soon as every guest waits."""
    activity, signal = Activity(), Signal()
    seen: list[int] = []

    def note() -> int:
        seen.append(activity.moving)
        return 1

    def wait(instance: Any, value: int) -> Any:
        note()
        return Wait((signal,), note)

    async with hosting(Toy(wait=wait).interface()) as host:
        program = await host.load(BASIC)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host.run, program, make_instance(activity=activity))
            await trio.sleep(1)
            assert activity.moving == 0
            signal.set()
            assert activity.moving == 1, "moving from the moment it can go on"
    assert seen == [1, 1]
    assert activity.moving == 0


async def test_a_guest_that_spins_stops_counting_as_moving() -> None:
    activity = Activity()
    async with hosting(Toy(mode=SPIN).interface()) as host:
        program = await host.load(BASIC)
        with trio.move_on_after(10 * FUEL.seconds) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(host.run, program, make_instance(activity=activity))
                await trio.sleep(FUEL.seconds / 2)
                assert activity.moving == 1, "one partial slice is not held against it"
                await trio.sleep(3 * FUEL.seconds)
                assert activity.moving == 0
                await trio.sleep_forever()
    assert scope.cancelled_caught


async def seconds_of_deep_guests(count: int) -> float:
    """How long guests take that recurse until their stack overflows, all begun at once."""
    fuel = Fuel(units=1000, seconds=0.25)
    async with hosting(Toy(mode=DEEP).interface(), preemption=fuel) as host:
        program = await host.load(BASIC)

        async def one() -> None:
            with pytest.raises(GuestError):
                await host.run(program, make_instance())

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(one)
        return trio.current_time() - start


async def test_fuel_slices_take_virtual_time_on_one_processor() -> None:
    alone = await seconds_of_deep_guests(1)
    assert alone > 1
    assert await seconds_of_deep_guests(1) == pytest.approx(alone)
    assert await seconds_of_deep_guests(3) == pytest.approx(3 * alone)


@pytest.mark.slow
async def test_epochs_preempt_a_spinning_guest() -> None:
    async with hosting(Toy(mode=SPIN).interface(), preemption=Epochs(0.001)) as host:
        program = await host.load(BASIC)
        passes = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host.run, program, make_instance())
            nursery.start_soon(host.run, program, make_instance())
            while passes < 20:
                await trio.sleep(0.001)
                passes += 1
            assert host.guests == 2
            nursery.cancel_scope.cancel()


async def at_once(value: int) -> int:
    return value


@pytest.mark.parametrize(
    "wait",
    [
        lambda instance, value: Wait((Signal(ready=True),), lambda: value),
        lambda instance, value: at_once(value),
        lambda instance, value: value,
    ],
)
async def test_a_loop_of_calls_that_never_wait_still_lets_others_run(
    wait: Callable[..., Any],
) -> None:
    """Without this a guest could hold the loop with calls that are always ready."""
    api = HostInterface("test:toy/api")
    api.function("wait", suspends=True)(wait)
    looping = component(
        '(export "wait" (func (param "value" u32) (result u32)))',
        ["wait"],
        "(loop $again (drop (call $wait (i32.const 1))) (br $again))",
        functions=['(import "api" "wait" (func $wait (param i32) (result i32)))'],
    )
    async with hosting(api, preemption=Fuel(units=1000, seconds=0.01)) as host:
        program = await host.load(looping.encode())
        with trio.move_on_after(0.1) as scope:
            await host.run(program, make_instance())
        assert scope.cancelled_caught


@pytest.mark.parametrize("mode", [SPIN, END])
async def test_a_cancelled_guest_is_gone(mode: int) -> None:
    """`hosting` checks that nothing is left."""

    async def for_ever() -> None:
        await trio.sleep_forever()

    toy = Toy(mode=mode, wait=lambda instance, value: for_ever() if mode == END else value)
    async with hosting(toy.interface()) as host:
        program = await host.load(BASIC)
        with trio.move_on_after(1) as scope:
            await host.run(program, make_instance())
        assert scope.cancelled_caught
        assert host.guests == 0


async def test_a_guest_cancelled_before_it_begins_is_gone() -> None:
    async with hosting(Toy().interface()) as host:
        program = await host.load(BASIC)
        with trio.CancelScope() as scope:
            scope.cancel()
            await host.run(program, make_instance())
        assert scope.cancelled_caught


async def test_guests_beyond_the_limit_are_refused_with_the_numbers() -> None:
    signal = Signal()
    toy = Toy(wait=lambda instance, value: Wait((signal,), lambda: value))
    async with hosting(toy.interface(), max_guests=2) as host:
        program = await host.load(BASIC)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host.run, program, make_instance())
            nursery.start_soon(host.run, program, make_instance())
            await trio.sleep(1)
            with pytest.raises(UsageError, match="2 guests run, and at most so many may"):
                await host.run(program, make_instance())
            signal.set()
        assert await host.run(program, make_instance()) == Ok()


def test_more_guests_than_the_system_has_mappings_for_are_refused() -> None:
    with pytest.raises(UsageError, match=r"10000000 guests.*vm\.max_map_count"):
        WasmHost((), max_guests=10_000_000)


def test_the_admission_limit_leaves_room_for_the_process() -> None:
    limit = int(Path("/proc/sys/vm/max_map_count").read_text())
    assert 0 <= guests_possible() * 5 <= limit - 8192


def mappings() -> int:
    with Path("/proc/self/maps").open() as maps:
        return sum(1 for _ in maps)


async def test_many_guests_leave_no_mappings() -> None:
    signal = Signal()
    toy = Toy(wait=lambda instance, value: Wait((signal,), lambda: value))
    async with hosting(toy.interface()) as host:
        program = await host.load(BASIC)
        before = mappings()
        for end in (signal.set, None):
            signal.clear()
            async with trio.open_nursery() as nursery:
                for _ in range(500):
                    nursery.start_soon(host.run, program, make_instance())
                await trio.sleep(1)
                assert host.guests == 500
                assert mappings() - before < 500 * 7
                if end is None:
                    nursery.cancel_scope.cancel()
                else:
                    end()
            assert host.guests == 0
        assert mappings() - before < 50
