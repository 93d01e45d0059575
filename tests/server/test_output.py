"""What a guest writes and sends is what the published client gets."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie.ids import EventCode
from pie.messages import BlobSent, ClientItem, Event, Output
from pie.server.blobs import hash_of
from pie.server.frames import CHUNK, DownloadBlob, InstanceEvent, ServerFrame, StreamingOutput
from pie.server.output import MERGED, Frames, merge
from pie.server.protocol import MAX_MESSAGE, encode

from .published_client import INSTANCE, VERSIONS, Receiver

MESSAGE, BLOB, STDOUT, STDERR = 0, 6, 7, 8
DONE = Event(EventCode.COMPLETED, "done")


def sent(items: Iterable[ClientItem], *, blob_end_chunk: bool = True) -> Iterator[ServerFrame]:
    frames = Frames(INSTANCE, blob_end_chunk)
    for item in items:
        yield from frames.of(item)


def received(
    items: Iterable[ClientItem], version: str = VERSIONS[-1], *, blob_end_chunk: bool = True
) -> list[tuple[int, str | bytes]]:
    with Receiver(version) as receiver:
        receiver.knows()
        receiver.take(sent(items, blob_end_chunk=blob_end_chunk))
        return receiver.events()


def out(text: str) -> ServerFrame:
    return StreamingOutput(instance_id=INSTANCE, output={"Stdout": text})


# Text


@pytest.mark.parametrize("version", VERSIONS)
def test_events_and_both_streams_arrive_in_order(version: str) -> None:
    items: list[ClientItem] = [
        Output("stdout", b"a"),
        Output("stderr", b"b"),
        Event(EventCode.MESSAGE, "m"),
        Output("stdout", b"c"),
        DONE,
    ]

    assert received(items, version) == [
        (STDOUT, "a"),
        (STDERR, "b"),
        (MESSAGE, "m"),
        (STDOUT, "c"),
        (1, "done"),
    ]


def test_a_character_in_two_writes_arrives_whole_whatever_comes_between() -> None:
    euro = "€".encode()
    items = [Output("stdout", b"5" + euro[:1]), Output("stderr", b"x"), Output("stdout", euro[1:])]

    assert received(items) == [(STDOUT, "5"), (STDERR, "x"), (STDOUT, "€")]


def test_half_a_character_is_shown_as_such_before_the_end() -> None:
    items: list[ClientItem] = [Output("stdout", b"a\xe2\x82"), Event(EventCode.MESSAGE, "m"), DONE]

    assert received(items) == [(STDOUT, "a"), (MESSAGE, "m"), (STDOUT, "�"), (1, "done")]


def test_half_a_character_before_a_gap_is_forgotten() -> None:
    frames = Frames(INSTANCE, blob_end_chunk=True)
    assert list(frames.of(Output("stdout", b"\xe2"))) == []
    frames.gap()

    assert list(frames.of(Output("stdout", b"a"))) == [out("a")]


@given(st.lists(st.binary(max_size=4) | st.text(max_size=3).map(str.encode), max_size=30))
@settings(deadline=None)
def test_the_pieces_of_any_output_are_what_decoding_it_at_once_gives(writes: list[bytes]) -> None:
    events = received([*(Output("stdout", data) for data in writes), DONE])

    assert all(code == STDOUT and text for code, text in events[:-1])
    text = "".join(str(text) for _, text in events[:-1])
    assert text == b"".join(writes).decode(errors="replace")


@pytest.mark.parametrize("character", ["x", "é", "€", "😀", "\0"])
def test_a_long_text_is_cut_between_characters(character: str) -> None:
    text = "x" + character * (3 * MAX_MESSAGE // len(character.encode()))
    frames = list(sent([Output("stdout", text.encode())]))

    assert all(len(encode(frame)) < MAX_MESSAGE for frame in frames)
    assert frames == [out(piece) for piece in received_texts(frames)]
    assert "".join(received_texts(frames)) == text


def received_texts(frames: list[ServerFrame]) -> list[str]:
    with Receiver(VERSIONS[-1]) as receiver:
        receiver.knows()
        receiver.take(frames)
        return [str(text) for _, text in receiver.events()]


# Blobs

SIZES = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", SIZES)
def test_the_published_client_delivers_blobs_announced_with_an_end_chunk(
    version: str, size: int
) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)

    assert received([BlobSent(data), BlobSent(data), DONE], version) == [
        (BLOB, data),
        (BLOB, data),
        (1, "done"),
    ]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", SIZES)
def test_it_delivers_none_announced_as_it_is(version: str, size: int) -> None:
    """So the end chunk is the default (upstream 3.7.1)."""
    assert received([BlobSent(bytes(size)), DONE], version, blob_end_chunk=False) == [(1, "done")]


@pytest.mark.parametrize("size", SIZES)
def test_other_clients_get_the_true_number_of_chunks(size: int) -> None:
    data = bytes(size)
    frames = list(sent([BlobSent(data)], blob_end_chunk=False))
    chunks = [frame for frame in frames if isinstance(frame, DownloadBlob)]

    assert b"".join(chunk.chunk_data for chunk in chunks) == data
    assert [chunk.chunk_index for chunk in chunks] == list(range(len(frames)))
    assert {(c.total_chunks, c.blob_hash, c.corr_id) for c in chunks} == {
        (len(frames), hash_of(data), 0)
    }


def test_a_hash_that_was_computed_elsewhere_is_taken() -> None:
    first = next(Frames(INSTANCE, blob_end_chunk=True).of(BlobSent(b"x"), "its hash"))

    assert isinstance(first, DownloadBlob)
    assert first.blob_hash == "its hash"


def test_a_large_blob_is_not_copied_at_once() -> None:
    item = BlobSent(bytes(64 * CHUNK))
    frames = Frames(INSTANCE, blob_end_chunk=True)
    tracemalloc.start()
    try:
        for frame in frames.of(item):
            encode(frame)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 8 * CHUNK


# Backlogs

ITEMS = st.lists(
    st.builds(
        Output,
        st.sampled_from(["stdout", "stderr"]),
        st.binary(max_size=3) | st.sampled_from([1000, MERGED - 1, MERGED, MERGED + 1]).map(bytes),
    )
    | st.builds(Event, st.just(EventCode.MESSAGE), st.text(max_size=2))
    | st.builds(BlobSent, st.binary(max_size=2)),
    max_size=12,
)


def joined_without_bound(items: Iterable[ClientItem]) -> list[ClientItem]:
    result: list[ClientItem] = []
    for item in items:
        last = result[-1] if result else None
        if isinstance(item, Output) and isinstance(last, Output) and last.stream == item.stream:
            result[-1] = Output(item.stream, last.data + item.data)
        else:
            result.append(item)
    return result


@given(ITEMS)
@settings(deadline=None)
def test_merging_keeps_every_byte_and_the_order(items: list[ClientItem]) -> None:
    merged = list(merge(items))

    assert joined_without_bound(merged) == joined_without_bound(items)
    for item in merged:
        if isinstance(item, Output) and item not in items:
            assert len(item.data) <= MERGED
    for item, following in pairwise(merged):
        if isinstance(item, Output) and isinstance(following, Output):
            assert item.stream != following.stream or len(item.data) + len(following.data) > MERGED


def test_a_backlog_of_tokens_is_a_few_frames() -> None:
    backlog = [Output("stdout", b"a token ") for _ in range(20_000)]

    assert [len(item.data) for item in merge(backlog) if isinstance(item, Output)] == [
        65_536,
        65_536,
        28_928,
    ]


def test_the_terminal_event_is_the_last_frame() -> None:
    *_, last = sent([Output("stderr", b"\xff\xe2"), Output("stdout", b"\xe2"), DONE])

    assert last == InstanceEvent(instance_id=INSTANCE, event=1, message="done")
