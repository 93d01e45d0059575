"""Instances: launch, terminate, list, and the terminal event exactly once (contract G3, R10)."""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeAlias, assert_never

import attrs
import trio

from pie.activity import Mover
from pie.errors import Closed, OutOfResources, PassFailed, PieError, UsageError
from pie.ids import EventCode, InstanceId
from pie.mailbox import answering, draining, tell
from pie.messages import (
    BrokerMessage,
    ClientItem,
    CloseMailbox,
    EndInstance,
    Event,
    InstanceDescription,
    Launch,
    LaunchContext,
    Launched,
    ListInstances,
    ModelService,
    OpenInstance,
    OpenMailbox,
    Refused,
    Returned,
    SupervisorMessage,
    Terminate,
)
from pie.outbox import Outbox

from .observer import GuestObserver

log = logging.getLogger(__name__)

RunGuest: TypeAlias = Callable[[Any, LaunchContext], Awaitable[Returned | Refused]]
"""Run a program to its end and tear its guest down, in every ending. Raises GuestError for the
guest's mistakes, OutOfResources where memory can never suffice; anything else is our bug."""


@attrs.define(eq=False)
class Running:
    """One live instance."""

    description: InstanceDescription
    scope: trio.CancelScope
    reason: str = ""
    """Why it is being ended, once it is."""
    error: PieError | None = None
    """Why it is being ended, if that is not somebody's wish."""
    ended: list[Terminate] = attrs.field(factory=list)
    """Who wants to know when it is gone."""

    def evict(self, error: PieError) -> None:
        """End it with `error` as its terminal event."""
        self.error = self.error or error
        self.scope.cancel()

    def event_of_end(self) -> Event:
        """The terminal event of an instance that was cancelled."""
        if self.error is not None:
            return _event_of(self.error)
        return Event(EventCode.ABORTED, self.reason or "the engine is shutting down")


