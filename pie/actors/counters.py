"""What a scheduler has done so far, and what it looks like now."""

from __future__ import annotations

import attrs

from pie.ids import ResourceKind
from pie.messages import ServiceStats

from .ledger import Ledger
from .planner import Chunk


@attrs.define(eq=False)
class Counters:
    """What adds up to a ServiceStats."""

    batches: int = 0
    rows: int = 0
    sampled: int = 0
    decode_batches: int = 0
    decode_rows: int = 0
    busy_seconds: float = 0.0

    def count(self, step: list[Chunk], sampled: int, seconds: float, times: int = 1) -> None:
        """As many steps with so many outputs took so long, each."""
        rows = sum(chunk.count for chunk in step)
        self.batches += times
        self.rows += times * rows
        self.sampled += times * sampled
        self.busy_seconds += times * seconds
        if rows == len(step):
            self.decode_batches += times
            self.decode_rows += times * rows

    def snapshot(self, ledger: Ledger, moved_out: int) -> ServiceStats:
        """These, and what can be counted now."""
        table = ledger.table
        pages = table.pools[ResourceKind.KV_PAGE]
        embeddings = table.pools[ResourceKind.EMBEDDING]
        return ServiceStats(
            **attrs.asdict(self),
            passes=ledger.finished_passes,
            pages=pages.capacity,
            pages_free=len(pages.free),
            pages_peak=pages.capacity - pages.least_free,
            host_pages=table.room.host.capacity,
            host_pages_free=len(table.room.host.free),
            moved_out=moved_out,
            embeddings_free=len(embeddings.free),
            waiting=table.waiting(),
            queued=len(ledger.planner),
            instances=len(ledger),
        )
