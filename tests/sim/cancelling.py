"""Runs a scenario again and again, and cancels something at one checkpoint after the other.

A checkpoint is the end of a task's step, where it lets others run. Task order and time are a
matter of a seed, so the k-th one is the same in each run, up to what is cancelled there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import trio
from trio.abc import Instrument
from trio.lowlevel import Task

from pie.actors.supervisor import Supervisor
from pie.config import EngineConfig
from pie.engine import Engine, GuestProgram, open_engine
from pie.errors import UsageError
from pie.guest.interfaces import ALL
from pie.guest.wasm import Fuel, WasmHost
from pie.ids import EventCode, InstanceId
from pie.messages import ClientItem, Event, Launched
from pie.offload import Offload, inline
from pie.outbox import Outbox
from pie.programs import WasmProgram
from pie.testing import Outcome, SimulatedGpu, outcome_of
from pie.testing.determinism import run_simulated

from .leaks import Made, everything_made

SCRIPT = Path(__file__).parents[1] / "guests" / "script.wat"
CANCELLED = "cancelled at a checkpoint"
HANGING = "whom it waits for is gone"
PATIENCE = 30.0
"""Virtual seconds that somebody may wait for who is gone, before he is ended."""
LONG = 1000.0
"""Virtual seconds after which a scenario hangs."""

_MINE: ContextVar[object] = ContextVar("_MINE", default=False)


@attrs.define(eq=False)
class Checkpoints(Instrument):
    """Counts the steps of the tasks begun by `begin`'s caller; does something before one."""

    at: int
    act: Callable[[], object]
    see: Callable[[int], None] | None = None
    """Told of every checkpoint."""
    count: int = 0
    tasks: int = 1
    """How many there are; one is the caller of `counting`."""
    error: Exception | None = None

    def before_task_step(self, task: Task) -> None:
        if not task.context.get(_MINE):
            return
        self.count += 1
        try:
            if self.see is not None:
                self.see(self.count)
            if self.count == self.at:
                self.act()
        except Exception as error:  # noqa: BLE001  # Trio would only log it
            self.error = self.error or error

    def task_spawned(self, task: Task) -> None:
        self.tasks += bool(task.context.get(_MINE))

    def task_exited(self, task: Task) -> None:
        self.tasks -= bool(task.context.get(_MINE))

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the steps of the current task and of those it starts."""
        token = _MINE.set(True)
        try:
            yield
        finally:
            _MINE.reset(token)


@attrs.frozen(eq=False)
class _Heard:
    """An outbox that tells when something has come out of it."""

    outbox: Outbox[ClientItem]
    first: trio.Event

    def __aiter__(self) -> _Heard:
        return self

    async def __anext__(self) -> ClientItem:
        item = await self.outbox.__anext__()
        self.first.set()
        return item


@attrs.define(eq=False)
class Stage:
    """Where a scenario's guests and clients play."""

    engine: Engine
    script: WasmProgram
    nursery: trio.Nursery
    cast: dict[str, Launched] = attrs.field(factory=dict)
    outcomes: dict[str, Outcome] = attrs.field(factory=dict)
    _ends: dict[str, trio.Event] = attrs.field(factory=dict)
    _words: dict[str, trio.Event] = attrs.field(factory=dict)

    async def launch(self, name: str, program: GuestProgram, *arguments: str) -> None:
        """Start a guest whose client reads all it sends."""
        await self.launch_unread(name, program, *arguments)
        self.read(name)

    async def launch_unread(self, name: str, program: GuestProgram, *arguments: str) -> None:
        """Start a guest whose client reads nothing until `read` is called."""
        self.cast[name] = await self.engine.launch(program, arguments)
        self._ends[name] = trio.Event()
        self._words[name] = trio.Event()

    def read(self, name: str) -> None:
        self.nursery.start_soon(self._read, name)

    async def _read(self, name: str) -> None:
        heard: Any = _Heard(self.cast[name].outbox, self._words[name])
        self.outcomes[name] = await outcome_of(attrs.evolve(self.cast[name], outbox=heard))
        self._ends[name].set()

    async def word_of(self, name: str) -> None:
        """Wait for the first thing that a guest sends, or its end."""
        await self._words[name].wait()

    async def ended(self, name: str) -> None:
        """Wait for the terminal event of a guest."""
        await self._ends[name].wait()

    async def play(self, name: str, letters: str, export: str = "shared") -> None:
        """Launch the component that does what letters say: see `tests/guests/script.wat`."""
        await self.launch(name, self.script, letters, export)

    async def send(self, name: str, content: str | bytes) -> None:
        """As a client does: the guest may have ended."""
        try:
            await self.engine.send(self.cast[name].instance, content)
        except UsageError as error:
            if "is not running" not in str(error):
                raise


