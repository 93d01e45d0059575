"""The client of a simulated guest: sends, reads, and ends it if that is the plan."""

from __future__ import annotations

import attrs
import trio

from pie.engine import Engine
from pie.errors import Closed, UsageError
from pie.ids import EventCode
from pie.messages import Event, Launched, Output
from pie.testing.engine import Outcome

from .journal import Journal
from .plan import GuestPlan

KILLED = "its client has had enough"


@attrs.define(eq=False)
class Client:
    """The client of one guest."""

    guest: GuestPlan
    engine: Engine
    launched: Launched
    journal: Journal
    _messages: list[str] = attrs.field(factory=list)
    _streams: dict[str, bytes] = attrs.field(factory=lambda: {"stdout": b"", "stderr": b""})
    _ends: list[Event] = attrs.field(factory=list)

    async def run(self) -> None:
        """Send, read, and end the guest if that is the plan."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send)
            nursery.start_soon(self._end)
            await self.read_on()
            nursery.cancel_scope.cancel()

    async def read_on(self) -> None:
        """Read what the instance sends, to its end."""
        async for item in self.launched.outbox:
            assert not self._ends, f"guest {self.guest.number} said something after its end"
            if isinstance(item, Output):
                self._streams[item.stream] += item.data
            elif isinstance(item, Event) and item.code is not EventCode.MESSAGE:
                self._ends.append(item)
            elif isinstance(item, Event):
                self._messages.append(item.text)
                self.journal.note(f"guest {self.guest.number} sent {item.text!r}")
            if self.guest.reads_every:
                await trio.sleep(self.guest.reads_every)

    async def _send(self) -> None:
        for seconds, text in self.guest.messages:
            await trio.sleep(seconds)
            try:
                await self.engine.send(self.launched.instance, text)
            except UsageError:
                return  # it has ended

    async def _end(self) -> None:
        if self.guest.killed_after is None:
            return
        await trio.sleep(self.guest.killed_after)
        self.journal.note(f"terminate guest {self.guest.number}")
        try:
            await self.engine.terminate(self.launched.instance, KILLED)
        except (UsageError, Closed):
            return  # it has ended
        assert self.launched.instance not in {d.instance for d in await self.engine.instances()}

    def outcome(self) -> Outcome:
        """What the client has seen."""
        number = self.guest.number
        assert len(self._ends) == 1, f"guest {number} had {len(self._ends)} terminal events"
        streams = {name: data.decode() for name, data in self._streams.items()}
        return Outcome(self._ends[0], tuple(self._messages), **streams)
