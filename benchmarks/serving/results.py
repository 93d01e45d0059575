"""What was measured: a JSON file to which each run on the same machine adds its parts.

`machine`, `model`, `quick`, and `parts`: by name of a part `found`, `failed` and `left_out` as
`Figures` has them, `seconds` that it took and the machine's load before its run.
"""

from __future__ import annotations

import json
from pathlib import Path

import attrs

from .contenders import Row
from .turns import Figures

_SAME = ("machine", "model", "quick")


def begun(machine: Row, model: Path, *, quick: bool) -> Row:
    return {
        "machine": machine,
        "model": {"name": model.name, "bytes": model.stat().st_size},
        "quick": quick,
        "parts": {},
    }


def continued(path: Path | None, report: Row) -> Row:
    """The report in the file, which may not be there; SystemExit if it is of other conditions."""
    if path is None or not path.exists():
        return report
    old: Row = json.loads(path.read_text())
    for name in _SAME:
        if old.get(name) != report[name]:
            raise SystemExit(f"{path} is of another {name}: {old.get(name)}, not {report[name]}")
    return old


def add(report: Row, part: str, figures: Figures, *, seconds: float, load: float) -> None:
    """Put a part in; what was there of it goes."""
    report["parts"][part] = {**attrs.asdict(figures), "seconds": seconds, "load_before": load}


def write(path: Path, report: Row) -> None:
    path.write_text(json.dumps(report, indent=1) + "\n")
