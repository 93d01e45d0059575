"""Chunked uploads: what is wrong with one is said when its sender listens, and costs nothing."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from pie.server.blobs import hash_of
from pie.server.frames import CHUNK
from pie.server.uploads import MAX_FAILED, Budget, Failed, Finished, Uploads

from .upload_machine import UploadMachine

MIB = 1 << 20


def uploads(*, max_bytes: int = 4 * MIB, limit: int = 8 * MIB, max_open: int = 4) -> Uploads:
    return Uploads(max_bytes=max_bytes, budget=Budget(limit=limit), max_open=max_open)


def send(
    to: Uploads,
    data: bytes = b"",
    *,
    index: int = 0,
    total: int = 2,
    key: str = "0" * 64,
    corr_id: int = 1,
    now: float = 0.0,
) -> Finished | Failed | None:
    return to.receive(now=now, corr_id=corr_id, key=key, index=index, total=total, data=data)


def text_of(answer: Finished | Failed | None) -> str:
    assert isinstance(answer, Failed)
    return answer.text


def run_machine(examples: int, steps: int, *, derandomize: bool = False) -> None:
    run_state_machine_as_test(
        UploadMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=derandomize,
        ),
    )


def test_any_chunks_in_any_order_do_what_a_plain_list_does() -> None:
    run_machine(200, 30, derandomize=True)


@pytest.mark.long
def test_any_chunks_in_any_order_do_what_a_plain_list_does_at_length() -> None:
    run_machine(2000, 60)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 5 * CHUNK + 7])
def test_what_the_published_client_sends_arrives(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    to, total = uploads(), max(1, -(-size // CHUNK))
    answers = [
        send(
            to,
            data[index * CHUNK : (index + 1) * CHUNK],
            index=index,
            total=total,
            key=hash_of(data).upper(),
        )
        for index in range(total)
    ]

    assert answers[:-1] == [None] * (total - 1)
    finished = answers[-1]
    assert isinstance(finished, Finished)
    assert (finished.key, finished.data()) == (hash_of(data), data)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"index": 2}, "Out-of-order chunk: expected 1, got 2"),
        ({"index": 0}, "Out-of-order chunk: expected 1, got 0"),
        ({"total": 5}, "Chunk count mismatch: expected 4, got 5"),
        ({"key": "1" * 64}, f"Hash changed: expected {'0' * 64}, got '{'1' * 64}'"),
        ({"data": bytes(CHUNK + 1)}, f"Chunk size {CHUNK + 1} exceeds limit {CHUNK}"),
    ],
)
def test_a_wrong_chunk_fails_its_upload_at_once_and_once_more_at_its_end(
    changed: dict[str, object], text: str
) -> None:
    """The published client listens only once it has sent the last one."""
    to = uploads()
    send(to, b"a", total=4)
    right = {"data": b"b", "index": 1, "total": 4}

    assert text_of(send(to, **{**right, **changed})) == text  # type: ignore[arg-type]
    assert to.budget.held == 0
    assert send(to, b"c", index=2, total=4) is None
    assert text_of(send(to, b"d", index=3, total=4)) == text
    assert to.starts(1)


@pytest.mark.parametrize(
    ("first", "text"),
    [
        ({"index": 1}, "First chunk index must be 0, got 1"),
        ({"total": 0}, "Chunk count must be at least 1, got 0"),
        ({"key": "é" * 64}, "Hash must be 64 hexadecimal digits (BLAKE3), got"),
        ({"key": "0" * 65}, "Hash must be 64 hexadecimal digits (BLAKE3), got"),
        ({"key": "x" * MIB}, "Hash must be 64 hexadecimal digits (BLAKE3), got"),
        ({"total": 17}, f"17 chunks of {CHUNK} bytes exceed the limit of {4 * MIB} bytes"),
        ({"total": 0xFFFF_FFFF}, "exceed the limit"),
    ],
)
def test_a_wrong_first_chunk_is_refused(first: dict[str, object], text: str) -> None:
    answer = text_of(send(uploads(), **first))  # type: ignore[arg-type]

    assert text in answer
    assert len(answer) < 200


def test_a_failure_at_the_last_chunk_is_answered_once() -> None:
    to = uploads()

    assert text_of(send(to, b"a", total=1)) == (
        f"Hash mismatch: expected {'0' * 64}, got {hash_of(b'a')}"
    )
    assert to.starts(1)


def test_the_limit_is_on_bytes_not_on_whole_chunks() -> None:
    to = uploads(max_bytes=10)

    assert text_of(send(to, bytes(11), total=1)) == "11 bytes exceed the limit of 10 bytes"
    assert isinstance(send(to, bytes(10), total=1, key=hash_of(bytes(10))), Finished)


def test_uploads_of_one_content_may_interleave() -> None:
    """A client sends the same blob to two instances at once."""
    to, key = uploads(), hash_of(b"ab")
    for corr_id in (1, 2):
        assert send(to, b"a", key=key, corr_id=corr_id) is None

    for corr_id in (1, 2):
        assert isinstance(send(to, b"b", index=1, key=key, corr_id=corr_id), Finished)


def test_one_connection_cannot_open_any_number_of_them() -> None:
    to = uploads(max_open=1)
    send(to, b"a")

    assert text_of(send(to, b"a", corr_id=2)) == (
        "1 uploads are unfinished on this connection already"
    )


def test_what_all_connections_hold_is_bounded() -> None:
    first = uploads(limit=5)
    second = Uploads(max_bytes=MIB, budget=first.budget)
    send(first, b"1234")

    assert text_of(send(second, b"56")) == (
        "unfinished uploads of all clients hold 4 of 5 bytes: try again later"
    )
    first.close()
    assert send(second, b"56", corr_id=2) is None


def test_an_idle_upload_is_dropped_with_an_answer_now_and_at_its_end() -> None:
    to = uploads()
    send(to, b"a", now=0.0)
    send(to, b"a", now=1.0, corr_id=2)
    text = "dropped: no chunk came for 60 seconds"

    assert to.expired(60.0, 60.0) == [Failed(corr_id=1, text=text)]
    assert to.budget.held == 1
    assert to.expired(60.0, 60.0) == []
    assert text_of(send(to, b"b", index=1, now=61.0)) == text


def test_every_chunk_keeps_its_upload() -> None:
    to = uploads()
    send(to, b"a", total=3, now=0.0)
    send(to, b"b", total=3, index=1, now=50.0)

    assert to.expired(109.0, 60.0) == []
    assert len(to.expired(110.0, 60.0)) == 1


def test_failed_uploads_whose_rest_never_comes_are_forgotten() -> None:
    to = uploads()
    for corr_id in range(MAX_FAILED + 1):
        send(to, index=1, total=3, corr_id=corr_id, now=corr_id)

    assert [corr_id for corr_id in range(MAX_FAILED + 1) if to.starts(corr_id)] == [0]
    assert to.expired(60.0, 50.0) == []
    assert [corr_id for corr_id in range(MAX_FAILED + 1) if to.starts(corr_id)] == [*range(11)]
