"""One client: its messages are read in order and answered, until it leaves or is sent away."""

from __future__ import annotations

import itertools
import logging

import trio

from pie.errors import UsageError

from .authentication import Answer
from .config import Auth
from .counters import Refusal
from .dispatch import Dispatcher
from .frames import (
    ClientFrame,
    Identification,
    InternalAuthenticate,
    ListInstances,
    Response,
    ServerEvent,
    ServerFrame,
    SignalInstance,
    Signature,
    UploadBlob,
    UploadProgram,
)
from .limits import UserLimits
from .locking import acquire
from .protocol import ProtocolError, decode, encode, refusal
from .requests import Client
from .server import Server
from .transport import Gone, Transport

log = logging.getLogger(__name__)

INVALID_DATA = 1007
POLICY_VIOLATION = 1008
INTERNAL_ERROR = 1011
_UNREADABLE = 16
"""Messages in a row that cannot be read: then the connection is closed."""
_REQUESTS = 64
"""Requests of a connection that wait for their answer: the next is not read before one has it."""
_GOODBYE_SECONDS = 2.0
_bugs = itertools.count(1)


class Session:
    """Serves one connection. When it ends, its instances are detached and go on."""

    def __init__(self, server: Server, transport: Transport) -> None:
        self.server = server
        self._transport = transport
        self._gate = server.authentication.gate()
        self._dispatcher: Dispatcher | None = None
        """Once it has authenticated."""
        self._turn = trio.StrictFIFOLock()
        self._unreadable = 0
        self._scope = trio.CancelScope()
        self._goodbye: tuple[int, str] | None = None

    async def run(self) -> None:
        """Serve until the end of the connection, whoever ends it."""
        with self.server.admit(self):
            try:
                with self._scope:
                    async with trio.open_nursery() as self._nursery:
                        self._nursery.start_soon(self._watch_login)
                        await self._read()
                        self._nursery.cancel_scope.cancel()
            except Exception:  # the boundary where our own bugs end one session
                log.exception("bug in a session", extra={"peer": self._transport.peer})
                self._goodbye = (INTERNAL_ERROR, "internal error")
            finally:
                self._leave()
        if self._goodbye is not None:
            with trio.move_on_after(_GOODBYE_SECONDS, shield=True):
                await self._transport.close(*self._goodbye)

    def end(self, code: int, reason: str) -> None:
        """Send the client away."""
        self._goodbye = self._goodbye or (code, reason)
        self._scope.cancel()

    async def announce(self, text: str) -> None:
        """Tell the client something about the server; waits for a slow one."""
        await self._reply(ServerEvent(message=text))

    async def idle(self) -> None:
        """Until it follows no instance."""
        if self._dispatcher is not None:
            await self._dispatcher.idle()

    async def _send(self, frame: ServerFrame) -> None:
        """Send whole, in the order of the calls; waits for a slow client. Raises Gone."""
        await acquire(self._turn)
        try:
            await self._transport.send(encode(frame))
        finally:
            self._turn.release()

    async def _reply(self, frame: ServerFrame) -> None:
        """Send, unless the client has left."""
        try:
            await self._send(frame)
        except Gone:
            log.debug("left before a reply", extra={"peer": self._transport.peer})

    async def _refuse(self, frame: ClientFrame, text: str) -> None:
        """Say why a request is not done, as the kind of reply that its client waits for."""
        await self._reply(refusal(frame, text) or ServerEvent(message=text))

    # ------------------------------------------------------------------ reading

    async def _read(self) -> None:
        while True:
            try:
                data = await self._transport.receive()
            except Gone:
                return
            try:
                frame = decode(_binary(data))
            except ProtocolError as error:
                await self._misread(error)
            else:
                self._unreadable = 0
                await self._take(frame)

    async def _misread(self, error: ProtocolError) -> None:
        self.server.metrics.counters.protocol_errors += 1
        self._unreadable += 1
        if self._unreadable >= _UNREADABLE:
            self.end(INVALID_DATA, f"{self._unreadable} messages could not be read: {error}")
        await self._reply(error.reply or ServerEvent(message=str(error)))
        await self._pace()

    async def _take(self, frame: ClientFrame) -> None:
        if isinstance(frame, Identification | Signature | InternalAuthenticate):
            await self._authenticate(frame)
        elif self._dispatcher is None:
            await self._refuse(frame, "Not authenticated: send `identification` first")
        elif await self._may(frame, self._dispatcher.client.limits):
            await self._dispatcher.start(frame)

    async def _may(self, frame: ClientFrame, limits: UserLimits) -> bool:
        """Whether the quota of messages allows it; what no reply can refuse waits until it does."""
        if isinstance(frame, SignalInstance | UploadProgram | UploadBlob | ListInstances):
            await self._pace()
            return True
        try:
            limits.request(trio.current_time())
        except UsageError as error:
            self.server.refused(Refusal.MESSAGES_PER_SECOND)
            await self._refuse(frame, str(error))
            await self._pace()
            return False
        return True

    async def _pace(self) -> None:
        """Read no faster than the user's messages may come."""
        if self._dispatcher is not None:
            # Nobody sets an event when there is a token again.
            while delay := self._dispatcher.client.limits.message(trio.current_time()):  # noqa: ASYNC110
                await trio.sleep(delay)

    # ------------------------------------------------------------------ authentication

    async def _watch_login(self) -> None:
        seconds = self.server.config.login_seconds
        await trio.sleep(seconds)
        if self._dispatcher is None:
            self.server.refused(Refusal.LOGIN_SECONDS)
            self.end(POLICY_VIOLATION, f"not authenticated within {seconds:g} s")

    async def _authenticate(self, frame: Identification | Signature | InternalAuthenticate) -> None:
        async with self.server.logins:
            if self.server.authentication.mode is Auth.KEYS:
                # Else the gate would read a changed file on the loop.
                await self.server.offload(self.server.authentication.refresh)
            answer = self._gate.receive(frame)
        await trio.sleep(answer.delay_seconds)
        if self._gate.user is not None and self._dispatcher is None:
            answer = self._welcome(self._gate.user, answer)
        await self._reply(
            Response(corr_id=frame.corr_id, successful=answer.successful, result=answer.text)
        )
        if answer.close:
            if self._gate.user is None:
                self.server.refused(Refusal.CREDENTIALS)
            log.info("turned away: %s", answer.text, extra={"peer": self._transport.peer})
            self.end(POLICY_VIOLATION, answer.text)

    def _welcome(self, user: str, answer: Answer) -> Answer:
        try:
            limits = self.server.limiter.enter(user, trio.current_time())
        except UsageError as error:
            self.server.refused(Refusal.CONNECTIONS)
            return Answer(successful=False, text=str(error), close=True)
        self._transport.trust(limits.arriving)
        client = Client(self.server, user, limits)
        self._dispatcher = Dispatcher(
            client, self._nursery, send=self._send, reply=self._reply, refuse=self._refuse
        )
        self.server.welcome(self)
        log.info("connected", extra={"user": user, "peer": self._transport.peer})
        return answer

    def _leave(self) -> None:
        if self._dispatcher is not None:
            self._dispatcher.close()
            self.server.limiter.leave(self._dispatcher.client.user, trio.current_time())


def _binary(data: bytes | str) -> bytes:
    if isinstance(data, str):
        raise ProtocolError("a text message; messages are binary, each a msgpack map", None)
    return data
