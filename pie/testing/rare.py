"""The names of all rare places in the engine (`pie.probes`), read from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pie


@cache
def rare_places(root: Path | None = None) -> dict[str, str]:
    """Name -> "module:line" of each `sometimes("…")` below `root`, the engine by default.

    ValueError for a name that is not literal or is used twice: it could not be told apart.
    """
    found: dict[str, str] = {}
    root = root or Path(pie.__file__).parent
    for path in sorted(root.rglob("*.py")):
        module = path.relative_to(root).with_suffix("").as_posix()
        if module == "probes":
            continue
        for call in _calls(path):
            where = f"{module}:{call.lineno}"
            name = call.args[0] if len(call.args) == 1 else None
            if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
                raise ValueError(f"{where}: sometimes() needs one literal name")
            if name.value in found:
                raise ValueError(f"{where}: {name.value!r} is also at {found[name.value]}")
            found[name.value] = where
    return found


def _calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "sometimes"
        ):
            yield node
