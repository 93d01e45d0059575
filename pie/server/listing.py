"""The instances of a server, for people: `GET /v1/instances`."""

from __future__ import annotations

import json
from collections.abc import Sequence

import attrs


@attrs.frozen(kw_only=True)
class InstanceRow:
    """What is told of an instance."""

    uuid: str
    program: str
    user: str
    status: str
    """Attached, Detached or Finished."""
    seconds: float
    """Since its launch."""
    pages: int = 0
    """KV pages it refers to, of all models; shared ones count for each."""
    queued: int = 0
    """Passes that it has submitted and that are not finished."""


COLUMNS = tuple(field.name for field in attrs.fields(InstanceRow))
_NUMBERS = ("seconds", "pages", "queued")


def as_json(rows: Sequence[InstanceRow]) -> bytes:
    """An object with `instances`, the oldest first."""
    listed = [attrs.asdict(row) | {"seconds": round(row.seconds, 3)} for row in _sorted(rows)]
    return json.dumps({"instances": listed}).encode()


def as_text(rows: Sequence[InstanceRow]) -> bytes:
    """A table, the oldest first."""
    cells = [COLUMNS, *(_cells(row) for row in _sorted(rows))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if name in _NUMBERS else cell.ljust(width)
            for name, cell, width in zip(COLUMNS, line, widths, strict=True)
        ).rstrip()
        for line in cells
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def listing(rows: Sequence[InstanceRow], accept: str) -> tuple[bytes, str]:
    """Body and type for a client with this Accept header: JSON unless it asks for plain text."""
    if "text/plain" in accept:
        return as_text(rows), "text/plain; charset=utf-8"
    return as_json(rows), "application/json"


def printable(text: str) -> str:
    """What users name may not move a reader's cursor or colour the screen."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def _sorted(rows: Sequence[InstanceRow]) -> list[InstanceRow]:
    return sorted(rows, key=lambda row: (-row.seconds, row.uuid))


def _cells(row: InstanceRow) -> tuple[str, ...]:
    values = attrs.astuple(attrs.evolve(row, seconds=round(row.seconds, 1)))
    return tuple(printable(str(value)) for value in values)
