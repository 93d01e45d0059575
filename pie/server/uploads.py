"""Programs and blobs that arrive in chunks: one connection's, of one kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import blake3

from .frames import CHUNK
from .program_names import is_hash

MAX_FAILED = 64
"""Failed uploads whose chunks still come: beyond it the one that failed first is forgotten."""


@attrs.define
class Budget:
    """Bytes that unfinished uploads hold, of all connections."""

    limit: int
    held: int = 0

    def take(self, size: int) -> bool:
        """Whether there was room for `size` more."""
        if self.held + size > self.limit:
            return False
        self.held += size
        return True

    def give_back(self, size: int) -> None:
        self.held -= size

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """A finished upload goes on taking memory for the duration."""
        self.held += size
        try:
            yield
        finally:
            self.give_back(size)


@attrs.frozen(kw_only=True)
class Finished:
    """A whole upload; its bytes are the caller's now and count no more."""

    corr_id: int
    key: str
    """Its hash, in lower case."""
    chunks: tuple[bytes, ...]

    @property
    def size(self) -> int:
        return sum(map(len, self.chunks))

    def data(self) -> bytes:
        """All of it in one piece: up to 1 ms per MiB, so that a large one goes to a thread."""
        return b"".join(self.chunks)


@attrs.frozen(kw_only=True)
class Failed:
    """To be answered now with a refusal."""

    corr_id: int
    text: str


class _Fault(Exception):
    """What is wrong with a chunk."""


@attrs.define(kw_only=True)
class _Upload:
    """One that goes on; the chunks so far are in the budget."""

    key: str
    total: int
    heard: float
    chunks: list[bytes] = attrs.field(factory=list)
    size: int = 0
    hasher: blake3.blake3 = attrs.field(factory=blake3.blake3)


@attrs.define
class _Failure:
    """One whose sender has not sent everything, and may not listen before it has."""

    text: str
    heard: float


@attrs.define(kw_only=True)
class Uploads:
    """The unfinished uploads of a connection, told apart by the `corr_id` of their chunks.

    The published client listens for the answer once it has sent every chunk. So a failure is
    answered at once and, if chunks are still to come, again after the last of them.
    """

    max_bytes: int
    """Of one upload: a larger one fails, if its number of chunks says so at its first."""
    budget: Budget
    max_open: int = 4
    """Uploads at once: one beyond it fails."""
    _open: dict[int, _Upload] = attrs.field(factory=dict)
    _failed: dict[int, _Failure] = attrs.field(factory=dict)

    def __bool__(self) -> bool:
        """Whether there is anything that can expire."""
        return bool(self._open or self._failed)

    def starts(self, corr_id: int) -> bool:
        """Whether a chunk of this request is the first that is heard of it."""
        return corr_id not in self._open and corr_id not in self._failed

    def receive(
        self, *, now: float, corr_id: int, key: str, index: int, total: int, data: bytes
    ) -> Finished | Failed | None:
        """Take a chunk; None if there is nothing to say. `now`: seconds of any steady clock."""
        if corr_id in self._failed:
            return self._repeat(now, corr_id, last=index + 1 >= total)
        try:
            upload = self._of(now, corr_id, key, index, total)
            self._add(upload, now, data)
            return self._finish(corr_id) if index + 1 == total else None
        except _Fault as fault:
            return self.fail(now=now, corr_id=corr_id, index=index, total=total, text=str(fault))

    def fail(self, *, now: float, corr_id: int, index: int, total: int, text: str) -> Failed:
        """Refuse an upload at this chunk of it, for a reason of the caller's."""
        self._drop(corr_id)
        if index + 1 < total:
            self._failed[corr_id] = _Failure(text, now)
            if len(self._failed) > MAX_FAILED:
                del self._failed[next(iter(self._failed))]
        return Failed(corr_id=corr_id, text=text)

    def expired(self, now: float, idle_seconds: float) -> list[Failed]:
        """Drop what has had no chunk for so long."""
        for corr_id, failure in list(self._failed.items()):
            if now - failure.heard >= idle_seconds:
                del self._failed[corr_id]
        text = f"dropped: no chunk came for {idle_seconds:g} seconds"
        return [
            self.fail(now=now, corr_id=corr_id, index=0, total=upload.total + 1, text=text)
            for corr_id, upload in list(self._open.items())
            if now - upload.heard >= idle_seconds
        ]

    def close(self) -> None:
        """Drop everything: the connection is gone."""
        for corr_id in list(self._open):
            self._drop(corr_id)
        self._failed.clear()

    def _of(self, now: float, corr_id: int, key: str, index: int, total: int) -> _Upload:
        """The upload that this is the next chunk of, a new one if need be."""
        upload = self._open.get(corr_id)
        if upload is None:
            self._check_first(key, index, total)
            upload = self._open[corr_id] = _Upload(key=key.lower(), total=total, heard=now)
        elif total != upload.total:
            raise _Fault(f"Chunk count mismatch: expected {upload.total}, got {total}")
        elif index != len(upload.chunks):
            raise _Fault(f"Out-of-order chunk: expected {len(upload.chunks)}, got {index}")
        elif key.lower() != upload.key:
            raise _Fault(f"Hash changed: expected {upload.key}, got {key[:64]!r}")
        return upload

    def _check_first(self, key: str, index: int, total: int) -> None:
        if index != 0:
            raise _Fault(f"First chunk index must be 0, got {index}")
        if total < 1:
            raise _Fault(f"Chunk count must be at least 1, got {total}")
        if not is_hash(key.lower()):
            raise _Fault(f"Hash must be 64 hexadecimal digits (BLAKE3), got {key[:64]!r}")
        if (total - 1) * CHUNK >= max(1, self.max_bytes):
            raise _Fault(
                f"{total} chunks of {CHUNK} bytes exceed the limit of {self.max_bytes} bytes"
            )
        if len(self._open) >= self.max_open:
            raise _Fault(f"{len(self._open)} uploads are unfinished on this connection already")

    def _add(self, upload: _Upload, now: float, data: bytes) -> None:
        if len(data) > CHUNK:
            raise _Fault(f"Chunk size {len(data)} exceeds limit {CHUNK}")
        size = upload.size + len(data)
        if size > self.max_bytes:
            raise _Fault(f"{size} bytes exceed the limit of {self.max_bytes} bytes")
        if not self.budget.take(len(data)):
            raise _Fault(
                f"unfinished uploads of all clients hold {self.budget.held} of"
                f" {self.budget.limit} bytes: try again later"
            )
        upload.chunks.append(data)
        upload.size = size
        upload.hasher.update(data)
        upload.heard = now

    def _finish(self, corr_id: int) -> Finished:
        upload = self._open[corr_id]
        found = upload.hasher.hexdigest()
        if found != upload.key:
            raise _Fault(f"Hash mismatch: expected {upload.key}, got {found}")
        self._drop(corr_id)
        return Finished(corr_id=corr_id, key=upload.key, chunks=tuple(upload.chunks))

    def _drop(self, corr_id: int) -> None:
        upload = self._open.pop(corr_id, None)
        if upload is not None:
            self.budget.give_back(upload.size)

    def _repeat(self, now: float, corr_id: int, *, last: bool) -> Failed | None:
        failure = self._failed[corr_id]
        failure.heard = now
        if not last:
            return None
        del self._failed[corr_id]
        return Failed(corr_id=corr_id, text=failure.text)
