"""What a client is uploading: programs to keep, and blobs for its instances."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from pie.errors import UsageError

from .config import ServerConfig
from .frames import UploadBlob, UploadProgram
from .uploads import Budget, Failed, Finished, Uploads

MayBegin: TypeAlias = Callable[[UploadProgram | UploadBlob], None]

_PROGRAMS, _BLOBS = 4, 16
"""Unfinished ones of a connection. A client that has given one up may try again."""


class Receiving:
    """The unfinished uploads of a connection."""

    def __init__(self, config: ServerConfig, budget: Budget) -> None:
        self._programs = Uploads(
            max_bytes=config.max_program_bytes, budget=budget, max_open=_PROGRAMS
        )
        self._blobs = Uploads(max_bytes=config.max_blob_bytes, budget=budget, max_open=_BLOBS)
        self._idle_seconds = config.upload_idle_seconds

    def close(self) -> None:
        """Drop them."""
        self._programs.close()
        self._blobs.close()

    @property
    def busy(self) -> bool:
        """Whether an upload is unfinished."""
        return bool(self._programs) or bool(self._blobs)

    def take(
        self, frame: UploadProgram | UploadBlob, now: float, may_begin: MayBegin
    ) -> Finished | Failed | None:
        """Take a chunk; None if there is nothing to say yet. `may_begin` may refuse the first."""
        uploads = self._blobs if isinstance(frame, UploadBlob) else self._programs
        corr_id, index, total = frame.corr_id, frame.chunk_index, frame.total_chunks
        if uploads.starts(corr_id):
            try:
                may_begin(frame)
            except UsageError as error:
                return uploads.fail(
                    now=now, corr_id=corr_id, index=index, total=total, text=str(error)
                )
        key = frame.blob_hash if isinstance(frame, UploadBlob) else frame.program_hash
        return uploads.receive(
            now=now, corr_id=corr_id, key=key, index=index, total=total, data=frame.chunk_data
        )

    def expired(self, now: float) -> list[Failed]:
        """Drop what has had no chunk for too long."""
        idle = self._idle_seconds
        return [*self._programs.expired(now, idle), *self._blobs.expired(now, idle)]
