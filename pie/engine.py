"""The composition root: opens every channel, starts every actor, hands out addresses.

Everything that decides something lives in the actors. Leaving the context ends the instances
first and the actors after them, also when the caller is cancelled.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

import attrs
import trio

from .activity import Activity
from .actors.batching import Scheduler
from .actors.broker import Broker
from .actors.executor import Device, Executor
from .actors.observer import GuestObserver, Observe
from .actors.persistence import StateFolder
from .actors.store import KeyValues, MemoryKeyValues, SqliteKeyValues, Store
from .actors.supervisor import Supervisor
from .config import EngineConfig
from .errors import UsageError
from .guest.instance import Instance
from .ids import InstanceId
from .mailbox import ask, tell
from .messages import (
    BrokerMessage,
    CountPages,
    DescribeService,
    ExecutorMessage,
    InstanceDescription,
    Launch,
    LaunchContext,
    Launched,
    ListInstances,
    ModelService,
    NoMoreInput,
    Refused,
    Returned,
    SchedulerMessage,
    SendToInstance,
    ServiceStats,
    StoreMessage,
    SupervisorMessage,
    Terminate,
)
from .offload import Offload, in_thread


class HostModel(Protocol):
    """Stands between guests and schedulers in a simulation, to charge the host's own work."""

    def forward(
        self,
        source: trio.MemoryReceiveChannel[SchedulerMessage],
        target: trio.MemorySendChannel[SchedulerMessage],
        /,
    ) -> Awaitable[None]:
        """Pass on everything in order until `source` ends, then close `target`."""
        ...


class GuestProgram(Protocol):
    """Anything that can be launched: a wasm program of a WasmHost, a native coroutine."""

    @property
    def name(self) -> str: ...

    async def run(self, instance: Instance, /) -> Returned | Refused: ...


@attrs.frozen(eq=False, kw_only=True)
class Engine:
    """A running engine: launch programs, talk to instances, look inside."""

    services: tuple[ModelService, ...]
    config: EngineConfig
    _supervisor: trio.MemorySendChannel[SupervisorMessage]
    _broker: trio.MemorySendChannel[BrokerMessage]

    async def launch(
        self,
        program: GuestProgram,
        arguments: Sequence[str] = (),
        *,
        user: str = "local",
        seed: int | None = None,
    ) -> Launched:
        """Start an instance. Raises UsageError when too many run already."""
        return await ask(self._supervisor, Launch(program, tuple(arguments), user, seed))

    async def terminate(self, instance: InstanceId, reason: str = "terminated") -> None:
        """End an instance with event ABORTED; returns when it is gone."""
        await ask(self._supervisor, Terminate(instance, reason))

    async def send(self, instance: InstanceId, content: str | bytes) -> None:
        """Send a message (str) or blob (bytes) to an instance."""
        await ask(self._broker, SendToInstance(instance, content))

    def end_input(self, instance: InstanceId) -> None:
        """Nothing more will be sent to the instance: its pending and later receives fail."""
        tell(self._broker, NoMoreInput(instance))

    async def instances(self, user: str | None = None) -> list[InstanceDescription]:
        """The running instances, oldest first."""
        return await ask(self._supervisor, ListInstances(user))

    async def pages_of(self) -> dict[InstanceId, int]:
        """How many KV pages each running instance holds, of all models together."""
        pages: Counter[InstanceId] = Counter()
        for service in self.services:
            held = await service.ask(CountPages())
            pages.update(held)
        return dict(pages)

    async def stats(self) -> dict[str, ServiceStats]:
        """A snapshot of each model's scheduler, by model name."""
        return {
            service.info.name: await service.ask(DescribeService()) for service in self.services
        }


def _start_actor(actors: trio.Nursery, run: Callable[[], Awaitable[None]]) -> None:
    """Start an actor that cancellation does not reach.

    It ends when its last address is closed, which is after the instances it serves have ended.
    """

    async def outlive_cancellation() -> None:
        with trio.CancelScope(shield=True):
            await run()

    actors.start_soon(outlive_cancellation)


