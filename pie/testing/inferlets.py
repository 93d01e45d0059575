"""Runs whatever a test names as an inferlet: a folder, its component, a coroutine function."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
from inferlet.entry import Main, find_main

from pie.build import APP, build_cached
from pie.engine import Engine, GuestProgram
from pie.errors import UsageError
from pie.guest.interfaces import ALL
from pie.guest.wasm import Fuel, WasmHost
from pie.offload import inline
from pie.programs import NativeProgram, WasmProgram

from .engine import Outcome, run_program

SLICE = Fuel(1_000_000, 0.001)
"""A component's slice: about a million instructions, charged as a millisecond of virtual time."""


def load_main(folder: Path) -> Main:
    """`main` of the inferlet in `folder`, to run natively; each call loads it anew.

    UsageError without an `app.py`, TypeError without an `async def main` in it.
    """
    path = folder / f"{APP}.py"
    if not path.is_file():
        raise UsageError(f"{folder} is not an inferlet: it has no {APP}.py")
    spec = importlib.util.spec_from_file_location(APP, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _beside(folder):
        spec.loader.exec_module(module)
    return find_main(module)


@contextmanager
def _beside(folder: Path) -> Iterator[None]:
    """Let modules of `folder` be imported, and be no module of anybody else's afterwards."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and Path(file).is_relative_to(folder):
                del sys.modules[name]


@attrs.define(eq=False)
class RunInferlet:
    """The fixture `run_inferlet`: what it is called with runs in the engine of the test."""

    _engine: Callable[[], Engine]
    _folder: Path
    """What relative paths are relative to."""
    _cache: Path
    """Where components are built and compiled."""
    _host: WasmHost | None = attrs.field(default=None, init=False)

    async def __call__(
        self,
        target: Main | str | Path,
        *arguments: str,
        sends: Sequence[str | bytes] = (),
        user: str = "local",
        seed: int | None = None,
        as_component: bool = False,
    ) -> Outcome:
        """Run an inferlet to its end.

        `target` is its folder (run natively, or with `as_component` built and run as a component),
        a component's file, or an `async def main(args)`. Its messages (str) and blobs (bytes) are
        `sends`; a receive after them fails, as at the end of `pie run`'s input. UsageError for
        anything else, ProgramError if it cannot be built or loaded.
        """
        program = await self._program(target, as_component)
        return await run_program(
            self._engine(), program, arguments, sends=sends, user=user, seed=seed
        )

    async def _program(self, target: Main | str | Path, as_component: bool) -> GuestProgram:
        if not isinstance(target, (str, Path)):
            if as_component:
                raise UsageError("only a folder or a file runs as a component")
            return NativeProgram(target)
        path = self._folder / target
        if path.suffix in (".wasm", ".wat"):
            return await self._component(path)
        if as_component:
            return await self._component(build_cached(path, self._cache / "components"))
        return NativeProgram(load_main(path))

    async def _component(self, path: Path) -> WasmProgram:
        if self._host is None:
            self._host = WasmHost(
                ALL, preemption=SLICE, cache=self._cache / "compiled", offload=inline
            )
        return WasmProgram(self._host, await self._host.load(path))

    def close(self) -> None:
        """Let go of the components. After the test's engine has ended."""
        if self._host is not None:
            self._host.close()
