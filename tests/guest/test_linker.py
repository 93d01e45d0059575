"""Linking by reflection: names, versions, types, and what the host lacks."""

from __future__ import annotations

from typing import Any

import pytest

from pie.errors import GuestError, ProgramError
from pie.guest.host import HostInterface, Ok

from .support import component, hosting, make_instance, run_text


def calling(imports: str, name: str, core: str, body: str, interface: str = "test:toy/api") -> str:
    made = component(imports, [name], body, functions=[f'(import "api" "{name}" {core})'])
    return made.replace('"test:toy/api"', f'"{interface}"')


VOID = ('(export "f" (func))', "f", "(func $f)", "(call $f)")


@pytest.mark.parametrize("interface", ["test:toy/api", "test:toy/api@0.2.0", "test:toy/api@7.1.3"])
async def test_an_interface_is_found_whatever_its_version(interface: str) -> None:
    calls: list[Any] = []
    api = HostInterface("test:toy/api")
    api.function("f")(calls.append)
    instance = make_instance()
    assert await run_text(calling(*VOID, interface), api, instance) == Ok()
    assert calls == [instance], "a host function gets its guest's instance"


WALL_CLOCK = (
    '(type $d (record (field "seconds" u64) (field "nanoseconds" u32))) '
    '(export "datetime" (type $t (eq $d))) (export "now" (func (result $t)))',
    "now",
    "(func $now (param i32))",
    "(call $now (i32.const 16))",
)


async def test_wasi_links_as_any_0_2() -> None:
    async with hosting() as host:
        for version in ("0.2.0", "0.2.4", "0.2.12"):
            text = calling(*WALL_CLOCK, f"wasi:clocks/wall-clock@{version}")
            assert await host.run(await host.load(text.encode()), make_instance()) == Ok()
        text = calling(*WALL_CLOCK, "wasi:clocks/wall-clock@0.3.0")
        program = await host.load(text.encode())
        with pytest.raises(GuestError, match="wasi:clocks/wall-clock#now is not offered"):
            await host.run(program, make_instance())


@pytest.mark.parametrize(
    ("interface", "message"),
    [
        ("test:other/api", "test:other/api#f is not offered by this server"),
        ("test:toy/api@1.0.0", "test:toy/api#f is not offered by this server"),
        ("inferlet:actor/common", "inferlet:actor is not supported"),
    ],
)
async def test_what_nobody_implements_links_and_traps_when_called(
    interface: str, message: str
) -> None:
    with pytest.raises(GuestError) as caught:
        await run_text(calling(*VOID, interface), HostInterface("test:toy/api"))
    assert str(caught.value) == message
    unused = (*VOID[:3], "")
    assert await run_text(calling(*unused, interface), HostInterface("test:toy/api")) == Ok()


async def test_a_plain_function_import_links_and_traps_when_called() -> None:
    text = calling(*VOID)
    text = text.replace('(instance $api (export "f" (func)))', "(func $f_import)")
    text = text.replace('(func $api "f")', "(func $f_import)")
    with pytest.raises(GuestError, match="test:toy/api"):
        await run_text(text, HostInterface("x:y/z"))


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ('"busy" "not-supported"', 1),
        ('"unsupported" "busy"', 0),
        ('"busy" "access-denied"', 1),
        ('"busy" "late"', 0),
    ],
)
async def test_a_lacking_function_answers_with_an_error_code_where_it_can(
    codes: str, code: int
) -> None:
    """result<_, enum> is one word of discriminant and one of code, returned through memory."""
    imports = f"""(type $e (enum {codes})) (export "error-code" (type $c (eq $e)))
        (export "f" (func (result (result (error $c)))))"""
    body = f"""(call $f (i32.const 16))
        (if (i32.ne (i32.load8_u (i32.const 16)) (i32.const 1)) (then unreachable))
        (if (i32.ne (i32.load8_u (i32.const 17)) (i32.const {code})) (then unreachable))"""
    text = calling(imports, "f", "(func $f (param i32))", body)
    assert await run_text(text, HostInterface("test:toy/api")) == Ok()


@pytest.mark.parametrize("suspends", [False, True])
async def test_a_value_is_dropped_where_the_import_has_no_result(suspends: bool) -> None:
    """Two forms of `download-adapter` are in the field, with and without a result."""
    api = HostInterface("test:toy/api")
    api.function("f", suspends=suspends)(lambda instance: object())
    assert await run_text(calling(*VOID), api) == Ok()


async def test_a_function_with_other_parameters_is_refused_at_load() -> None:
    api = HostInterface("test:toy/api")

    @api.function("f")
    def f(instance: Any, first: int, second: int) -> None:
        raise AssertionError

    with pytest.raises(ProgramError) as caught:
        await run_text(calling(*VOID), api)
    assert str(caught.value) == (
        "test: it imports test:toy/api#f with 0 parameters (), "
        "this server offers it with 2 (first, second)"
    )


TWO_INTERFACES = """
    (component
      (import "test:toy/makes" (instance $makes
        (export "thing" (type $thing (sub resource)))
        (export "make" (func (result (own $thing))))))
      (alias export $makes "thing" (type $thing))
      (import "test:toy/uses" (instance $uses
        (alias outer 1 $thing (type $outer))
        (export "renamed" (type $renamed (eq $outer)))
        (export "use" (func (param "thing" (borrow $renamed)) (result u32)))))
      (core func $make (canon lower (func $makes "make")))
      (core func $use (canon lower (func $uses "use")))
      (core module $main
        (import "api" "make" (func $make (result i32)))
        (import "api" "use" (func $use (param i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "run") (result i32)
          (if (i32.ne (call $use (call $make)) (i32.const 42)) (then unreachable))
          (i32.const 0)))
      (core instance $i (instantiate $main (with "api" (instance
        (export "make" (func $make)) (export "use" (func $use))))))
      (func $run (result (result (error string)))
        (canon lift (core func $i "run") (memory (core memory $i "memory"))))
      (instance $exports (export "run" (func $run)))
      (export "inferlet:core/run" (instance $exports)))
"""


async def test_a_resource_used_by_another_interface_is_one_type() -> None:
    thing = object()
    makes, uses = HostInterface("test:toy/makes"), HostInterface("test:toy/uses")
    makes.function("make")(lambda instance: thing)
    uses.function("use")(lambda instance, given: 42 if given is thing else 0)
    async with hosting(makes, uses) as host:
        program = await host.load(TWO_INTERFACES.encode())
        assert await host.run(program, make_instance()) == Ok()
