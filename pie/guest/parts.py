"""How large the type of a component is: a few hundred bytes can say enough to take minutes.

Types refer to each other, so that each may double the one before it, and linking looks
at all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import wasmtime.component as wit

from pie.errors import ProgramError

from . import _capi
from .values import cases

MOST_PARTS = 10_000
"""Imports, exports, and parts of the types of functions; components in Python have 1,500."""


def check_size(engine: Any, component_type: Any) -> None:
    """Raise ProgramError if looking at all of a component's type would take seconds."""
    budget = _Budget(MOST_PARTS)
    budget.spend(_capi.count_exports(component_type, engine))
    budget.spend(_capi.count_imports(component_type, engine))
    for imported in component_type.imports(engine).values():
        if isinstance(imported.ty, wit.ComponentInstanceType):
            budget.spend(_capi.count_exports(imported.ty, engine))
            for item in imported.ty.exports(engine).values():
                for _ in _parts_of(item.ty):
                    budget.spend(1)


@attrs.define
class _Budget:
    left: int

    def spend(self, parts: int) -> None:
        self.left -= parts
        if self.left < 0:
            raise ProgramError(
                f"its imports and exports are too many, or their types too large: "
                f"more than {MOST_PARTS} parts"
            )


def _parts_of(kind: Any) -> Iterator[Any]:
    waiting = [kind]
    while waiting:
        part = waiting.pop()
        yield part
        waiting += filter(None, _inner(part))


def _inner(kind: Any) -> list[Any]:
    match kind:
        case wit.FuncType():
            return [*(each for _, each in kind.params), kind.result]
        case wit.TupleType():
            return list(kind.elements)
        case wit.RecordType():
            return [each for _, each in kind.fields]
        case wit.VariantType():
            return [each for _, each in cases(kind)]
        case wit.ResultType():
            return [kind.ok, kind.err]
        case wit.ListType():
            return [kind.element]
        case wit.OptionType():
            return [kind.payload]
    return []
