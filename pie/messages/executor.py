"""To an executor. Answers are PassFailed when the device lost the work."""

from __future__ import annotations

from typing import TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.batch import AdapterCommand, Batch, BatchResult, Floats, Ints
from pie.mailbox import Ask
from pie.multistep import MultiStep


@attrs.frozen(eq=False)
class RunBatch(Ask[BatchResult]):
    """Run one batch."""

    batch: Batch


@attrs.frozen(eq=False)
class RunSteps(Ask[None]):
    """Run a batch and the steps that follow it; what they draw is in `steps`."""

    steps: MultiStep


@attrs.frozen(eq=False)
class ReadPages(Ask[NDArray[np.uint8]]):
    """The contents of KV pages: [pages, page bytes]."""

    pages: Ints


@attrs.frozen(eq=False)
class WritePages(Ask[None]):
    """Put contents back into KV pages, which may be others than they came from."""

    pages: Ints
    contents: NDArray[np.uint8]


@attrs.frozen(eq=False)
class ReadEmbeddings(Ask[Floats]):
    """The vectors in embedding slots: [slots, hidden]."""

    slots: Ints


@attrs.frozen(eq=False)
class Adapt(Ask[bytes]):
    """Carry out a command on an adapter slot; bytes only of a download."""

    command: AdapterCommand


ExecutorMessage: TypeAlias = RunBatch | RunSteps | ReadPages | WritePages | ReadEmbeddings | Adapt
