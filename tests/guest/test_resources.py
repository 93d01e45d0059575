"""Handles: who owns what, what is closed when, and how many there may be."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio

from pie.errors import GuestError, LimitExceeded
from pie.guest import _capi
from pie.guest.host import HostFunction, HostInterface, Ok
from pie.guest.resources import Handles

from .support import component, hosting, make_instance, run_text

IMPORTS = """
    (export "thing" (type $thing (sub resource)))
    (type $own (own $thing))
    (type $borrow (borrow $thing))
    (export "[constructor]thing" (func (param "number" u32) (result $own)))
    (export "[method]thing.number" (func (param "self" $borrow) (result u32)))
    (export "take" (func (param "thing" $own)))
    (export "both" (func (param "one" $borrow) (param "other" $borrow) (result bool)))
    (export "pause" (func (param "things" (list $borrow))))
"""
NAMES = ["[constructor]thing", "[method]thing.number", "take", "both", "pause"]
FUNCTIONS = [
    '(import "api" "[constructor]thing" (func $new (param i32) (result i32)))',
    '(import "api" "[method]thing.number" (func $number (param i32) (result i32)))',
    '(import "api" "take" (func $take (param i32)))',
    '(import "api" "both" (func $both (param i32 i32) (result i32)))',
    '(import "api" "pause" (func $pause (param i32 i32)))',
    '(import "api" "drop" (func $drop (param i32)))',
]
DROP = """
    (alias export $api "thing" (type $thing))
    (core func $drop (canon resource.drop $thing))
