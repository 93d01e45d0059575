"""Programs: components that are compiled, checked and linked, ready to be run many times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import wasmtime.component as wit

from pie.errors import ProgramError

from . import _capi, calls, linker
from .cache import Cache, compile_component
from .host import HostInterface
from .parts import check_size
from .readers import reader
from .source import read_source
from .traps import one_line
from .values import Reader

RUN = "inferlet:core/run"
_TEST_MEMORY = 1 << 32


@attrs.frozen(eq=False)
class Program:
    """A component that exports `inferlet:core/run`, linked with the host's interfaces."""

    name: str
    component: Any = attrs.field(repr=False)
    linked: linker.Linked = attrs.field(repr=False)
    run: Any = attrs.field(repr=False)
    """Index of the function `run` among the exports."""
    read_result: Reader = attrs.field(repr=False)

    @property
    def linker_address(self) -> int:
        return _capi.address(self.linked.linker)

    @property
    def component_address(self) -> int:
        return _capi.address(self.component)


def prepare(
    engine: Any,
    interfaces: dict[str, HostInterface],
    cache: Cache | None,
    source: bytes | Path,
    name: str,
    *,
    fuel: bool,
) -> Program:
    """Read, compile or fetch, link and test one program: seconds, so off the loop.

    Raises ProgramError with one line when it cannot be run.
    """
    name = name or (source.name if isinstance(source, Path) else "program")
    try:
        component = _component(engine, cache, source)
        check_size(engine, component.type)
        index, kind = _find_run(engine, component)
        linked = linker.link(engine, component, interfaces)
        _test_link(engine, linked, component, fuel=fuel)
    except ProgramError as error:
        raise ProgramError(f"{name}: {error}") from None
    return Program(name, component, linked, index, reader(kind.result))


def _component(engine: Any, cache: Cache | None, source: bytes | Path) -> Any:
    """What was read for it, tens of megabytes, is not kept."""
    wasm = read_source(source)
    return cache.component(wasm) if cache else compile_component(engine, wasm)


def _find_run(engine: Any, component: Any) -> tuple[Any, Any]:
    """The index and the type of `inferlet:core/run#run`, of whatever version."""
    exports = component.type.exports(engine)
    for name, item in exports.items():
        if linker.split_version(name)[0] == RUN and isinstance(item.ty, wit.ComponentInstanceType):
            function = item.ty.exports(engine).get("run")
            if function is None or not _is_run(function.ty):
                raise ProgramError(f"its {name} lacks `run: func() -> result<_, string>`")
            index = component.get_export_index("run", component.get_export_index(name))
            return index, function.ty
    others = f"it exports {', '.join(sorted(exports))}" if exports else "it exports nothing"
    raise ProgramError(f"no inferlet: it does not export {RUN} ({others})")


def _is_run(kind: Any) -> bool:
    if not isinstance(kind, wit.FuncType) or kind.params:
        return False
    result = kind.result
    return (
        isinstance(result, wit.ResultType)
        and result.ok is None
        and isinstance(result.err, wit.String)
    )


def _test_link(engine: Any, linked: linker.Linked, component: Any, *, fuel: bool) -> None:
    """Find out now, not at the first launch, whether the imports fit.

    The imports are checked before any code runs; the store then belongs to no guest, and its
    slice is over at the first instruction.
    """
    store = _capi.Store(engine, _TEST_MEMORY)
    try:
        store.yield_at_once(fuel=fuel)
        _, call = _capi.instantiate(store, _capi.address(linked.linker), _capi.address(component))
        done = _capi.poll_future(call.future)
        call.delete()
        error = call.take_error() if done else None
    finally:
        store.delete()
    if error is not None and calls.NO_GUEST not in error:
        raise ProgramError(f"it cannot be instantiated: {one_line(error)}")