class Supervisor:
    """Sole owner of the instances; each runs in a scope of its own."""

    def __init__(
        self,
        mailbox: trio.MemoryReceiveChannel[SupervisorMessage],
        run_guest: RunGuest,
        services: Sequence[ModelService],
        broker: trio.MemorySendChannel[BrokerMessage],
        *,
        seed: int,
        max_instances: int,
        max_per_user: int | None = None,
        observer: GuestObserver | None = None,
    ) -> None:
        self._mailbox = mailbox
        self._run_guest = run_guest
        self._services = services
        self._broker = broker
        self._seed = seed
        self._max_instances = max_instances
        self._max_per_user = max_per_user
        self._observer = observer
        self._running: dict[InstanceId, Running] = {}
        self._running_of: Counter[str] = Counter()
        """By user: counting them at each launch made the thousandth cost what ten cost."""
        self._launches: dict[str, int] = {}
        self._next_id = 0

    async def run(self) -> None:
        """Serve until the last address is closed, then end the instances that are left."""
        with draining(self._mailbox):
            async with trio.open_nursery() as instances:
                async for message in self._mailbox:
                    with answering(message):
                        self._handle(message, instances)
                for running in self._running.values():
                    running.reason = "the engine is shutting down"
                instances.cancel_scope.cancel()

    def _handle(self, message: SupervisorMessage, instances: trio.Nursery) -> None:
        match message:
            case Launch():
                self._launch(message, instances)
            case Terminate(instance, reason):
                running = self._running.get(instance)
                if running is None:
                    raise UsageError(f"instance {instance} is not running")
                running.reason = running.reason or reason
                running.ended.append(message)
                running.scope.cancel()
            case ListInstances(user):
                message.reply.answer(self._list(user))
            case _:
                assert_never(message)

    def _list(self, user: str | None) -> list[InstanceDescription]:
        now = trio.current_time()
        return [
            attrs.evolve(running.description, seconds=now - running.description.seconds)
            for running in self._running.values()
            if user is None or running.description.user == user
        ]

    def _launch(self, message: Launch, instances: trio.Nursery) -> None:
        if len(self._running) >= self._max_instances:
            raise UsageError(f"{len(self._running)} instances are running, the limit")
        own = self._running_of[message.user]
        if self._max_per_user is not None and own >= self._max_per_user:
            raise UsageError(f"{own} instances of user {message.user!r} are running, the limit")
        number = self._launches.get(message.user, 0)
        self._launches[message.user] = number + 1
        instance = InstanceId(self._next_id)
        watch = None if self._observer is None else partial(self._observer.moving, instance)
        identity = _digest(self._seed, message.user, number)
        context = LaunchContext(
            id=instance,
            uuid=str(uuid.UUID(bytes=identity[:16], version=4)),
            user=message.user,
            seed=int.from_bytes(identity[16:24], "little")
            if message.seed is None
            else message.seed % 2**64,
            arguments=message.arguments,
            mover=Mover([service.activity for service in self._services], watch),
            outbox=Outbox[ClientItem](),
        )
        self._next_id += 1
        name = getattr(message.program, "name", "") or type(message.program).__name__
        description = InstanceDescription(
            context.id, context.uuid, name, message.user, trio.current_time()
        )
        running = self._running[context.id] = Running(description, trio.CancelScope())
        self._running_of[message.user] += 1
        if self._observer is not None:
            self._observer.launched(context, name)
        tell(self._broker, OpenMailbox(context.id, message.user))
        for service in self._services:
            service.tell(
                OpenInstance(context.id, message.user, context.seed, context.mover, running.evict)
            )
        # A launch counts as moving from here, before its task has run (the gather rule).
        context.mover.start()
        instances.start_soon(self._run_instance, message.program, context, running)
        message.reply.answer(Launched(context.id, context.uuid, context.outbox))

    async def _run_instance(self, program: Any, context: LaunchContext, running: Running) -> None:
        last: Event | None = None
        try:
            with running.scope:
                last = await self._run_to_event(program, context)
        finally:
            last = last or running.event_of_end()  # cancelled, maybe in a group
            context.mover.stop()
            with trio.CancelScope(shield=True):
                await self._release(context.id)
            del self._running[context.id]
            self._running_of[context.user] -= 1
            if not self._running_of[context.user]:
                del self._running_of[context.user]
            if self._observer is not None:
                self._observer.gone(context.id, last)
            context.outbox.finish(last)
            for message in running.ended:
                message.reply.answer(None)

    async def _run_to_event(self, program: Any, context: LaunchContext) -> Event:
        try:
            outcome = await self._run_guest(program, context)
            context.mover.stop()
            unmet = await self._drain(context.id)
            if isinstance(outcome, Refused):
                return Event(EventCode.EXCEPTION, outcome.text)
            if unmet is not None:
                text = f"a pass failed and the guest never looked: {unmet}"
                return Event(EventCode.EXCEPTION, text)
            return Event(EventCode.COMPLETED, outcome.text)
        except PieError as error:
            return _event_of(error)
        except Exception as error:  # the boundary where our own bugs end one guest
            reference = f"{self._seed:x}-{context.id}"
            log.exception("bug in a host call of instance %s, reference %s", context.id, reference)
            text = f"internal error, reference {reference}: {type(error).__name__}"
            return Event(EventCode.SERVER_ERROR, text)

    async def _drain(self, instance: InstanceId) -> PassFailed | None:
        """Let what a returned guest submitted run to its end (R10); a failure it never met."""
        unmet: PassFailed | None = None
        for service in self._services:
            try:
                await service.ask(EndInstance(instance, drain=True))
            except PassFailed as error:
                unmet = error
        return unmet

    async def _release(self, instance: InstanceId) -> None:
        for service in self._services:
            try:
                await service.ask(EndInstance(instance, drain=False))
            except Closed:
                log.debug("model %s has ended before instance %s", service.info.name, instance)
        tell(self._broker, CloseMailbox(instance))


def _event_of(error: PieError) -> Event:
    code = EventCode.OUT_OF_RESOURCES if isinstance(error, OutOfResources) else EventCode.EXCEPTION
    return Event(code, str(error))


def _digest(seed: int, user: str, number: int) -> bytes:
    """Identity and seed of a user's launch: the same in every run with the same engine seed."""
    return hashlib.sha256(f"{seed}\0{user}\0{number}".encode()).digest()
