"""The adapter slots of `HashModel`: an adapter is bytes, and what it does a hash of them."""

from __future__ import annotations

import hashlib

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.batch import (
    AdapterCommand,
    Batch,
    ClearAdapter,
    DownloadAdapter,
    InitializeAdapter,
    UpdateAdapter,
    UploadAdapter,
)
from pie.errors import GuestError, PassFailed

MAGIC = b"hash"


@attrs.frozen
class _Adapter:
    data: bytes
    population_size: int | None = None
    """None: it was uploaded; it has no noise and cannot be updated."""


def _digest(*values: object) -> bytes:
    return MAGIC + hashlib.blake2b(repr(values).encode(), digest_size=16).digest()


@attrs.define
class HashAdapters:
    """A `pie.batch.AdapterSupport`, and the slots themselves."""

    slots: int
    max_rank: int = 64
    _held: dict[int, _Adapter] = attrs.field(factory=dict, repr=False)

    def check(self, data: bytes, /) -> None:
        """Raise GuestError unless `data` begins as an adapter of this model does."""
        if not data.startswith(MAGIC):
            raise GuestError(f"upload-adapter: {data[:4]!r} is not {MAGIC!r} (X8)")

    def adapt(self, command: AdapterCommand) -> bytes:
        """Carry out `command`; PassFailed as `ModelRunner.adapt` says."""
        if not 0 <= command.slot < self.slots:
            raise IndexError(f"adapter slot {command.slot} of {self.slots}")
        held = self._held.get(command.slot)
        match command:
            case ClearAdapter():
                self._held.pop(command.slot, None)
                return b""
            case UploadAdapter(data=data):
                self._held[command.slot] = _Adapter(data)
                return b""
            case InitializeAdapter(population_size=size):
                settings = attrs.astuple(command)[1:]  # all but the slot
                self._held[command.slot] = _Adapter(_digest(*settings), size)
                return b""
        if held is None:
            raise PassFailed(f"adapter slot {command.slot} holds nothing (X8)")
        match command:
            case DownloadAdapter():
                return held.data
            case UpdateAdapter() if held.population_size is None:
                raise PassFailed(
                    f"update-adapter: slot {command.slot} holds an uploaded adapter; "
                    "initialize-adapter starts a strategy (X8)"
                )
            case UpdateAdapter(scores=scores, seeds=seeds):
                if not len(scores) == len(seeds) == held.population_size:
                    raise PassFailed(
                        f"update-adapter: {len(scores)} scores and {len(seeds)} seeds for a "
                        f"population of {held.population_size} (X8)"
                    )
                data = _digest(held.data, scores, seeds, command.max_sigma)
                self._held[command.slot] = attrs.evolve(held, data=data)
        return b""

    def numbers(self, batch: Batch) -> NDArray[np.uint64]:
        """[rows] what the adapter and noise of each row are to be mixed in as; 0 for none."""
        numbers = np.zeros(batch.passes, dtype=np.uint64)
        for i, slot in enumerate(batch.adapters.tolist()):
            if (held := self._held.get(slot)) is not None:
                noisy = held.population_size is not None and bool(batch.noisy[i])
                digest = _digest(held.data, int(batch.noise_seeds[i]) if noisy else None)
                numbers[i] = int.from_bytes(digest[-8:], "little")
        return np.repeat(numbers, np.diff(batch.row_starts))
