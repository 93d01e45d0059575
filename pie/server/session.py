"""One client: its messages are read in order and answered, until it leaves or is sent away."""

from __future__ import annotations

import itertools
import logging
from functools import partial

import trio

from pie.errors import PieError, UsageError
from pie.signals import Signal, wait_any

from . import requests
from .authentication import Answer
from .counters import Refusal
from .following import Follower
from .frames import (
    AttachInstance,
    ClientFrame,
    Identification,
    InternalAuthenticate,
    LaunchFromRegistry,
    LaunchInstance,
    ListInstances,
    Response,
    ServerEvent,
    ServerFrame,
    SignalInstance,
    Signature,
    TerminateInstance,
    UploadBlob,
    UploadProgram,
)
from .limits import UserLimits
from .protocol import ProtocolError, decode, encode, refusal
from .receiving import Receiving
from .requests import Follow, Handle
from .server import Server
from .transport import Gone, Transport
from .uploads import Failed, Finished

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
        self.storing: dict[int, trio.Event] = {}
        """Uploaded programs that are being kept, by corr_id: launches wait for them."""
        self._transport = transport
        self._gate = server.authentication.gate()
        self._limits: UserLimits | None = None
        self._receiving = Receiving(server.config, server.uploading)
        self._turn = trio.StrictFIFOLock()
        self._follower = Follower(server.instances, self.send, server.offload)
        self._waiting = trio.Semaphore(_REQUESTS)
        self._following = 0
        self._idle = Signal(ready=True)
        self._unreadable = 0
        self._scope = trio.CancelScope()
        self._goodbye: tuple[int, str] | None = None

    @property
    def user(self) -> str:
        """Who it is; only once authenticated."""
        assert self._gate.user is not None, "not authenticated"
        return self._gate.user

    @property
    def limits(self) -> UserLimits:
        """The user's; only once authenticated."""
        assert self._limits is not None, "not authenticated"
        return self._limits

    async def run(self) -> None:
        """Serve until the end of the connection, whoever ends it."""
        with self.server.admit(self), self._receiving:
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
                if self._limits is not None:
                    self.server.limiter.leave(self.user, trio.current_time())
        if self._goodbye is not None:
            with trio.move_on_after(_GOODBYE_SECONDS, shield=True):
                await self._transport.close(*self._goodbye)

    def end(self, code: int, reason: str) -> None:
        """Send the client away."""
        self._goodbye = self._goodbye or (code, reason)
        self._scope.cancel()

    def announce(self, text: str) -> None:
        """Tell the client something about the server."""
        self._nursery.start_soon(self.reply, ServerEvent(message=text))

    async def idle(self) -> None:
        """Until it follows no instance."""
        await wait_any((self._idle,))

    async def send(self, frame: ServerFrame) -> None:
        """Send whole, in the order of the calls; waits for a slow client. Raises Gone."""
        async with self._turn:
            await self._transport.send(encode(frame))

    async def reply(self, frame: ServerFrame) -> None:
        """Send, unless the client has left."""
        try:
            await self.send(frame)
        except Gone:
            log.debug("left before a reply", extra={"peer": self._transport.peer})

    async def refuse(self, frame: ClientFrame, text: str) -> None:
        """Say why a request is not done, as the kind of reply that its client waits for."""
        await self.reply(refusal(frame, text) or ServerEvent(message=text))

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
        await self.reply(error.reply or ServerEvent(message=str(error)))
        await self._pace()

    async def _take(self, frame: ClientFrame) -> None:
        if isinstance(frame, Identification | Signature | InternalAuthenticate):
            await self._authenticate(frame)
        elif self._limits is None:
            await self.refuse(frame, "Not authenticated: send `identification` first")
        elif await self._may(frame, self._limits):
            await self._start(frame)

    async def _may(self, frame: ClientFrame, limits: UserLimits) -> bool:
        """Whether the quota of messages allows it; what no reply can refuse waits until it does."""
        if not isinstance(frame, SignalInstance | UploadProgram | UploadBlob | ListInstances):
            try:
                limits.request(trio.current_time())
            except UsageError as error:
                self.server.refused(Refusal.MESSAGES_PER_SECOND)
                await self.refuse(frame, str(error))
                await self._pace()
                return False
        else:
            await self._pace()
        return True

    async def _pace(self) -> None:
        """Read no faster than the user's messages may come."""
        if self._limits is not None:
            # Nobody sets an event when there is a token again.
            while delay := self._limits.message(trio.current_time()):  # noqa: ASYNC110
                await trio.sleep(delay)

    # ------------------------------------------------------------------ authentication

    async def _watch_login(self) -> None:
        seconds = self.server.config.login_seconds
        await trio.sleep(seconds)
        if self._limits is None:
            self.server.refused(Refusal.LOGIN_SECONDS)
            self.end(POLICY_VIOLATION, f"not authenticated within {seconds:g} s")

    async def _authenticate(self, frame: Identification | Signature | InternalAuthenticate) -> None:
        if not isinstance(frame, InternalAuthenticate):
            await self.server.offload(
                self.server.authentication.refresh
            )  # else the gate reads the file
        answer = self._gate.receive(frame)
        await trio.sleep(answer.delay_seconds)
        if self._gate.user is not None and self._limits is None:
            answer = self._welcome(answer)
        await self.reply(
            Response(corr_id=frame.corr_id, successful=answer.successful, result=answer.text)
        )
        if answer.close:
            if self._gate.user is None:
                self.server.refused(Refusal.CREDENTIALS)
            log.info("turned away: %s", answer.text, extra={"peer": self._transport.peer})
            self.end(POLICY_VIOLATION, answer.text)

    def _welcome(self, answer: Answer) -> Answer:
        try:
            self._limits = self.server.limiter.enter(self.user, trio.current_time())
        except UsageError as error:
            self.server.refused(Refusal.CONNECTIONS)
            return Answer(successful=False, text=str(error), close=True)
        self.server.welcome(self)
        log.info("connected", extra={"user": self.user, "peer": self._transport.peer})
        return answer

    # ------------------------------------------------------------------ requests

    async def _start(self, frame: ClientFrame) -> None:
        """Handle at once what has to be in order; in a task of its own what may take long."""
        match frame:
            case UploadProgram() | UploadBlob():
                await self._receive(frame)
            case LaunchInstance() | LaunchFromRegistry() | AttachInstance() | TerminateInstance():
                await self._spawn(requests.handle, frame)
            case _:
                await self._do(requests.handle, frame)

    async def _receive(self, frame: UploadProgram | UploadBlob) -> None:
        """Take a chunk; the whole goes on once its last one is here."""
        if not self._receiving.busy:
            self._nursery.start_soon(self._drop_idle_uploads)
        match self._receiving.take(frame, trio.current_time(), self._may_begin):
            case Failed(text=text):
                self.server.refused(Refusal.UPLOAD)
                await self.refuse(frame, text)
            case Finished() as upload if isinstance(frame, UploadProgram):
                self.storing[frame.corr_id] = trio.Event()
                await self._spawn(partial(requests.store, upload=upload), frame)
            case Finished() as upload:
                await self._do(partial(requests.deliver, upload=upload), frame)

    def _may_begin(self, frame: UploadProgram | UploadBlob) -> None:
        """UsageError if an upload is refused whatever its contents."""
        if isinstance(frame, UploadBlob):
            self.server.instances.find(self.user, frame.instance_id)
            return
        try:
            self.limits.upload(trio.current_time())
        except UsageError:
            self.server.refused(Refusal.UPLOADS_PER_MINUTE)
            raise

    async def _drop_idle_uploads(self) -> None:
        while self._receiving.busy:
            await trio.sleep(self.server.config.upload_idle_seconds / 4)
            for failed in self._receiving.expired(trio.current_time()):
                await self.reply(
                    Response(corr_id=failed.corr_id, successful=False, result=failed.text)
                )

    async def _spawn(self, handle: Handle, frame: ClientFrame) -> None:
        await self._waiting.acquire()
        self._nursery.start_soon(self._spawned, handle, frame)

    async def _spawned(self, handle: Handle, frame: ClientFrame) -> None:
        try:
            what = await self._do(handle, frame)
        finally:
            self._waiting.release()
        if what is not None:
            await self._follow(frame, what)

    async def _do(self, handle: Handle, frame: ClientFrame) -> Follow | None:
        """Handle a request and reply to it, or give what is still to be done."""
        try:
            outcome = await handle(self, frame)
        except PieError as error:
            await self.refuse(frame, str(error))
        except Exception:  # the boundary where our own bugs end one request
            number = next(_bugs)
            log.exception("bug in a request, reference %d", number, extra={"user": self.user})
            await self.refuse(frame, f"internal error, reference {number}")
        else:
            if isinstance(outcome, Follow):
                return outcome
            if outcome is not None:
                await self.reply(outcome)
        return None

    async def _follow(self, frame: ClientFrame, what: Follow) -> None:
        self._following += 1
        self._idle.clear()
        try:
            await self._follower.follow(what.hosted, what.reply)
        except PieError as error:  # another session was faster
            await self.refuse(frame, str(error))
        finally:
            self._following -= 1
            if not self._following:
                self._idle.set()


def _binary(data: bytes | str) -> bytes:
    if isinstance(data, str):
        raise ProtocolError("a text message; messages are binary, each a msgpack map", None)
    return data
