"""What ordinary clients feel of hostile ones, and what a message costs the server.

    python -m benchmarks.server [--quick] [--only NAME,...] [--nice 19] [--json OUT] [--layers]

Eight clients stream tokens from a simulated model with steps of 20 ms, undisturbed and beside each
kind of hostile client, in turns. A wrong token fails the run; timings decide nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.host.__main__ import machine, wide_console

from .attacks import ATTACKS
from .measure import QUICK, USUAL, Bench, deliveries, disturbances
from .report import felt, show

DELIVER = "deliver"
_STEP_SECONDS = 0.02


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    names = options.only.split(",") if options.only else [*ATTACKS, DELIVER]
    plan = QUICK if options.quick else USUAL
    facts, results = machine(), dict[str, dict[str, Any]]()
    kinds = [name for name in names if name != DELIVER]
    with (
        tempfile.TemporaryDirectory() as folder,
        Bench.open(Path(folder), f"--step={_STEP_SECONDS}") as bench,
    ):
        if kinds:
            say = Console(stderr=True, style="dim").print
            results["felt"] = felt(disturbances(bench, kinds, plan, options.nice, say))
        if DELIVER in names:
            results["deliveries"] = deliveries(bench, plan, layers=options.layers)
    show(results, wide_console())
    if options.json:
        report = {"machine": facts, "quick": options.quick, "nice": options.nice, **results}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.server", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument(
        "--only", metavar="NAME,...", help=f"of {', '.join(ATTACKS)}, {DELIVER}", default=""
    )
    parser.add_argument("--nice", type=int, default=19, help="of the hostile clients (19)")
    parser.add_argument("--layers", action="store_true", help="also by layer: costs some itself")
    parser.add_argument("--json", type=Path, metavar="OUT")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
