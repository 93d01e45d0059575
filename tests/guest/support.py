"""What the tests of guest hosting share: instances, toy interfaces, components made of text."""

from __future__ import annotations

import textwrap
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from pie.activity import Activity, Mover
from pie.config import Limits
from pie.guest.calls import GUESTS
from pie.guest.host import Err, HostInterface, Ok
from pie.guest.instance import Instance
from pie.guest.wasm import Fuel, WasmHost
from pie.ids import InstanceId
from pie.offload import inline
from pie.outbox import Outbox

GUEST_FILES = Path(__file__).parent.parent / "guests"
FUEL = Fuel(units=100_000, seconds=0.01)


def make_instance(*, activity: Activity | None = None, seed: int = 1, **limits: Any) -> Instance:
    """An instance whose actors nobody plays: the host calls of these tests need none."""
    nobody: trio.MemorySendChannel[Any] = trio.open_memory_channel[Any](0)[0]
    return Instance(
        id=InstanceId(1),
        uuid="00000000",
        user="local",
        seed=seed,
        arguments=(),
        models={},
        broker=nobody,
        store=nobody,
        supervisor=nobody,
        outbox=Outbox(),
        mover=Mover([activity or Activity()]),
        limits=Limits(**limits),
        offload=inline,
    )


@asynccontextmanager
async def hosting(*interfaces: HostInterface, **options: Any) -> AsyncIterator[WasmHost]:
    """A host in simulated mode, unless `options` say otherwise, that must end up empty."""
    chosen: dict[str, Any] = {"preemption": FUEL, "offload": inline} | options
    host = WasmHost(interfaces, **chosen)
    try:
        yield host
    finally:
        assert host.guests == 0
        assert not GUESTS, "a guest is still known to the trampolines"
        host.close()


async def run_text(
    text: str, interface: HostInterface, instance: Instance | None = None, **options: Any
) -> Ok[None] | Err[str]:
    """Load and run a component given as text."""
    async with hosting(interface, **options) as host:
        program = await host.load(text.encode(), name="test")
        return await host.run(program, instance or make_instance())


def component(
    imports: str, lowered: Sequence[str], body: str, *, functions: Sequence[str], extra: str = ""
) -> str:
    """A component that imports `test:toy/api` and whose `run` is `body` and then success.

    `imports` are the items of the imported instance type; `lowered` the names to import into
    the core module, declared there by `functions`.
    """
    lower = "\n".join(
        f'(core func $"{name}" (canon lower (func $api "{name}") '
        f'(memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))'
        for name in lowered
    )
    given = "\n".join(f'(export "{name}" (func $"{name}"))' for name in lowered)
    declared = "\n".join(functions)
    return textwrap.dedent(f"""\
        (component
          (import "test:toy/api" (instance $api {imports}))
          (core module $libc_module
            (memory (export "memory") 1)
            (global $next (mut i32) (i32.const 1024))
            (func (export "realloc") (param $old i32) (param $size i32) (param $align i32)
              (param $new i32) (result i32) (local $at i32)
              (local.set $at (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
              (global.set $next (i32.add (local.get $at) (local.get $new)))
              (block $fits (loop $more
                (br_if $fits (i32.le_u (global.get $next)
                  (i32.mul (memory.size) (i32.const 65536))))
                (drop (memory.grow (i32.const 16))) (br $more)))
              (local.get $at)))
          (core instance $libc (instantiate $libc_module))
          {lower}
          {extra}
          (core module $main
            (import "libc" "memory" (memory 1))
            {declared}
            (func (export "run") (result i32)
              {body}
              (i32.store (i32.const 0) (i32.const 0))
              (i32.const 0)))
          (core instance $i (instantiate $main
            (with "libc" (instance $libc))
            (with "api" (instance {given}))))
          (func $run (result (result (error string)))
            (canon lift (core func $i "run") (memory (core memory $libc "memory"))))
          (instance $exports (export "run" (func $run)))
          (export "inferlet:core/run" (instance $exports)))
        """)
