"""Memory of an idle guest, everything counted: store, stack, linear memory, Python objects."""

from __future__ import annotations

import gc
from pathlib import Path

import attrs
import trio

from .guests import crowd
from .machine import Row


@attrs.frozen
class Footprint:
    """What the process has, as the system counts it."""

    anonymous: int
    pss: int
    mappings: int

    @classmethod
    def now(cls) -> Footprint:
        gc.collect()
        facts = {}
        for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
            name, _, rest = line.partition(":")
            facts[name] = int(rest.split()[0]) * 1024
        mappings = Path("/proc/self/maps").read_bytes().count(b"\n")
        return cls(facts["Anonymous"], facts["Pss"], mappings)


async def idle(kind: str, guests: int) -> Row:
    """`guests` guests that have their model and wait for a message.

    Bytes are those of the whole process, less those before the first launch, by the number of
    guests. `left` is what stays when all have been ended, per guest that was.
    """
    async with crowd(kind, guests) as many:
        before = Footprint.now()
        async with trio.open_nursery() as nursery:
            await many.launch(nursery, guests, tokens=1, wait=1)
            await many.settled()
            during = Footprint.now()
            await many.stop()
        assert many.texts == [], "a guest ended that should wait"
        await many.check_nothing_left()
        many.launched.clear()
        after = Footprint.now()
    return {
        "guests": guests,
        "kib_per_guest": (during.anonymous - before.anonymous) / guests / 1024,
        "pss_kib_per_guest": (during.pss - before.pss) / guests / 1024,
        "mappings_per_guest": (during.mappings - before.mappings) / guests,
        "left_kib_per_guest": (after.anonymous - before.anonymous) / guests / 1024,
        "left_mappings": after.mappings - before.mappings,
    }
