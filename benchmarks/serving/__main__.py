"""Measures the parts one after the other, prints the tables, and writes JSON, Markdown and a plot.

Nothing else should run on the machine. A quick run is for trying things out; its figures mean
little. Parts can be measured in several runs: each adds its own to the file of --json, and the
tables have all that is in it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from pie.model.store import pull

from . import cases, peers, results
from .contenders import OURS, BareLoop, Contender, Pie, Row, Setting
from .machine import facts, features
from .parts import GROUPS, NOBODY, OURS_ALONE, PARTS, Field, named
from .plan import QUICK, USUAL
from .plot import bars
from .processes import ROOT
from .report import markdown
from .turns import FAILURES, awake, explained

MODEL = "smollm2-135m-instruct"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    parts = named(options.only, PARTS, "part")
    names = named(options.peers, list(peers.PEERS), "peer")
    cores = tuple(sorted(os.sched_getaffinity(0))[: options.cores])
    os.sched_setaffinity(0, cores)  # all that is started has the same cores
    home = Path(os.environ.get("PIE_HOME", ROOT / ".build" / "home"))
    model = options.model or pull(MODEL, home)
    report = results.begun(facts(cores), model, quick=options.quick)
    report = results.continued(options.json, report)
    # What was started is ended then, too: it may be held still, and would stay for ever.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="pie-benchmark-") as logs:
        setting = Setting(model, cores, options.logs or Path(logs), features())
        measure(setting, options, parts, names, report)
    print(markdown(report))
    if options.markdown:
        options.markdown.write_text(markdown(report) + "\n")
    if options.svg:
        options.svg.write_text(bars(report))
    return int(any(OURS in report["parts"][part]["failed"] for part in parts))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.serving", description=__doc__)
    groups = "; ".join(f"{name} is {', '.join(each)}" for name, each in GROUPS.items())
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--only", metavar="PART,...", help=f"of {', '.join(PARTS)}; {groups}")
    parser.add_argument(
        "--peers", metavar="NAME,...", help=f"of {', '.join(peers.PEERS)}; '' for none"
    )
    parser.add_argument("--cores", type=int, default=2, help="how many all have to share (2)")
    parser.add_argument("--model", type=Path, help="another GGUF file")
    parser.add_argument("--logs", type=Path, help="a folder to keep what the processes wrote")
    parser.add_argument("--json", type=Path, metavar="FILE", help="what this run is added to")
    parser.add_argument("--markdown", type=Path, metavar="OUT")
    parser.add_argument("--svg", type=Path, metavar="OUT")
    return parser.parse_args(arguments)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measure(
    setting: Setting,
    options: argparse.Namespace,
    parts: Sequence[str],
    names: Sequence[str],
    report: Row,
) -> None:
    """Measure the parts; each is in the report, and in the file, as soon as it has ended."""
    load, began = os.getloadavg()[0], time.perf_counter()
    pie = Pie(setting)
    alone = set(parts) <= OURS_ALONE | NOBODY
    there, missing = ([], {}) if alone else peers.found(setting, names)
    candidates: list[Contender] = [] if set(parts) <= NOBODY else [pie, BareLoop(pie), *there]
    try:
        ready, failed = _started(candidates)
        say(f"started in {time.perf_counter() - began:.0f} s")
        field = Field(
            pie=pie,
            contenders=ready,
            plan=QUICK if options.quick else USUAL,
            say=say,
        )
        for part in parts:
            began = time.perf_counter()
            figures = field.measure(part)
            if part not in NOBODY:
                figures.failed |= failed
                figures.left_out |= missing
            seconds = time.perf_counter() - began
            say(f"{part}: {seconds:.0f} s")
            results.add(report, part, figures, seconds=seconds, load=load)
            if options.json:
                results.write(options.json, report)
    finally:
        for contender in candidates:
            if contender.process is not None:
                contender.process.stop()


def _started(contenders: Sequence[Contender]) -> tuple[list[Contender], dict[str, str]]:
    """Those who are ready, held still, and why the others are not."""
    ready: list[Contender] = []
    failed: dict[str, str] = {}
    for contender in contenders:
        began = time.perf_counter()
        try:
            contender.start()
            with awake(contender):
                cases.warm_up(contender)
        except FAILURES as error:
            failed[contender.name] = f"did not start: {explained(contender, error)}"
            if contender.process is not None:
                contender.process.stop()
            say(f"{contender.name} FAILED: {failed[contender.name]}")
        else:
            ready.append(contender)
            say(f"{contender.name}: ready after {time.perf_counter() - began:.0f} s")
    return ready, failed


if __name__ == "__main__":
    sys.exit(main())
