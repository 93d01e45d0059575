"""Cases that are compiled from C, and one that is written in WebAssembly text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .guest.cases import Case, Guest

WAT = Path(__file__).parent.parent / "guests" / "decode.wat"


async def _elsewhere(guest: Guest) -> Any:
    raise AssertionError("this case is not in Python")


def _case(name: str, **facts: Any) -> Case:
    return Case(name, _elsewhere, **facts)


OTHER_KIND = (
    "the program trapped: handle index 1 used with the wrong type, expected guest-defined resource "
    "but found a different guest-defined resource"
)
OUTSIDE = (
    "the program trapped: list pointer/length out of bounds of memory "
    "(in wit-component:shim!indirect-inferlet:core/forward-input-tokens)"
)
C_CASES = {
    case.name: case
    for case in (
        _case("drops", returns="01"),
        _case("twice", returns="0121"),
        _case("decode", returns="10"),
        _case("second", traps="execute: this pass has been executed already (F5)"),
        _case("dropped", traps="the program trapped: unknown handle index 2"),
        _case("other-kind", traps=OTHER_KIND),
        _case("outside", traps=OUTSIDE),
    )
}
WAT_CASES = {"decode": _case("decode", arguments=("5",), returns="utrhp")}