"""


@attrs.define(eq=False)
class Thing:
    number: int
    closed: list[int]

    def close(self) -> None:
        self.closed.append(self.number)


def things() -> tuple[HostInterface, list[Any]]:
    api = HostInterface("test:toy/api")
    seen: list[Any] = []
    closed: list[int] = []

    @api.function("[constructor]thing")
    def new(instance: Any, number: int) -> Thing:
        seen.append(("new", number))
        return Thing(number, closed)

    @api.function("[method]thing.number")
    def number(instance: Any, thing: Thing) -> int:
        seen.append(("number", thing.number))
        return thing.number

    @api.function("take")
    def take(instance: Any, thing: Thing) -> None:
        seen.append(("take", thing.number))

    @api.function("both")
    def both(instance: Any, one: Thing, other: Thing) -> bool:
        return one is other

    @api.function("pause", suspends=True)
    def pause(instance: Any, given: list[Thing]) -> Any:
        async def wait() -> None:
            seen.append(("pause", [thing.number for thing in given], list(closed)))
            await trio.sleep(1)

        return wait()

    seen.append(closed)
    return api, seen


def text(body: str) -> str:
    made = component(IMPORTS, NAMES, body, functions=FUNCTIONS, extra=DROP)
    return made.replace(
        '(export "pause" (func $"pause"))',
        '(export "pause" (func $pause))\n(export "drop" (func $drop))',
    )


async def test_a_handle_gives_the_same_object_each_time() -> None:
    api, _ = things()
    body = """(local $one i32) (local $two i32)
        (local.set $one (call $new (i32.const 7))) (local.set $two (call $new (i32.const 8)))
        (if (i32.eqz (call $both (local.get $one) (local.get $one))) (then unreachable))
        (if (call $both (local.get $one) (local.get $two)) (then unreachable))
        (if (i32.ne (call $number (local.get $two)) (i32.const 8)) (then unreachable))"""
    assert await run_text(text(body), api) == Ok()


async def test_what_is_left_is_closed_at_the_end_newest_first() -> None:
    api, seen = things()
    body = "".join(f"(drop (call $new (i32.const {number})))" for number in range(5))
    assert await run_text(text(body), api) == Ok()
    assert seen[0] == [4, 3, 2, 1, 0]


async def test_what_the_guest_drops_is_closed_before_it_goes_on_after_a_wait() -> None:
    api, seen = things()
    body = """(drop (call $new (i32.const 1)))
        (call $drop (call $new (i32.const 2))) (call $drop (call $new (i32.const 3)))
        (call $pause (i32.const 0) (i32.const 0))"""
    assert await run_text(text(body), api) == Ok()
    assert ("pause", [], [2, 3]) in seen
    assert seen[0] == [2, 3, 1]


async def test_what_the_guest_gives_away_is_the_hosts() -> None:
    api, seen = things()
    assert await run_text(text("(call $take (call $new (i32.const 1)))"), api) == Ok()
    assert ("take", 1) in seen
    assert seen[0] == [], "the host function owns it now"


async def test_a_list_of_borrows_may_name_a_thing_twice() -> None:
    api, seen = things()
    body = """(i32.store (i32.const 16) (call $new (i32.const 4)))
        (i32.store (i32.const 20) (call $new (i32.const 5)))
        (i32.store (i32.const 24) (i32.load (i32.const 16)))
        (call $pause (i32.const 16) (i32.const 3))"""
    assert await run_text(text(body), api) == Ok()
    assert seen[-1][1] == [4, 5, 4]


@pytest.mark.parametrize(
    "body",
    [
        "(drop (call $number (i32.const 99)))",
        "(local $one i32) (local.set $one (call $new (i32.const 1))) (call $drop (local.get $one)) "
        "(drop (call $number (local.get $one)))",
        "(local $one i32) (local.set $one (call $new (i32.const 1))) (call $take (local.get $one)) "
        "(call $take (local.get $one))",
    ],
)
async def test_a_handle_that_the_guest_does_not_have_traps(body: str) -> None:
    api, _ = things()
    with pytest.raises(GuestError, match="unknown handle index"):
        await run_text(text(body), api)


async def test_one_handle_too_many_traps_with_the_limit() -> None:
    api, seen = things()
    endless = text("(loop $again (drop (call $new (i32.const 1))) (br $again))")
    with pytest.raises(LimitExceeded, match="at most 10 live resource handles"):
        await run_text(endless, api, make_instance(max_handles=10))
    assert seen[0] == [1] * 10


async def test_dropped_handles_do_not_count() -> None:
    api, seen = things()
    body = """(local $i i32) (loop $again (call $drop (call $new (i32.const 1)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get $i) (i32.const 1000))))"""
    assert await run_text(text(body), api, make_instance(max_handles=1)) == Ok()
    assert len(seen[0]) == 1000


SCENARIO = """(local $one i32) (local $two i32)
    (local.set $one (call $new (i32.const 1)))
    (local.set $two (call $new (i32.const 2)))
    (drop (call $number (local.get $one)))
    (i32.store (i32.const 16) (local.get $one))
    (call $pause (i32.const 16) (i32.const 1))
    (call $drop (local.get $one))
    (drop (call $both (local.get $two) (local.get $two)))
    (call $pause (i32.const 0) (i32.const 0))
    (drop (call $new (i32.const 3)))
    (call $take (call $new (i32.const 4)))"""
CALLS = 9


def before_each(api: HostInterface, call: Callable[[], None]) -> HostInterface:
    """The same interface, with `call` before every function."""
    made = HostInterface(api.name)

    def wrap(function: HostFunction) -> Callable[..., Any]:
        @functools.wraps(function.implementation)
        def wrapped(instance: Any, *arguments: Any) -> Any:
            call()
            return function.implementation(instance, *arguments)

        return wrapped

    for name, function in api.functions.items():
        made.function(name, suspends=function.suspends)(wrap(function))
    return made


@pytest.mark.parametrize("how", ["raise", "cancel"])
@pytest.mark.parametrize("fatal", range(CALLS))
async def test_a_guest_killed_at_any_host_call_leaves_nothing(fatal: int, how: str) -> None:
    """Everything made is closed or given away, exactly once; `hosting` checks the rest."""
    api, seen = things()
    calls = 0
    scope = trio.CancelScope()

    def hurt() -> None:
        nonlocal calls
        calls += 1
        if calls - 1 == fatal:
            if how == "raise":
                raise GuestError("killed")
            scope.cancel()

    async with hosting(before_each(api, hurt)) as host:
        program = await host.load(text(SCENARIO).encode())
        with scope, contextlib.suppress(GuestError):
            await host.run(program, make_instance())
    assert calls > fatal
    made = [entry[1] for entry in seen[1:] if entry[0] == "new"]
    given = [entry[1] for entry in seen[1:] if entry[0] == "take"]
    assert sorted(seen[0] + given) == made


class Failing:
    def __init__(self, closed: list[str]) -> None:
        self._closed = closed

    def close(self) -> None:
        self._closed.append("failing")
        raise ZeroDivisionError


class Closing(Failing):
    def close(self) -> None:
        self._closed.append("closing")


def test_a_close_that_fails_does_not_keep_the_others_open() -> None:
    closed: list[str] = []
    handles = Handles(0, 10)
    for value in (Closing(closed), Failing(closed), object(), Closing(closed)):
        handles.add(value)
    with pytest.raises(ZeroDivisionError):
        handles.release_all()
    assert closed == ["closing", "failing", "closing"]
    handles.release_all()
    assert len(closed) == 3


async def test_the_slow_way_to_make_and_read_handles_works_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It serves when the layout of wasmtime's handles is not the one we know."""
    assert _capi.LAYOUT is not None
    monkeypatch.setattr(_capi, "LAYOUT", None)
    monkeypatch.setattr(_capi, "new_handle", _capi.new_handle_by_calls)
    monkeypatch.setattr(_capi, "take_rep", _capi.take_rep_by_calls)
    api, seen = things()
    assert await run_text(text(SCENARIO), api) == Ok()
    assert sorted(seen[0]) == [1, 2, 3]
