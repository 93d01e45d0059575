"""From what an instance has for its client to frames."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pie.ids import EventCode
from pie.messages import BlobSent, ClientItem, Event, Output

from .blobs import hash_of as hash_of
from .frames import CHUNK, DownloadBlob, InstanceEvent, ServerFrame, StreamingOutput
from .protocol import MAX_TEXT

PIECE = MAX_TEXT // 4
"""Characters of output in one message: however many bytes each has, they fit."""
MERGED = 64 * 1024
"""Bytes up to which pieces of output are joined."""

_STREAMS = {"stdout": "Stdout", "stderr": "Stderr"}


class Frames:
    """The frames of one instance, as long as it lives: a character may come in two pieces."""

    def __init__(self, instance_id: str, blob_end_chunk: bool) -> None:
        """With `blob_end_chunk`, a blob is announced as one chunk longer than it is."""
        self._instance_id = instance_id
        self._blob_end_chunk = blob_end_chunk
        self._decoders = {name: _decoder() for name in _STREAMS}

    def of(self, item: ClientItem, blob_hash: str | None = None) -> Iterator[ServerFrame]:
        """The frames of the instance's next item; a blob's chunks are cut as they are taken.

        `blob_hash` is the `hash_of` a blob, for who has computed it elsewhere: it is 16 ms of work
        for one of 64 MiB.
        """
        match item:
            case Output(stream, data):
                return self._text(stream, self._decoders[stream].decode(data))
            case BlobSent(data):
                return self._chunks(data, blob_hash or hash_of(data))
            case Event(code, text):
                return self._event(code, text)

    def gap(self) -> None:
        """Some of what was written next is lost: forget a character that has only begun."""
        for decoder in self._decoders.values():
            decoder.reset()

    @contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """Forget what was made of an item that could not be sent: it will be given again."""
        states = {name: decoder.getstate() for name, decoder in self._decoders.items()}
        try:
            yield
        except BaseException:
            for name, decoder in self._decoders.items():
                decoder.setstate(states[name])
            raise

    def _text(self, stream: str, text: str) -> Iterator[ServerFrame]:
        for start in range(0, len(text), PIECE):
            output = {_STREAMS[stream]: text[start : start + PIECE]}
            yield StreamingOutput(instance_id=self._instance_id, output=output)

    def _event(self, code: EventCode, text: str) -> Iterator[ServerFrame]:
        if code != EventCode.MESSAGE:
            for stream, decoder in self._decoders.items():
                yield from self._text(stream, decoder.decode(b"", final=True))
        yield InstanceEvent(instance_id=self._instance_id, event=int(code), message=text)

    def _chunks(self, data: bytes, blob_hash: str) -> Iterator[ServerFrame]:
        """An empty blob is one empty chunk: none at all would tell its client nothing."""
        count = max(1, -(-len(data) // CHUNK))
        for index in range(count):
            yield DownloadBlob(
                instance_id=self._instance_id,
                blob_hash=blob_hash,
                chunk_index=index,
                total_chunks=count + self._blob_end_chunk,
                chunk_data=data[index * CHUNK : (index + 1) * CHUNK],
            )


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")(errors="replace")


def merge(items: Iterable[ClientItem]) -> Iterator[ClientItem]:
    """The same with neighbouring output of one stream joined, so that a backlog is few frames."""
    run, size = list[Output](), 0
    for item in items:
        if not isinstance(item, Output):
            yield from _joined(run)
            yield item
            run, size = [], 0
            continue
        if run and (item.stream != run[0].stream or size + len(item.data) > MERGED):
            yield from _joined(run)
            run, size = [], 0
        run.append(item)
        size += len(item.data)
    yield from _joined(run)


def _joined(run: list[Output]) -> Iterator[Output]:
    if run:
        yield Output(run[0].stream, b"".join(output.data for output in run))
