"""Our part of WASI: time is Trio's, randomness the instance's, output the client's."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from pie.errors import GuestError, LimitExceeded
from pie.guest.host import Err, HostInterface, Ok, Wait
from pie.guest.instance import Instance
from pie.guest.wasi import Exit, interfaces_of_wasi
from pie.ids import EventCode
from pie.messages import Event, Output
from pie.outbox import Outbox
from pie.signals import Deadline, Signal

from .support import component, hosting, make_instance

SIMULATED = {interface.name: interface for interface in interfaces_of_wasi(simulated=True)}
REAL = {interface.name: interface for interface in interfaces_of_wasi(simulated=False)}


def call(interface: str, name: str, *arguments: Any, instance: Instance | None = None) -> Any:
    function = SIMULATED[f"wasi:{interface}"].functions[name]
    return function.implementation(instance or make_instance(), *arguments)


POLL = """
    (component
      (import "wasi:io/poll@0.2.9" (instance $poll
        (export "pollable" (type $p (sub resource)))
        (export "[method]pollable.ready" (func (param "self" (borrow $p)) (result bool)))
        (export "[method]pollable.block" (func (param "self" (borrow $p))))
        (export "poll" (func (param "in" (list (borrow $p))) (result (list u32))))))
      (alias export $poll "pollable" (type $pollable))
      (import "test:toy/api" (instance $api
        (alias outer 1 $pollable (type $outer))
        (export "pollable" (type $p (eq $outer)))
        (export "get" (func (param "index" u32) (result (own $p))))
        (export "take" (func (param "ready" (list u32))))))
      (core module $libc_module
        (memory (export "memory") 1)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096)))
      (core instance $libc (instantiate $libc_module))
      (core func $get (canon lower (func $api "get")))
      (core func $take (canon lower (func $api "take") (memory (core memory $libc "memory"))))
      (core func $block (canon lower (func $poll "[method]pollable.block")))
      (core func $ready (canon lower (func $poll "[method]pollable.ready")))
      (core func $list (canon lower (func $poll "poll") (memory (core memory $libc "memory"))
        (realloc (core func $libc "realloc"))))
      (core module $main
        (import "libc" "memory" (memory 1))
        (import "api" "get" (func $get (param i32) (result i32)))
        (import "api" "take" (func $take (param i32 i32)))
        (import "api" "block" (func $block (param i32)))
        (import "api" "ready" (func $ready (param i32) (result i32)))
        (import "api" "list" (func $list (param i32 i32 i32)))
        (func (export "run") (result i32)
          BODY
          (i32.store (i32.const 0) (i32.const 0))
          (i32.const 0)))
      (core instance $i (instantiate $main (with "libc" (instance $libc))
        (with "api" (instance (export "get" (func $get)) (export "take" (func $take))
          (export "block" (func $block)) (export "ready" (func $ready))
          (export "list" (func $list))))))
      (func $run (result (result (error string)))
        (canon lift (core func $i "run") (memory (core memory $libc "memory"))))
      (instance $exports (export "run" (func $run)))
      (export "inferlet:core/run" (instance $exports)))