Play: TypeAlias = Callable[[Stage], Awaitable[None]]


@attrs.frozen(kw_only=True, eq=False)
class Scenario:
    """Guests and their clients. `play` returns when all clients have done their part."""

    name: str
    play: Play
    model: Callable[[], SimulatedGpu] = SimulatedGpu
    config: EngineConfig = attrs.field(factory=EngineConfig)
    on_disk: bool = False
    prepare: Callable[[Path], Awaitable[None]] | None = None
    """Fills the folder of one that is on disk, before anything counts."""
    offload: Offload = inline
    needs: dict[str, frozenset[str]] = attrs.field(factory=dict)
    """Guest -> those without whom it may do otherwise or wait for ever."""
    failing: frozenset[str] = frozenset()
    """Guests that end with an exception."""


@attrs.frozen
class At:
    """What is cancelled, and at which checkpoint: the engine, or one of its instances."""

    checkpoint: int
    guest: str | None = None
    instance: InstanceId | None = None


@attrs.frozen
class Run:
    """What a run of a scenario came to."""

    checkpoints: int
    outcomes: dict[str, Outcome]
    lives: dict[str, tuple[InstanceId, list[int]]]
    """Guest -> its number, and the checkpoints at which it is there."""

    def everything_at(self, stride: int) -> Iterator[At]:
        """Each `stride`-th of all things to cancel; guests begin at different offsets."""
        for checkpoint in range(1, self.checkpoints + 1, stride):
            yield At(checkpoint)
        for offset, (name, (instance, there)) in enumerate(self.lives.items()):
            for checkpoint in there[offset % stride :: stride]:
                yield At(checkpoint, name, instance)


