"""All cases by name. One is run by `python -m benchmarks.host.cases NAME [--quick]`, as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Awaitable, Callable
from functools import partial

import attrs
import trio

from pie.collector import relax_collector
from pie.errors import UsageError

from . import launch, memory, planner, tokens
from .layers import Profile
from .machine import Row, units

Measure = Callable[[bool], Awaitable[Row]]
"""Called with whether it is to be quick."""


@attrs.frozen
class Case:
    """Something to be measured in a process of its own."""

    measure: Measure
    quick: bool = True
    """Whether the quick form of a run contains it."""
    seconds: float = 120
    """After so long it is ended and has failed."""


def _tokens(kind: str, guests: int, context: int = 1) -> Measure:
    async def measure(quick: bool) -> Row:
        return await tokens.measure(kind, guests, quick=quick, context=context)

    return measure


def _profile(kind: str, guests: int) -> Measure:
    async def measure(quick: bool) -> Row:
        profile = Profile()
        watch = tokens.Watch(profile.start, profile.stop)
        row = await tokens.measure(kind, guests, quick=quick, watch=watch)
        return {**row, "samples": profile.samples, "layers": profile.shares()}

    return measure


def _planner(requests: int, pages: int = 1, step_tokens: int | None = None) -> Measure:
    async def measure(quick: bool) -> Row:
        return planner.measure(requests, pages, quick=quick, step_tokens=step_tokens)

    return measure


def _plain(measure: Callable[..., Awaitable[Row]], *arguments: object) -> Measure:
    async def run(quick: bool) -> Row:
        return await measure(*arguments)

    return run


def _warm(kind: str) -> Measure:
    async def measure(quick: bool) -> Row:
        return await launch.warm(kind, quick=quick)

    return measure


def _all() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for kind, most in (("native", 10_000), ("wat", 10_000), ("python", 1_000)):
        for guests in (1, 100, 1_000, 10_000):
            if guests <= most:
                quick = guests <= (100 if kind == "python" else 1_000)
                cases[f"tokens/{kind}/{guests}"] = Case(_tokens(kind, guests), quick, 600)
    for kind in ("native-generate", "python-generate", "native-stream", "python-stream"):
        for guests in (1, 100, 1_000):
            quick = guests == 100
            cases[f"tokens/{kind}/{guests}"] = Case(_tokens(kind, guests), quick, 600)
    for context in (16, 256, 1024, 4096):
        cases[f"context/{context}"] = Case(_tokens("wat", 64, context), context in (16, 1024))
    cases["launch/cold/wat"] = Case(_plain(launch.cold, "wat"))
    cases["launch/cold/python"] = Case(_plain(launch.cold, "python"), quick=False, seconds=300)
    for kind in ("native", "wat", "python"):
        cases[f"launch/warm/{kind}"] = Case(_warm(kind))
    cases["launch/bulk/native"] = Case(_plain(launch.bulk, "native", 1_000), quick=False)
    cases["launch/bulk/wat"] = Case(_plain(launch.bulk, "wat", 1_000))
    cases["launch/bulk/python"] = Case(_plain(launch.bulk, "python", 100), quick=False)
    cases["memory/native/1000"] = Case(_plain(memory.idle, "native", 1_000), quick=False)
    cases["memory/wat/1000"] = Case(_plain(memory.idle, "wat", 1_000))
    cases["memory/wat/10000"] = Case(_plain(memory.idle, "wat", 10_000), quick=False, seconds=600)
    cases["memory/python/100"] = Case(_plain(memory.idle, "python", 100))
    for requests in (10, 100, 1_000, 10_000):
        cases[f"planner/{requests}"] = Case(_planner(requests))
    cases["planner/10000 in steps of 512"] = Case(_planner(10_000, 1, 512))
    for pages in (16, 256):
        cases[f"planner/1000 of {pages} pages"] = Case(_planner(1_000, pages), pages == 16)
    cases["profile/wat"] = Case(_profile("wat", 1_000))
    cases["profile/python"] = Case(_profile("python", 1_000), quick=False, seconds=600)
    return cases


CASES = _all()


async def run(name: str, *, quick: bool) -> Row:
    """Measure a case here and now; what this machine cannot do comes back as `skipped`."""
    before = await units()
    try:
        row = await CASES[name].measure(quick)
    except UsageError as error:
        return {"skipped": str(error)}
    after = await units()
    speed = {unit: (before[unit] + after[unit]) / 2 for unit in before}
    return {**row, **speed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=CASES)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    relax_collector()  # like every process that only serves
    print(json.dumps(trio.run(partial(run, options.name, quick=options.quick))))


if __name__ == "__main__":
    main()
