"""Does what one authenticated client asks: in order, or beside what comes after it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from pie.errors import PieError, UsageError
from pie.signals import Signal, wait_any

from . import requests
from .counters import Refusal
from .following import Follower, Send
from .frames import (
    AttachInstance,
    ClientFrame,
    LaunchFromRegistry,
    LaunchInstance,
    Response,
    TerminateInstance,
    UploadBlob,
    UploadProgram,
)
from .receiving import Receiving
from .requests import Client, Follow, Handle
from .uploads import Failed, Finished

log = logging.getLogger(__name__)

_REQUESTS = 64
"""Requests of a connection that wait for their answer: the next is not read before one has it."""
_bugs = itertools.count(1)


class Dispatcher:
    """The requests of one client, as tasks of the session's nursery."""

    def __init__(
        self,
        client: Client,
        nursery: trio.Nursery,
        *,
        send: Send,
        reply: Send,
        refuse: Callable[[ClientFrame, str], Awaitable[None]],
    ) -> None:
        """`send` raises Gone when the client has left; `reply` and `refuse` then do nothing."""
        server = client.server
        self.client = client
        self._nursery = nursery
        self._reply = reply
        self._refuse = refuse
        self._receiving = Receiving(server.config, server.uploading)
        self._follower = Follower(server.instances, send, server.offload)
        self._waiting = trio.Semaphore(_REQUESTS)
        self._following = 0
        self._idle = Signal(ready=True)

    def close(self) -> None:
        """Drop unfinished uploads."""
        self._receiving.close()

    async def idle(self) -> None:
        """Until the client follows no instance."""
        await wait_any((self._idle,))

    async def start(self, frame: ClientFrame) -> None:
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
                self.client.server.refused(Refusal.UPLOAD)
                await self._refuse(frame, text)
            case Finished() as upload if isinstance(frame, UploadProgram):
                self.client.storing[frame.corr_id] = trio.Event()
                await self._spawn(partial(requests.store, upload=upload), frame)
            case Finished() as upload:
                await self._do(partial(requests.deliver, upload=upload), frame)

    def _may_begin(self, frame: UploadProgram | UploadBlob) -> None:
        """UsageError if an upload is refused whatever its contents."""
        if isinstance(frame, UploadBlob):
            self.client.server.instances.find(self.client.user, frame.instance_id)
            return
        try:
            self.client.limits.upload(trio.current_time())
        except UsageError:
            self.client.server.refused(Refusal.UPLOADS_PER_MINUTE)
            raise

    async def _drop_idle_uploads(self) -> None:
        while self._receiving.busy:
            await trio.sleep(self.client.server.config.upload_idle_seconds / 4)
            for failed in self._receiving.expired(trio.current_time()):
                await self._reply(
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
            outcome = await handle(self.client, frame)
        except PieError as error:
            await self._refuse(frame, str(error))
        except Exception:  # the boundary where our own bugs end one request
            number = next(_bugs)
            log.exception(
                "bug in a request, reference %d", number, extra={"user": self.client.user}
            )
            await self._refuse(frame, f"internal error, reference {number}")
        else:
            if isinstance(outcome, Follow):
                return outcome
            if outcome is not None:
                await self._reply(outcome)
        return None

    async def _follow(self, frame: ClientFrame, what: Follow) -> None:
        self._following += 1
        self._idle.clear()
        try:
            await self._follower.follow(what.hosted, what.reply)
        except PieError as error:  # another session was faster
            await self._refuse(frame, str(error))
        finally:
            self._following -= 1
            if not self._following:
                self._idle.set()
