"""Every WIT type crosses from the host to a guest and back unchanged."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from pie.guest.host import Err, HostInterface, Ok
from pie.guest.wasm import Fuel

from .support import component, hosting, make_instance, run_text

# How a type is passed in core wasm, for those that take one flat value.
FLAT = {
    "bool": "i32",
    "u8": "i32",
    "s8": "i32",
    "u16": "i32",
    "s16": "i32",
    "u32": "i32",
    "s32": "i32",
    "char": "i32",
    "u64": "i64",
    "s64": "i64",
    "f32": "f32",
    "f64": "f64",
}
SINGLE: dict[str, list[Any]] = {
    "bool": [True, False],
    "u8": [0, 255],
    "s8": [-128, 127],
    "u16": [0, 65535],
    "s16": [-32768, 32767],
    "u32": [0, 2**32 - 1],
    "s32": [-(2**31), 2**31 - 1],
    "u64": [0, 2**64 - 1],
    "s64": [-(2**63), 2**63 - 1],
    "f32": [0.0, 1.5, -math.inf],
    "f64": [0.1, math.pi, math.inf],
    "char": ["a", "\u20ac", "\U0001f600"],
}
LONG: dict[str, list[Any]] = {
    name: [values * 50, [], values[:1]] for name, values in SINGLE.items() if name not in ("u8",)
} | {"u8": [b"", b"x", bytes(range(256))]}
COMPOUND: dict[str, list[Any]] = {
    "string": ["", "text", "\u00e9\u20ac\U0001f600" * 40],
    "(list u32)": [[], [1, 2, 3]],
    "(list u8)": [b"", b"\x00\xff"],
    "(list (list string))": [[], [["a"], [], ["b", "c"]]],
    "(tuple u8 string f64)": [(7, "seven", 7.5)],
    '(record (field "first-part" u32) (field "b" string))': [{"first-part": 1, "b": "x"}],
    '(variant (case "none") (case "number" u64) (case "text" string))': [
        ("none", None),
        ("number", 2**63),
        ("text", "words"),
    ],
    '(enum "low" "normal" "very-high")': ["low", "very-high"],
    '(flags "read" "write" "run-it")': [set(), {"read"}, {"read", "write", "run-it"}],
    "(option u32)": [None, 0, 5],
    "(option string)": [None, "", "some"],
    "(option (list u16))": [None, [], [1, 2]],
    "(result)": [Ok(), Err()],
    "(result u32)": [Ok(3), Err()],
    "(result (error string))": [Ok(), Err("no")],
    "(result (list f32) (error string))": [Ok([0.5, 2.0]), Err("bad")],
}
NAMED = ("(record", "(variant", "(enum", "(flags")


def _named(kind: str) -> tuple[str, str]:
    """The declarations a type needs in an instance type, and how to refer to it."""
    if kind.startswith(NAMED):
        return f'(type $def {kind}) (export "t" (type $t (eq $def)))', "$t"
    if kind.startswith("("):
        return f"(type $t {kind})", "$t"
    return "", kind


def _echo_list(kind: str) -> str:
    """A guest that takes a list<kind> from `give` and passes it to `take`."""
    declared, name = _named(kind)
    imports = f"""{declared}
        (type $list (list {name}))
        (export "give" (func (result $list)))
        (export "take" (func (param "values" $list)))"""
    return component(
        imports,
        ["give", "take"],
        "(call $give (i32.const 16))"
        "(call $take (i32.load (i32.const 16)) (i32.load (i32.const 20)))",
        functions=[
            '(import "api" "give" (func $give (param i32)))',
            '(import "api" "take" (func $take (param i32 i32)))',
        ],
    )


def _echo_single(kind: str) -> str:
    """A guest that takes a value from `give` and passes it to `take`, as single arguments."""
    flat = FLAT[kind]
    imports = f"""(export "give" (func (result {kind})))
        (export "take" (func (param "before" string) (param "value" {kind}) (param "after" u32)))"""
    return component(
        imports,
        ["give", "take"],
        "(call $take (i32.const 0) (i32.const 0) (call $give) (i32.const 9))",
        functions=[
            f'(import "api" "give" (func $give (result {flat})))',
            f'(import "api" "take" (func $take (param i32 i32 {flat} i32)))',
        ],
    )


def _echoing(value: Any, *, suspends: bool = False) -> tuple[HostInterface, list[Any]]:
    api = HostInterface("test:toy/api")
    taken: list[Any] = []

    async def later() -> Any:
        await trio.lowlevel.checkpoint()
        return value

    if suspends:
        api.function("give", suspends=True)(lambda instance: later())
    else:
        api.function("give")(lambda instance: value)
    api.function("take")(lambda instance, *arguments: taken.extend(arguments))
    return api, taken


@pytest.mark.parametrize("kind", SINGLE)
async def test_a_single_value_comes_back(kind: str) -> None:
    for value in SINGLE[kind]:
        api, taken = _echoing(value)
        assert await run_text(_echo_single(kind), api) == Ok()
        assert taken == ["", value, 9]


@pytest.mark.parametrize("kind", LONG)
async def test_a_list_of_numbers_comes_back(kind: str) -> None:
    for values in LONG[kind]:
        api, taken = _echoing(values)
        assert await run_text(_echo_list(kind), api) == Ok()
        assert taken == [values]


@pytest.mark.parametrize("suspends", [False, True])
@pytest.mark.parametrize("kind", COMPOUND)
async def test_a_list_of_anything_comes_back(kind: str, suspends: bool) -> None:
    values = COMPOUND[kind] * 3
    api, taken = _echoing(values, suspends=suspends)
    assert await run_text(_echo_list(kind), api) == Ok()
    assert taken == [values]


async def test_a_long_list_of_a_suspending_function_lets_others_run() -> None:
    """Contract X9: a vocabulary of 49,152 entries must not stop the loop while it is written."""
    values = [struct.pack("<I", number) for number in range(49_152)]
    api, taken = _echoing(values, suspends=True)
    passes = 0

    async def count() -> None:
        nonlocal passes
        while True:
            await trio.lowlevel.checkpoint()
            passes += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        # One endless slice: a slice sleeps, and the clock stands still while a task is busy.
        async with hosting(api, preemption=Fuel(units=1 << 62, seconds=0)) as host:
            program = await host.load(_echo_list("(list u8)").encode())
            await host.run(program, make_instance())
        nursery.cancel_scope.cancel()
    assert taken == [values]
    assert passes > 90


async def test_a_long_value_of_a_function_that_does_not_wait_is_sliced_too() -> None:
    values = ["word"] * 5000
    api = HostInterface("test:toy/api")
    taken: list[Any] = []
    api.function("give", suspends=True)(lambda instance: values)
    api.function("take")(lambda instance, value: taken.append(value))
    assert await run_text(_echo_list("string"), api) == Ok()
    assert taken == [values]


async def test_a_guest_cancelled_between_slices_leaves_nothing() -> None:
    api, taken = _echoing(["word"] * 100_000, suspends=True)
    async with hosting(api) as host:
        program = await host.load(_echo_list("string").encode())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host.run, program, make_instance())
            for _ in range(30):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert taken == []


@settings(deadline=None, max_examples=20)
@given(st.lists(st.lists(st.text(max_size=20), max_size=5), max_size=20))
def test_lists_of_lists_of_texts_come_back(values: list[list[str]]) -> None:
    async def echo() -> list[Any]:
        api, taken = _echoing(values)
        await run_text(_echo_list("(list string)"), api)
        return taken

    assert trio.run(echo) == [values]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("u32", ["text"]),
        ("u8", [300]),
        ("string", [5]),
        ("(option u32)", ["x"]),
        ('(enum "low")', ["high"]),
        ('(flags "read")', [{"write"}]),
        ("(result u32)", [5]),
        ('(record (field "a" u32))', [{"b": 1}]),
        ("(tuple u8 u8)", [(1,)]),
    ],
)
async def test_a_host_value_of_the_wrong_shape_is_our_bug(kind: str, value: Any) -> None:
    api, taken = _echoing(value)
    with pytest.raises(
        (TypeError, ValueError, KeyError, OverflowError, struct.error, AttributeError)
    ):
        await run_text(_echo_list(kind), api)
    assert taken == []
