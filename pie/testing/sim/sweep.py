"""Runs of a scenario, one seed after the other."""

from __future__ import annotations

import gc
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TextIO

import attrs
import trio

from pie.errors import leaves
from pie.probes import listening
from pie.testing.determinism import run_simulated

from .journal import Journal
from .plan import make_plan
from .running import Run
from .scenario import Scenario
from .verdict import Solo, judge
from .worlds import PACE, real_world, virtual_world


@attrs.frozen(kw_only=True)
class Report:
    """What one run was like; equal for equal seeds."""

    scenario: str
    seed: int
    digest: str
    """SHA-256 of the event log."""
    events: int
    guests: int
    passes: int
    virtual_seconds: float
    reached: Counter[str]
    """How often rare paths were taken."""


class SimulationFailed(AssertionError):
    """An invariant is broken, a result is wrong, a run does not end, or the engine has a bug."""

    def __init__(self, scenario: str, seed: int, reason: str, tail: str, digest: str) -> None:
        super().__init__(f"scenario {scenario}, seed {seed}: {reason}")
        self.scenario, self.seed, self.reason = scenario, seed, reason
        self.tail = tail
        """The last events."""
        self.digest = digest


def run_seed(
    scenario: Scenario, seed: int, *, log: TextIO | None = None, solo: Solo | None = None
) -> Report:
    """One run in virtual time, decided by `seed` alone. Raises SimulationFailed.

    Not inside a run of Trio. `log` gets the events, a line each. `solo` remembers from run to run
    what guests give alone.
    """
    plan = make_plan(scenario, seed)

    def start(run: Run) -> None:
        run_simulated(run.main, seed=seed, instruments=[run.watchdog])

    return _run(Run(plan, virtual_world(plan), Journal(log)), start, solo)


def run_threaded(
    scenario: Scenario, seed: int, *, log: TextIO | None = None, solo: Solo | None = None
) -> Report:
    """The same guests on the same machine with real threads, in real time: no two runs are equal,
    but invariants and results must hold. Raises SimulationFailed.
    """
    plan = make_plan(scenario, seed, pace=PACE)

    def start(run: Run) -> None:
        trio.run(run.main, instruments=[run.watchdog])

    return _run(Run(plan, real_world(plan), Journal(log)), start, solo)


def _run(run: Run, start: Callable[[Run], None], solo: Solo | None) -> Report:
    plan, journal = run.plan, run.journal
    with ExitStack() as stack:
        if plan.machine.disk:
            run.state_path = stack.enter_context(tempfile.TemporaryDirectory())
        bugs = stack.enter_context(_bugs())
        stack.enter_context(_no_collections())
        try:
            with listening(run.reach):
                start(run)
            assert not bugs, bugs[0]
            judge(run, run.world.program, solo or Solo())
        except Exception as error:  # whatever the engine raises is the finding
            reason = bugs[0] if bugs else _reason(error)
            raise SimulationFailed(
                plan.scenario.name, plan.seed, reason, journal.tail, journal.digest
            ) from error
    return Report(
        scenario=plan.scenario.name,
        seed=plan.seed,
        digest=journal.digest,
        events=journal.lines,
        guests=len(plan.guests),
        passes=run.watcher.finished_passes,
        virtual_seconds=run.seconds,
        reached=+run.reached,
    )


def _reason(error: BaseException) -> str:
    """The first cause in groups of groups, in words."""
    error = next(leaves(error))
    if isinstance(error, AssertionError):
        return str(error) or "an assertion of the engine failed"
    return f"{type(error).__name__}: {error}"


@contextmanager
def _bugs() -> Iterator[list[str]]:
    """What the engine logs as its own bugs meanwhile."""
    found: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            error = record.exc_info[1] if record.exc_info else None
            found.append(f"{record.getMessage()}: {error!r}")

    listener = Listener(logging.ERROR)
    logger = logging.getLogger("pie")
    logger.addHandler(listener)
    try:
        yield found
    finally:
        logger.removeHandler(listener)


@contextmanager
def _no_collections() -> Iterator[None]:
    """When garbage is collected depends on the process's past, and finalizers do things."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def steady_memory() -> Iterator[None]:
    """Runs in here need not look at what was there before whenever they collect garbage."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@attrs.define
class Summary:
    """What a sweep has seen."""

    scenario: str
    seeds: int = 0
    events: int = 0
    guests: int = 0
    passes: int = 0
    virtual_seconds: float = 0.0
    real_seconds: float = 0.0
    reached: Counter[str] = attrs.field(factory=Counter)
    failures: list[SimulationFailed] = attrs.field(factory=list)

    def add(self, report: Report) -> None:
        self.events += report.events
        self.guests += report.guests
        self.passes += report.passes
        self.virtual_seconds += report.virtual_seconds
        self.reached += report.reached


def sweep(
    scenario: Scenario,
    seeds: Iterable[int],
    *,
    threaded: bool = False,
    most_failures: int = 1,
    log: TextIO | None = None,
    solo: Solo | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Summary:
    """One run per seed, until `most_failures` have failed; real ones if `threaded`.

    `log` gets the events, `say` what is going on.
    """
    run = run_threaded if threaded else run_seed
    summary, began = Summary(scenario.name), time.monotonic()
    solo = solo or Solo()
    with steady_memory():
        for seed in seeds:
            say(f"scenario {scenario.name}, seed {seed}")
            if log is not None:
                log.write(f"scenario {scenario.name}, seed {seed}\n")
            try:
                summary.add(run(scenario, seed, log=log, solo=solo))
            except SimulationFailed as failure:
                summary.failures.append(failure)
            summary.seeds += 1
            summary.real_seconds = time.monotonic() - began
            if len(summary.failures) >= most_failures:
                break
    return summary