@asynccontextmanager
async def open_engine(
    models: Sequence[Device],
    config: EngineConfig | None = None,
    *,
    offload: Offload = in_thread,
    observe: Observe | None = None,
    guests: GuestObserver | None = None,
    host: HostModel | None = None,
) -> AsyncIterator[Engine]:
    """Run an engine for the duration of the context.

    `observe` makes an observer of each model, `guests` is told of the instances; `host` is for
    simulations.
    """
    config = config or EngineConfig()
    pairs, state = _open_state(config, offload)
    async with trio.open_nursery() as actors:
        start = partial(_start_actor, actors)
        store, store_mailbox = trio.open_memory_channel[StoreMessage](math.inf)
        broker, broker_mailbox = trio.open_memory_channel[BrokerMessage](math.inf)
        supervisor, supervisor_mailbox = trio.open_memory_channel[SupervisorMessage](math.inf)
        start(Store(store_mailbox, pairs, offload, config.max_store_bytes).run)
        start(Broker(broker_mailbox).run)
        services = tuple(
            _start_service(index, model, config, start, state, observe, host)
            for index, model in enumerate(models)
        )

        common = _Wiring(services, broker, store, supervisor, config, offload)

        async def run_guest(program: GuestProgram, context: LaunchContext) -> Returned | Refused:
            return await program.run(common.instance(context))

        with store, broker, ExitStack() as stack:
            for service in services:
                stack.callback(service.close)
            async with trio.open_nursery() as instances:
                boss = Supervisor(
                    supervisor_mailbox,
                    run_guest,
                    services,
                    broker,
                    seed=config.seed,
                    max_instances=config.max_instances,
                    max_per_user=config.max_instances_per_user,
                    observer=guests,
                )
                instances.start_soon(boss.run)
                with supervisor:
                    yield Engine(
                        services=services, config=config, supervisor=supervisor, broker=broker
                    )


def _open_state(config: EngineConfig, offload: Offload) -> tuple[KeyValues, StateFolder | None]:
    """Where pairs and exports are kept. UsageError if the folder cannot be used."""
    if config.state_path is None:
        return MemoryKeyValues(), None
    path = Path(config.state_path)
    exports = path / "exports"
    try:
        for folder in (path, exports):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot keep state in {folder}: {error.strerror}") from error
    return SqliteKeyValues(str(path / "kvs.sqlite")), StateFolder(exports, offload)


def _start_service(
    index: int,
    model: Device,
    config: EngineConfig,
    start: Callable[[Callable[[], Awaitable[None]]], None],
    state: StateFolder | None,
    observe: Observe | None,
    host: HostModel | None,
) -> ModelService:
    """Start a model's executor and scheduler."""
    # The mailbox holds at most what the instances' limits allow; see SchedulerMessage.
    scheduler, mailbox = trio.open_memory_channel[SchedulerMessage](math.inf)
    read = mailbox
    if host is not None:
        onward, read = trio.open_memory_channel[SchedulerMessage](math.inf)
        start(partial(host.forward, mailbox, onward))
    # One batch runs while the next is gathered: a deeper queue could not be reordered any more.
    executor, batches = trio.open_memory_channel[ExecutorMessage](0)
    activity = Activity()
    start(Executor(batches, model).run)
    info = model.runner.info
    observer = None if observe is None else observe(info)
    scheduler_actor = Scheduler(
        read,
        executor,
        info,
        activity,
        config.scheduling,
        state,
        observer,
        max_pages_per_user=config.max_pages_per_user,
    )
    start(scheduler_actor.run)
    return ModelService(index=index, info=info, scheduler=scheduler, activity=activity)


@attrs.frozen
class _Wiring:
    """What all instances of an engine share."""

    services: tuple[ModelService, ...]
    broker: trio.MemorySendChannel[BrokerMessage]
    store: trio.MemorySendChannel[StoreMessage]
    supervisor: trio.MemorySendChannel[SupervisorMessage]
    config: EngineConfig
    offload: Offload

    def instance(self, context: LaunchContext) -> Instance:
        """What the host functions of a launched guest see."""
        return Instance(
            id=context.id,
            uuid=context.uuid,
            user=context.user,
            seed=context.seed,
            arguments=context.arguments,
            models={service.info.name: service for service in self.services},
            broker=self.broker,
            store=self.store,
            supervisor=self.supervisor,
            outbox=context.outbox,
            mover=context.mover,
            limits=self.config.limits,
            offload=self.offload,
        )