@attrs.define(eq=False)
class Performance:
    """One run of a scenario."""

    scenario: Scenario
    host: WasmHost
    script: WasmProgram
    at: At
    wanted: dict[str, Outcome]
    """The outcomes of a run in which nothing is cancelled; empty in that run."""
    made: Made
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    points: Checkpoints = attrs.field(init=False)
    _running: list[tuple[int, InstanceId]] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        cancel = self.scope.cancel if self.at.guest is None else self._cancel_guest
        see = None if self.wanted else self._see
        self.points = Checkpoints(self.at.checkpoint, cancel, see)

    async def run(self) -> Run:
        stage: Stage | None = None
        with trio.fail_after(LONG), self._folder() as state:
            if self.scenario.prepare is not None:
                await self.scenario.prepare(Path(state or ""))
            stage = await self._count(state)
        self._check_end()
        return Run(self.points.count, stage.outcomes if stage else {}, self._lives(stage))

    async def _count(self, state: str | None) -> Stage | None:
        stage: Stage | None = None
        with self.points.counting():
            config = attrs.evolve(self.scenario.config, state_path=state)
            running = open_engine([self.scenario.model()], config, offload=self.scenario.offload)
            with self.scope:
                async with running as engine, trio.open_nursery() as nursery:
                    stage = Stage(engine, self.script, nursery)
                    await self._perform(stage)
        return stage

    def _folder(self) -> AbstractContextManager[str | None]:
        return tempfile.TemporaryDirectory() if self.scenario.on_disk else nullcontext()

    async def _perform(self, stage: Stage) -> None:
        await self.scenario.play(stage)
        await self._await_all(stage)
        self._check_outcomes(stage)
        if self.at.guest is not None:
            await settled(stage.engine)
            self.made.check_quiet()
            await self._goes_on(stage)

    async def _await_all(self, stage: Stage) -> None:
        """Wait for those who can end; the others wait for somebody who was cancelled."""
        hurt = self._hurt()
        for name in stage.cast:
            if name in hurt:
                with trio.move_on_after(PATIENCE) as waiting:
                    await stage.ended(name)
                if waiting.cancelled_caught:
                    await stage.engine.terminate(stage.cast[name].instance, HANGING)
            await stage.ended(name)

    def _hurt(self) -> set[str]:
        """Who may do otherwise than in a run in which nothing is cancelled."""
        victim = self.at.guest
        if victim is None:
            return set()
        return {victim} | {name for name, needs in self.scenario.needs.items() if victim in needs}

    def _check_outcomes(self, stage: Stage) -> None:
        hurt = self._hurt()
        for name, outcome in stage.outcomes.items():
            if not self.wanted:
                fails = name in self.scenario.failing
                code = EventCode.EXCEPTION if fails else EventCode.COMPLETED
                assert outcome.event.code is code, f"{name}: {outcome.event}"
            elif name not in hurt:
                assert outcome == self.wanted[name], f"{name}: {outcome} {self.wanted[name]}"
            elif name == self.at.guest and outcome != self.wanted[name]:
                assert outcome.event == Event(EventCode.ABORTED, CANCELLED), outcome.event

    async def _goes_on(self, stage: Stage) -> None:
        """Somebody new is served as if nothing had been."""
        launched = await stage.engine.launch(self.script, ("atttt", ""))
        assert (await outcome_of(launched)).text == "utrh"
        await settled(stage.engine)
        self.made.check_quiet()

    def _check_end(self) -> None:
        self.made.check_ended()
        assert self.host.guests == 0, "the host has guests"
        assert not self.host._cpu.locked(), "somebody has kept the processor"
        assert self.points.error is None, self.points.error
        assert self.points.tasks == 1, f"{self.points.tasks - 1} tasks have not ended"
        if self.at.guest is None and self.at.checkpoint:
            assert self.scope.cancel_called

    @property
    def _supervisor(self) -> Supervisor | None:
        supervisors = self.made.things[Supervisor]
        return supervisors[-1] if supervisors else None

    def _cancel_guest(self) -> None:
        assert self._supervisor is not None
        assert self.at.instance is not None
        running = self._supervisor._running[self.at.instance]
        running.reason = CANCELLED
        running.scope.cancel()

    def _see(self, checkpoint: int) -> None:
        if self._supervisor is not None:
            self._running += [(checkpoint, instance) for instance in self._supervisor._running]

    def _lives(self, stage: Stage | None) -> dict[str, tuple[InstanceId, list[int]]]:
        return {
            name: (launched.instance, [k for k, i in self._running if i == launched.instance])
            for name, launched in (stage.cast.items() if stage else ())
        }


async def settled(engine: Engine) -> None:
    """Let a running step end (R10), and the actors read what they were told."""
    await trio.sleep(1)
    await engine.stats()


@attrs.frozen(eq=False)
class Theatre:
    """A host with the component that all scenarios use."""

    host: WasmHost
    script: WasmProgram
    seed: int = 0

    def undisturbed(self, scenario: Scenario) -> Run:
        return self._perform(scenario, At(0), {})

    def cancelled(self, scenario: Scenario, at: At, wanted: dict[str, Outcome]) -> Run:
        """A run with something cancelled; AssertionError, naming it, if anything is left."""
        try:
            return self._perform(scenario, at, wanted)
        except BaseException as error:
            error.add_note(f"scenario {scenario.name!r}, {at}, seed {self.seed}")
            raise

    def _perform(self, scenario: Scenario, at: At, wanted: dict[str, Outcome]) -> Run:
        with everything_made() as made:
            one = Performance(scenario, self.host, self.script, at, wanted, made)
            return run_simulated(one.run, seed=self.seed, instruments=(one.points,))


@contextmanager
def theatre(*, seed: int = 0) -> Iterator[Theatre]:
    """A host whose guests are preempted often; task order by `seed`."""
    host = WasmHost(ALL, preemption=Fuel(5_000, 0.001), offload=inline)

    async def load() -> WasmProgram:
        return WasmProgram(host, await host.load(SCRIPT))

    try:
        yield Theatre(host, run_simulated(load, seed=seed), seed)
    finally:
        host.close()
