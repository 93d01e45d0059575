"""The programs that simulated runs launch, by name.

Native inferlets on the guest library, and components of our own in text form. Each gets one
argument, JSON with what `draw` chose for it.
"""

from __future__ import annotations

from . import chained, decoding, odd, ordering, sharing, talking
from .program import Params, SimProgram
from .wasm import WASM

PROGRAMS: dict[str, SimProgram] = {
    program.name: program
    for program in (
        *decoding.PROGRAMS,
        *chained.PROGRAMS,
        *sharing.PROGRAMS,
        *talking.PROGRAMS,
        *odd.PROGRAMS,
        *ordering.PROGRAMS,
        *WASM,
    )
}

__all__ = ["PROGRAMS", "Params", "SimProgram"]