"""
PUT = "(i32.store (i32.const {at}) (call $get (i32.const {index})))"
POLL_AND_TAKE = """
    (call $list (i32.const 16) (i32.const {count}) (i32.const 8))
    (call $take (i32.load (i32.const 8)) (i32.load (i32.const 12)))"""


async def polled(body: str, pollables: list[Any]) -> list[list[int]]:
    taken: list[list[int]] = []
    api = HostInterface("test:toy/api")
    api.function("get")(lambda instance, index: pollables[index])
    api.function("take")(lambda instance, ready: taken.append(ready))
    async with hosting(api) as host:
        program = await host.load(POLL.replace("BODY", body).encode())
        assert await host.run(program, make_instance()) == Ok()
    return taken


def listing(indices: list[int]) -> str:
    puts = "".join(PUT.format(at=16 + 4 * at, index=index) for at, index in enumerate(indices))
    return puts + POLL_AND_TAKE.format(count=len(indices))


async def test_poll_gives_every_ready_index() -> None:
    pollables = [Signal(ready=True), Signal(), Signal(ready=True)]
    assert await polled(listing([0, 1, 2]), pollables) == [[0, 2]]


async def test_poll_waits_for_the_first() -> None:
    start = trio.current_time()
    pollables = [Deadline(start + 5), Deadline(start + 2), Deadline(start + 2)]
    assert await polled(listing([0, 1, 2]), pollables) == [[1, 2]]
    assert trio.current_time() - start == 2


async def test_the_same_pollable_may_be_listed_twice() -> None:
    at = Deadline(trio.current_time() + 1)
    twice = PUT.format(at=16, index=0) + "(i32.store (i32.const 20) (i32.load (i32.const 16)))"
    assert await polled(twice + POLL_AND_TAKE.format(count=2), [at]) == [[0, 1]]


async def test_an_empty_list_traps() -> None:
    with pytest.raises(GuestError, match="the list of pollables is empty"):
        await polled(POLL_AND_TAKE.format(count=0), [])


async def test_block_returns_when_it_is_ready_and_at_once_after_that() -> None:
    body = (
        PUT.format(at=16, index=0)
        + "(call $block (i32.load (i32.const 16)))" * 2
        + ("(if (i32.eqz (call $ready (i32.load (i32.const 16)))) (then unreachable))")
    )
    start = trio.current_time()
    await polled(body, [Deadline(start + 3)])
    assert trio.current_time() - start == 3


async def test_poll_looks_again_when_a_signal_was_only_set_for_a_moment() -> None:
    signal, taken = Signal(), []
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def run() -> None:
            taken.extend(await polled(listing([0]), [signal]))

        await trio.sleep(1)
        signal.set()
        signal.clear()
        await trio.sleep(1)
        assert taken == []
        signal.set()
    assert taken == [[0]]


async def test_the_monotonic_clock_is_trios() -> None:
    before = call("clocks/monotonic-clock", "now")
    await trio.sleep(2.5)
    assert call("clocks/monotonic-clock", "now") - before == 2_500_000_000
    assert call("clocks/monotonic-clock", "resolution") == 1


async def test_a_guest_woken_at_an_instant_sees_that_instant() -> None:
    """One nanosecond less and a guest that loops until then would loop for ever."""
    await trio.sleep(1234.567891)
    for nanoseconds in (1, 333_333_333, 10**9 + 1, 7_777_777_777_777):
        when = call("clocks/monotonic-clock", "now") + nanoseconds
        deadline = call("clocks/monotonic-clock", "subscribe-instant", when)
        await trio.sleep_until(deadline.at)
        assert call("clocks/monotonic-clock", "now") >= when


async def test_a_duration_is_a_deadline_from_now() -> None:
    deadline = call("clocks/monotonic-clock", "subscribe-duration", 10**9)
    assert not deadline.ready()
    await trio.sleep(1)
    assert deadline.ready()


async def test_the_wall_clock_of_a_simulation_begins_on_a_fixed_day() -> None:
    await trio.sleep(2.5)
    assert call("clocks/wall-clock", "now") == {
        "seconds": 1_767_225_602,
        "nanoseconds": 500_000_000,
    }
    real = REAL["wasi:clocks/wall-clock"].functions["now"].implementation(make_instance())
    assert real["seconds"] > 1_767_225_600


def test_random_bytes_come_from_the_instances_seed() -> None:
    instances = make_instance(seed=5), make_instance(seed=5), make_instance(seed=6)
    one, same, other = (
        call("random/random", "get-random-bytes", 16, instance=instance) for instance in instances
    )
    assert one == same != other
    assert len(one) == 16
    assert 0 <= call("random/random", "get-random-u64") < 1 << 64
    assert len(call("random/insecure-seed", "insecure-seed")) == 2


def test_too_many_random_bytes_at_once_trap() -> None:
    with pytest.raises(LimitExceeded, match="1048577 bytes asked at once, 1048576 are allowed"):
        call("random/random", "get-random-bytes", 1048577)


async def test_output_goes_to_the_client_and_waits_for_a_slow_one() -> None:
    instance = make_instance()
    instance.outbox = Outbox(capacity=1)
    stdout, stderr = call("cli/stdout", "get-stdout"), call("cli/stderr", "get-stderr")
    write = "[method]output-stream.blocking-write-and-flush"
    assert call("io/streams", write, stdout, b"", instance=instance) == Ok()
    assert call("io/streams", write, stdout, b"one", instance=instance) == Ok()
    with trio.move_on_after(5) as scope:
        await call("io/streams", write, stderr, b"two", instance=instance)
    assert scope.cancelled_caught, "the client has not read the first piece"
    instance.outbox.finish(Event(EventCode.COMPLETED, ""))
    assert await anext(instance.outbox) == Output("stdout", b"one")


def test_one_write_has_a_limit_that_the_guest_is_told() -> None:
    stdout = call("cli/stdout", "get-stdout")
    assert call("io/streams", "[method]output-stream.check-write", stdout) == Ok(65536)
    with pytest.raises(GuestError, match="65537 bytes in one write, 65536 may be written"):
        call("io/streams", "[method]output-stream.write", stdout, bytes(65537))
    with pytest.raises(GuestError, match="65537 bytes"):
        call("io/streams", "[method]output-stream.write-zeroes", stdout, 1 << 40)


def test_input_has_ended() -> None:
    stdin = call("cli/stdin", "get-stdin")
    for name in ("read", "blocking-read", "skip", "blocking-skip"):
        closed = call("io/streams", f"[method]input-stream.{name}", stdin, 5)
        assert closed == Err(("closed", None))
    assert call("io/streams", "[method]input-stream.subscribe", stdin).ready()


def test_there_are_no_arguments_variables_files_and_terminals() -> None:
    assert call("cli/environment", "get-environment") == []
    assert call("cli/environment", "get-arguments") == []
    assert call("cli/environment", "initial-cwd") is None
    assert call("filesystem/preopens", "get-directories") == []
    assert call("cli/terminal-stdout", "get-terminal-stdout") is None


@pytest.mark.parametrize(("status", "success"), [("(i32.const 0)", True), ("(i32.const 1)", False)])
async def test_exit_ends_the_run_as_it_says(status: str, success: bool) -> None:
    text = component(
        '(export "exit" (func (param "status" (result))))',
        ["exit"],
        f"(call $exit {status}) unreachable",
        functions=['(import "api" "exit" (func $exit (param i32)))'],
    ).replace("test:toy/api", "wasi:cli/exit@0.2.3")
    async with hosting() as host:
        program = await host.load(text.encode())
        if success:
            assert await host.run(program, make_instance()) == Ok()
        else:
            with pytest.raises(GuestError, match="ended itself with exit code 1"):
                await host.run(program, make_instance())
    assert Exit(0).success
    assert not Exit(3).success


def test_a_block_on_what_is_ready_does_not_suspend() -> None:
    assert call("io/poll", "[method]pollable.block", Signal(ready=True)) is None
    assert isinstance(call("io/poll", "[method]pollable.block", Signal()), Wait)
