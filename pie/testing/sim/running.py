"""One run: an engine, its guests and their clients, from a plan to a verdict."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import attrs
import inferlet
import trio
from inferlet import host

from pie.actors.executor import Device
from pie.actors.observer import Observer
from pie.batch import ModelInfo
from pie.config import EngineConfig, Limits, Scheduling
from pie.engine import Engine, GuestProgram, open_engine
from pie.guest.instance import Instance
from pie.messages import Refused, Returned
from pie.offload import Offload
from pie.programs import NativeProgram
from pie.testing.engine import Outcome

from .client import Client
from .journal import Journal
from .plan import GuestPlan, Plan
from .programs.program import raw_pass
from .watchdog import Watchdog
from .watcher import Watcher

SHUT_DOWN = "the engine is shutting down"


@attrs.frozen(kw_only=True)
class World:
    """What a run takes place in: virtual time without threads, or real time with them."""

    device: Callable[[Plan, Counter[str]], Device]
    program: Callable[[GuestPlan], GuestProgram]
    offload: Offload
    limit_seconds: float
    """A run that takes longer is stuck."""
    settle_seconds: float
    """In which files and steps come to rest, when all guests have ended."""


@attrs.define(eq=False)
class Run:
    """The state of one run."""

    plan: Plan
    world: World
    journal: Journal
    state_path: str | None = None
    """Folder of a machine with a disk."""
    watchdog: Watchdog = attrs.field(factory=Watchdog)
    reached: Counter[str] = attrs.field(factory=Counter)
    outcomes: dict[int, Outcome] = attrs.field(factory=dict)
    """By number of the guest; of those that were launched."""
    seconds: float = 0.0
    watcher: Watcher = attrs.field(init=False)
    _clients: dict[int, Client] = attrs.field(factory=dict)
    _instances: dict[int, weakref.ref[Instance]] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.watcher = Watcher(self.journal, self.plan.machine, self.reached)

    def reach(self, what: str) -> None:
        """Note that something rare has happened."""
        self.reached[what] += 1

    async def main(self) -> None:
        """All of it. An AssertionError is a broken invariant."""
        began = trio.current_time()
        with self.watchdog.scope, trio.move_on_after(self.world.limit_seconds) as limit:
            await self._live()
        self.seconds = trio.current_time() - began
        if limit.cancelled_caught or self.watchdog.scope.cancelled_caught:
            left = self._left() or "all guests have ended"
            raise AssertionError(f"stuck: {left}; {self.watcher.state()}")

    def _left(self) -> str:
        left = [
            f"guest {guest.number} ({guest.program.name})"
            for guest in self.plan.guests
            if guest.number in self._clients and guest.number not in self.outcomes
        ]
        return f"no end of {', '.join(left)}" if left else ""

    async def _live(self) -> None:
        shut_down_at = self.plan.shut_down_at
        async with self._engine() as engine:
            await engine.stats()  # when it answers, all actors have started
            tasks = self.watchdog.tasks()
            with trio.CancelScope() as open_hours:
                if shut_down_at is not None:
                    open_hours.deadline = trio.current_time() + shut_down_at
                async with trio.open_nursery() as clients:
                    for guest in self.plan.guests:
                        clients.start_soon(self._serve, engine, guest)
            if open_hours.cancelled_caught:
                self.journal.note("shut down")
                self.reached["an engine shut down with guests in it"] += 1
            else:
                await self._check_nothing_is_left(engine, tasks)
        for number, client in self._clients.items():
            if number not in self.outcomes:
                await client.read_on()
                self._note_end(number, client)
        self.watcher.check_empty(exports=open_hours.cancelled_caught)

    @asynccontextmanager
    async def _engine(self) -> AsyncIterator[Engine]:
        machine = self.plan.machine
        config = EngineConfig(
            seed=self.plan.seed,
            limits=Limits(max_passes_in_flight=machine.max_passes_in_flight),
            scheduling=Scheduling(
                step_tokens=machine.step_tokens,
                host_pages=machine.host_pages,
                ageing_seconds=machine.ageing_seconds,
            ),
            state_path=self.state_path,
        )

        def observe(_: ModelInfo) -> Observer:
            return self.watcher

        device = self.world.device(self.plan, self.reached)
        offload = self.world.offload
        async with open_engine([device], config, offload=offload, observe=observe) as engine:
            yield engine

    # --------------------------------------------------------------------- clients

    async def _serve(self, engine: Engine, guest: GuestPlan) -> None:
        await trio.sleep(guest.arrives_at)
        program = _Noticed(self.world.program(guest), partial(self._notice, guest.number))
        self.journal.note(f"launch {guest.number} {guest.program.name} {guest.arguments}")
        launched = await engine.launch(program, guest.arguments, user=guest.user, seed=guest.seed)
        client = self._clients[guest.number] = Client(guest, engine, launched, self.journal)
        await client.run()
        self._note_end(guest.number, client)

    def _notice(self, number: int, instance: Instance) -> None:
        self._instances[number] = weakref.ref(instance)

    def _note_end(self, number: int, client: Client) -> None:
        outcome = self.outcomes[number] = client.outcome()
        self.reached[f"event {outcome.event.code.name}"] += 1
        self.journal.note(f"guest {number} ended: {outcome.event.code.name} {outcome.event.text}")

    # ------------------------------------------------------------------------- end

    async def _check_nothing_is_left(self, engine: Engine, tasks: Counter[str]) -> None:
        for user in self.plan.users:
            launched = await engine.launch(NativeProgram(_release_all), user=user)
            async for _ in launched.outbox:
                pass
        await trio.sleep(self.world.settle_seconds)
        self.watcher.check_empty(exports=False)
        assert await engine.instances() == [], "instances are left"
        moving = [service.activity.moving for service in engine.services]
        assert not any(moving), f"{moving[0]} guests or messages still count as moving"
        left = self.watchdog.tasks() - tasks
        assert not left, f"tasks are left: {', '.join(left)}"
        gc.collect()
        kept = [number for number, instance in self._instances.items() if instance() is not None]
        assert not kept, f"somebody still holds the instances of guests {kept}"


async def _release_all(_: list[str]) -> None:
    """Let go of all that a user has exported, run one more step, and ask the store: actors still
    have their hands on the last thing they did, whose errors hold frames of guests.
    """
    await inferlet.store.keys()
    model = await inferlet.get_model()
    queue = await host.create_queue(model.handle)
    for name, _size in await host.all_exported(queue, host.KV_PAGE):
        await host.release_exported(queue, host.KV_PAGE, name)
    page = await host.allocate(queue, host.KV_PAGE, 1)
    await host.execute(await raw_pass(queue, [0], 0, page, 1))


@attrs.frozen(eq=False)
class _Noticed:
    """A program that tells of its instance."""

    program: GuestProgram
    notice: Callable[[Instance], None]

    @property
    def name(self) -> str:
        return self.program.name

    async def run(self, instance: Instance, /) -> Returned | Refused:
        self.notice(instance)
        return await self.program.run(instance)
