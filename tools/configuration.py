"""Write the tables of docs/configuration.md from the classes that the settings file fills.

What is between the marks of a table is generated; all else there is written by hand. `--check`
changes nothing and fails if a table is stale.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pie.config import MIB
from pie.server.settings_keys import TABLES, Key
from pie.server.settings_values import Bytes, Origins, words_of

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
_MARKED = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_SHORT: dict[Any, str] = {Bytes: "bytes", Origins: "list of texts"}


def documented(owner: type) -> dict[str, str]:
    """The texts below the fields of a class, each on one line."""
    body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
    assert isinstance(body, ast.ClassDef)
    texts: dict[str, str] = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(name)),
                ast.Expr(ast.Constant(str(text))),
            ):
                texts[name] = " ".join(text.split())
    return texts


def render(page: str) -> str:
    """The page with its tables as they should be."""
    found = [match[2] for match in _MARKED.finditer(page)]
    if sorted(found) != sorted(TABLES):
        raise SystemExit(f"{PAGE} has tables {found}; there should be {', '.join(TABLES)}")
    return _MARKED.sub(lambda match: f"{match[1]}{_table(TABLES[match[2]])}{match[3]}", page)


def _table(keys: Mapping[str, Key]) -> str:
    lines = ["| key | value | default | |", "|---|---|---|---|"]
    for name, key in keys.items():
        text = documented(key.owner)[key.field]
        cells = (f"`{name}`", _kind(key), _default(key), text)
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join([*lines, ""])


def _kind(key: Key) -> str:
    words = _SHORT.get(key.kind) or words_of(key.kind)
    words = re.sub("^an? ", "", words)
    return words if key.allowed is None else f"{words}, {key.allowed.words}"


def _default(key: Key) -> str:
    if key.required:
        return "must be given"
    match key.default:
        case None:
            return "unset"
        case bool(value):
            return f"`{str(value).lower()}`"
        case str(value):
            return f'`"{value}"`'
        case int(value) if key.kind is Bytes and value % MIB == 0:
            return f'`"{value // MIB} MiB"`'
        case int(value) | float(value):
            return f"`{value}`"
        case ():
            return "`[]`"
    raise AssertionError(f"{key} has a default of a new kind")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--check", action="store_true", help="fail if a table is stale")
    page = PAGE.read_text()
    wanted = render(page)
    if not options.parse_args().check:
        PAGE.write_text(wanted)
    elif page != wanted:
        sys.exit(f"{PAGE} is stale: run python -m tools.configuration")


if __name__ == "__main__":
    main()
