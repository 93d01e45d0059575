"""To an executor."""

from __future__ import annotations

import attrs

from pie.batch import Batch, BatchResult
from pie.mailbox import Ask


@attrs.frozen(eq=False)
class RunBatch(Ask[BatchResult]):
    """Run one batch; fails with PassFailed when it is lost."""

    batch: Batch
