"""What the host's own work costs, as virtual time.

In virtual time, guests and scheduler take no time at all, so a simulated accelerator never waits
for them. `HostCost` charges them: one processor, on which every forward pass takes so many seconds
between its guest's answer and the moment the scheduler sees the guest's next pass.
"""

from __future__ import annotations

import attrs
import trio

from pie.mailbox import tell
from pie.messages import SchedulerMessage, SubmitPass


@attrs.frozen
class HostCost:
    """One processor shared by all guests of an engine, first come, first served.

    Messages to a scheduler pass through it in order; each submitted pass holds it for
    `pass_seconds`, whatever the guest did before. Until then the guest counts as moving, since
    its message has not been read. `python -m benchmarks.host` measures the figure to put in.
    """

    pass_seconds: float = attrs.field(validator=attrs.validators.ge(0))
    _processor: trio.StrictFIFOLock = attrs.field(
        factory=trio.StrictFIFOLock, init=False, repr=False, eq=False
    )

    async def forward(
        self,
        source: trio.MemoryReceiveChannel[SchedulerMessage],
        target: trio.MemorySendChannel[SchedulerMessage],
    ) -> None:
        """Pass on what guests say to a scheduler, until they have all gone."""
        with target:
            async for message in source:
                if isinstance(message, SubmitPass) and self.pass_seconds:
                    async with self._processor:
                        await trio.sleep(self.pass_seconds)
                tell(target, message)
