"""Keeps exported KV pages on disk, beside the steps of a model (contract R7).

Pages are read between two steps, in the scheduler's own loop; files are written and read by a
task of its own, in the order in which entries came and went, so that a slow disk holds up nobody
but exporters and importers. An entry on disk is no different from one whose pages have moved to
host memory: when it is imported, its contents are put there and return to the pool as any others.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

from pie.batch import ModelInfo
from pie.errors import PassFailed, UsageError
from pie.offload import Offload
from pie.probes import sometimes
from pie.signals import Signal, wait_any

from .export_files import ExportFolder
from .exports import ExportBook, UnknownExport
from .pools import Errand, Export, ExportKey
from .relocation import Relocation

log = logging.getLogger(__name__)


@attrs.frozen
class StateFolder:
    """Where the exports of all models are, and how to reach files without holding up the loop."""

    path: Path
    offload: Offload


@attrs.define(eq=False)
class Persistence:
    """Runs the errands of an export book."""

    _book: ExportBook
    _relocation: Relocation
    _state: StateFolder
    _info: ModelInfo
    _happened: Callable[[], None]
    """Called when the book has changed."""
    _jobs: deque[Callable[[], Awaitable[None]]] = attrs.field(factory=deque)
    _arrived: Signal = attrs.field(factory=Signal)
    _folder: ExportFolder = attrs.field(init=False)

    @property
    def busy(self) -> bool:
        """Whether something has to be done, or is being done."""
        return bool(self._book.errands or self._jobs)

    async def restore(self) -> None:
        """Enter what an earlier run has left. UsageError if the folder cannot be used."""
        offload, info = self._state.offload, self._info
        fingerprint = await offload(info.fingerprint)
        self._folder = await offload(ExportFolder.open, self._state.path, info.name, fingerprint)
        for header in await offload(self._folder.scan):
            self._book.restore(header.user, header.name, header.pages)

    def pass_on(self) -> None:
        """Begin the errands that need no page; those behind one that does wait for it."""
        errands = self._book.errands
        while errands and errands[0][0] is not Errand.SAVE:
            errand, key, export = errands.pop(0)
            if errand is Errand.LOAD:
                self._jobs.append(partial(self._load, key, export))
            else:
                self._jobs.append(partial(self._delete, key))
        self._arrived.set()

    async def run_errands(self) -> None:
        """Read the pages that have to be saved, and begin all errands. No step may be running."""
        errands = self._book.errands
        while errands:
            self.pass_on()
            if errands:
                _, key, export = errands[0]
                await self._read(key, export)
                errands.pop(0)  # only now: until then it counts as something to be done
        self._arrived.set()

    async def _read(self, key: ExportKey, export: Export) -> None:
        await self._relocation.back()
        if not self._book.current(key, export):
            sometimes("an export is released before it is read")
            return
        if any(page.number is None and page.place is None for page in export.resources):
            sometimes("an export has a page that was never filled")
            error = PassFailed(f"export {key[2]!r}: a pass that should have filled a page failed")
            self._book.lost(key, export, error)
            return
        try:
            contents = await self._relocation.read(export.resources)
        except PassFailed as error:
            if self._book.current(key, export):
                # Its text: whoever keeps the record would keep frames of guests with an error.
                log.warning("export %r of user %s is gone: %s", key[2], key[0], str(error))
            self._book.lost(key, export, error)
        else:
            self._jobs.append(partial(self._save, key, export, contents))

    async def run(self) -> None:
        """Work on files for as long as the scheduler runs."""
        while True:
            while self._jobs:
                await self._jobs[0]()
                self._jobs.popleft()
                self._happened()
            self._arrived.clear()
            await wait_any((self._arrived,))

    async def _save(self, key: ExportKey, export: Export, contents: NDArray[np.uint8]) -> None:
        user, _, name = key
        try:
            await self._state.offload(self._folder.save, user, name, contents)
        except UsageError as error:
            self._book.lost(key, export, error)
        else:
            sometimes("an export is written to its file")
            self._book.saved(key, export)

    async def _load(self, key: ExportKey, export: Export) -> None:
        user, _, name = key
        contents = await self._state.offload(self._folder.load, user, name)
        if contents is None or len(contents) != len(export.resources):
            self._book.lost(key, export, UnknownExport(name))
        else:
            self._relocation.keep(self._book.loaded(key, export), contents)

    async def _delete(self, key: ExportKey) -> None:
        user, _, name = key
        await self._state.offload(self._folder.delete, user, name)
