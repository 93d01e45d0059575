"""What the sessions of a server share: the engine, its programs and instances, users and limits."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from pie.engine import Engine, GuestProgram
from pie.errors import UsageError
from pie.ids import InstanceId
from pie.offload import Offload, in_thread
from pie.signals import wait_any

from .authentication import Authentication
from .config import ServerConfig
from .counters import Refusal, ServerState
from .health import Bounds, Health, Report
from .instances import Hosted, Instances
from .limits import Limiter
from .listing import InstanceRow
from .metrics import Metrics
from .programs import Programs
from .uploads import Budget

if TYPE_CHECKING:
    from .session import Session

log = logging.getLogger(__name__)

SHUTTING_DOWN = "the server is shutting down"
GOING_AWAY = 1001
TRY_AGAIN_LATER = 1013
_GOODBYE_SECONDS = 5.0
"""At the end: how long clients may take to read how their instances ended."""


@attrs.define(eq=False, kw_only=True)
class Server:
    """A running server, whatever its clients are connected by."""

    config: ServerConfig
    engine: Engine
    programs: Programs
    authentication: Authentication
    instances: Instances
    limiter: Limiter
    uploading: Budget
    metrics: Metrics
    health: Health
    offload: Offload
    draining: bool = False
    logins: trio.StrictFIFOLock = attrs.field(factory=trio.StrictFIFOLock)
    """One at a time, or each pass of the loop would be a long one when a thousand clients come."""
    sessions: set[Session] = attrs.field(factory=set)
    _strangers: OrderedDict[Session, None] = attrs.field(factory=OrderedDict)
    """Sessions that have not authenticated, oldest first."""

    def refused(self, why: Refusal) -> None:
        """Count it."""
        self.metrics.counters.refusals[why] += 1

    def refuses_connections(self) -> str | None:
        """Why no client may connect now, or None."""
        if self.draining:
            self.refused(Refusal.DRAINING)
            return SHUTTING_DOWN
        if len(self.sessions) >= self.config.max_connections:
            self.refused(Refusal.MAX_CONNECTIONS)
            return f"{len(self.sessions)} clients are connected, the limit (max_connections)"
        return None

    @contextmanager
    def admit(self, session: Session) -> Iterator[None]:
        """The session is there for the duration; until `welcome` it may be sent away for others."""
        if len(self._strangers) >= self.config.max_unauthenticated:
            # Whoever means it has authenticated long before it is the oldest.
            self.refused(Refusal.MAX_UNAUTHENTICATED)
            oldest, _ = self._strangers.popitem(last=False)
            oldest.end(TRY_AGAIN_LATER, "too many connections wait for authentication")
        self.metrics.counters.connections += 1
        self.sessions.add(session)
        self._strangers[session] = None
        try:
            yield
        finally:
            self.sessions.discard(session)
            self._strangers.pop(session, None)

    def welcome(self, session: Session) -> None:
        """The session has authenticated."""
        self._strangers.pop(session, None)

    async def launch(
        self, user: str, program: GuestProgram, name: str, arguments: Sequence[str]
    ) -> Hosted:
        """Start an instance, detached; `name` is the program's in listings. UsageError says why
        there cannot be one.
        """
        if self.draining:
            self.refused(Refusal.DRAINING)
            raise UsageError(SHUTTING_DOWN)
        try:
            with trio.CancelScope(shield=True):  # or nobody would know the instance
                launched = await self.engine.launch(program, arguments, user=user)
        except UsageError:
            self.refused(Refusal.INSTANCES)
            raise
        hosted = self.instances.add(launched, user=user, program=name, arguments=arguments)
        log.info("launched %s", hosted.program, extra={"instance": hosted.uuid, "user": user})
        return hosted

    async def terminate(self, hosted: Hosted, reason: str) -> None:
        """End an instance; one that nobody reads is forgotten, too."""
        if not hosted.attached:
            # Before it ends, or it would take the place of one whose end its client wants to know.
            self.instances.forget(hosted)
        if not hosted.outbox.ended.ready():
            try:
                await self.engine.terminate(hosted.instance, reason)
            except UsageError:  # it has just ended by itself
                await wait_any((hosted.outbox.ended,))

    async def rows(self) -> list[InstanceRow]:
        """All instances, for people."""
        pages, now = await self.engine.pages_of(), trio.current_time()
        queued = Counter[InstanceId]()
        for model in self.metrics.models.values():
            queued += model.queued_of()
        return [
            InstanceRow(
                uuid=hosted.uuid,
                program=hosted.program,
                user=hosted.user,
                status=hosted.status,
                seconds=now - hosted.launched_at,
                pages=pages.get(hosted.instance, 0),
                queued=queued[hosted.instance],
            )
            for hosted in self.instances.of()
        ]

    def state(self) -> ServerState:
        """What it looks like now, for its metrics."""
        return ServerState(
            connections=len(self.sessions),
            instances=Counter(hosted.status.value for hosted in self.instances.of()),
            healthy=self.report().healthy,
        )

    def report(self) -> Report:
        """Whether it makes progress."""
        return self.health.report(trio.current_time(), draining=self.draining)

    async def drain(self, grace_seconds: float) -> None:
        """Take nothing new, let instances end, end the others, say goodbye to all clients."""
        self.draining = True
        running = [h for h in self.instances.of() if not h.outbox.ended.ready()]
        log.info("shutting down: %d instances may go on for %g s", len(running), grace_seconds)
        text = f"{SHUTTING_DOWN}: instances may go on for {grace_seconds:g} s"
        async with trio.open_nursery() as nursery:
            for session in self.sessions:
                nursery.start_soon(session.announce, text)
            with trio.move_on_after(grace_seconds):
                for hosted in running:
                    await wait_any((hosted.outbox.ended,))
            left = [h for h in running if not h.outbox.ended.ready()]
            if left:
                log.info("ending %d instances", len(left))
            nursery.cancel_scope.deadline = trio.current_time() + _GOODBYE_SECONDS
            for hosted in left:
                nursery.start_soon(self.terminate, hosted, SHUTTING_DOWN)
            for session in list(self.sessions):
                nursery.start_soon(session.idle)
        for session in list(self.sessions):
            session.end(GOING_AWAY, SHUTTING_DOWN)


@asynccontextmanager
async def open_server(
    config: ServerConfig,
    engine: Engine,
    programs: Programs,
    authentication: Authentication,
    metrics: Metrics,
    *,
    offload: Offload = in_thread,
) -> AsyncIterator[Server]:
    """A server for the duration of the context. Leaving it forgets all instances."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(metrics.lateness.run)
        yield Server(
            config=config,
            engine=engine,
            programs=programs,
            authentication=authentication,
            instances=Instances(config, metrics.counters, nursery),
            limiter=Limiter(config.quotas),
            uploading=Budget(config.max_uploading_bytes),
            metrics=metrics,
            health=Health(metrics, Bounds(step_seconds=config.step_seconds)),
            offload=offload,
        )
        nursery.cancel_scope.cancel()
