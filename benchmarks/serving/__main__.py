"""Runs the parts one after the other, prints the tables, and writes JSON, Markdown and a plot.

Nothing else should run on the machine. A quick run takes some minutes and is for trying things
out; its figures mean little.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pie.model.store import pull

from . import cases, disturbance, peers, startup, tax
from .agents import compare as agents
from .contenders import OURS, BareLoop, Contender, Pie, Setting
from .machine import facts, features
from .plan import QUICK, USUAL, Plan
from .plot import bars
from .processes import ROOT
from .report import markdown
from .summary import agent_ratios, judged, speed_ratios

MODEL = "smollm2-135m-instruct"
PARTS = ("speed", "tax", "agents", "neighbour", "latency", "startup")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    chosen = options.only.split(",") if options.only else list(PARTS)
    unknown = set(chosen) - set(PARTS)
    if unknown:
        raise SystemExit(f"no part is called {min(unknown)!r}; there are {', '.join(PARTS)}")
    cores = tuple(sorted(os.sched_getaffinity(0))[: options.cores])
    os.sched_setaffinity(0, cores)  # all that is started has the same cores
    home = Path(os.environ.get("PIE_HOME", ROOT / ".build" / "home"))
    model = options.model or pull(MODEL, home)
    # What was started is ended then, too: it may be held still, and would stay for ever.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="pie-benchmark-") as logs:
        setting = Setting(model, cores, options.logs or Path(logs), features())
        report = measure(setting, QUICK if options.quick else USUAL, chosen, options.peers)
    report = {"quick": options.quick, "minutes": (time.perf_counter() - began) / 60, **report}
    print(markdown(report))
    _write(options, report)
    return int(bool({OURS, *PARTS} & report["failed"].keys()))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.serving", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--only", metavar="PART,...", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--peers", metavar="NAME,...", help="of these only; '' for none")
    parser.add_argument("--cores", type=int, default=2, help="how many all have to share (2)")
    parser.add_argument("--model", type=Path, help="another GGUF file")
    parser.add_argument("--logs", type=Path, help="a folder to keep what the processes wrote")
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--markdown", type=Path, metavar="OUT")
    parser.add_argument("--svg", type=Path, metavar="OUT")
    return parser.parse_args(arguments)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measure(
    setting: Setting, plan: Plan, chosen: Sequence[str], only: str | None
) -> dict[str, Any]:
    """All that was asked for, and the ratios of it."""
    report: dict[str, Any] = {"machine": facts(setting.cores), "failed": {}, "contenders": {}}
    pie = Pie(setting)
    there, report["missing"] = peers.found(setting)
    if only is not None:
        there = [peer for peer in there if peer.name.split(",")[0] in only.split(",")]
    contenders: list[Contender] = [pie, BareLoop(pie), *there]
    try:
        if set(chosen) - {"startup"}:
            contenders = _started(contenders, report)
            _parts(contenders, pie, plan, chosen, report)
    finally:
        for contender in contenders:
            contender.stop()
    if "startup" in chosen:
        report["startup"] = startup.measure(setting.model, plan.starts)
    report["ratios"] = speed_ratios(report.get("speed", {}))
    report["agent_ratios"] = agent_ratios(report.get("agents", {}))
    report["goals"] = judged(report)
    return report


def _started(contenders: Sequence[Contender], report: dict[str, Any]) -> list[Contender]:
    """Those who are ready, held still; the others are reported."""
    ready: list[Contender] = []
    for contender in contenders:
        try:
            report["contenders"][contender.name] = contender.start()
            with cases.awake(contender):
                cases.warm_up(contender)
        except (RuntimeError, OSError, ValueError) as error:
            contender.stop()
            report["failed"][contender.name] = str(error)
            say(f"{contender.name}: FAILED: {error}")
        else:
            ready.append(contender)
            say(f"{contender.name}: ready")
    return ready


def _parts(
    contenders: Sequence[Contender],
    pie: Pie,
    plan: Plan,
    chosen: Sequence[str],
    report: dict[str, Any],
) -> None:
    """Measure what was chosen; a part that fails is reported, and the others follow."""
    if "speed" in chosen:
        report["speed"], failed = cases.compare(contenders, cases.cases(plan), plan, say)
        report["failed"] |= failed
    left = [each for each in contenders if each.name not in report["failed"]]
    if pie not in left:
        return
    if "tax" in chosen:
        report["tax"], failed = tax.measure(pie, plan, say)
        report["failed"] |= failed
    served = [each for each in left if not isinstance(each, BareLoop)]
    parts: dict[str, Callable[[], Any]] = {
        "agents": lambda: agents.compare(served, plan, say),
        "neighbour": lambda: disturbance.neighbour(served, plan, say),
        "latency": lambda: disturbance.latency(pie, plan),
    }
    for name, part in parts.items():
        if name in chosen:
            try:
                report[name] = part()
            except (RuntimeError, OSError, ValueError) as error:
                report["failed"][name] = str(error)
                say(f"{name}: FAILED: {error}")


def _write(options: argparse.Namespace, report: dict[str, Any]) -> None:
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(markdown(report) + "\n")
    if options.svg:
        titles = {case.name: case.title for case in cases.cases(USUAL)}
        title = f"Times the best peer, {report['machine']['processor']}"
        options.svg.write_text(bars(title, report.get("speed", {}), titles))


if __name__ == "__main__":
    sys.exit(main())
