"""What a component exports; imported by the entry module that `pie build` adds."""

from __future__ import annotations

from types import ModuleType

from componentize_py_types import Err

from ._entry import find_main, outcome
from ._wasm import run


def exported(module: ModuleType) -> type:
    """The class that implements `inferlet:core/run` for an inferlet's module."""
    main = find_main(module)

    class Run:
        def run(self) -> None:
            error = run(outcome(main))
            if error is not None:
                raise Err(error)

    return Run
