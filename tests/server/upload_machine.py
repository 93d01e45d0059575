"""Uploads of two connections against a plain model of them."""

from __future__ import annotations

from typing import Any

import attrs
import blake3
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pie.server.frames import CHUNK
from pie.server.uploads import Budget, Failed, Finished, Uploads

FULL = b"\x07" * CHUNK
CONTENTS = {
    1: (b"",),
    2: (b"abc",),
    3: (b"a", b"", b"bcd"),
    4: (FULL, FULL, b"end"),
    5: (FULL, FULL, FULL),
    6: (b"x", b"y", b"z"),
}
"""What the requests upload, by corr_id."""
MAX_BYTES = 2 * CHUNK + 10
LIMIT = 3 * CHUNK
MAX_OPEN = 2
IDLE = 10

CONNECTIONS = st.integers(0, 1)
REQUESTS = st.sampled_from(sorted(CONTENTS))
DATA = {"empty": b"", "a": b"a", "bcd": b"bcd", "full": FULL, "too long": FULL + b"x"}


def name(contents: tuple[bytes, ...]) -> str:
    digest: str = blake3.blake3(b"".join(contents)).hexdigest()
    return digest


KEYS = st.sampled_from([name(c) for c in CONTENTS.values()] + ["", "xyz", "g" * 64])


@attrs.define
class Plain:
    """One connection as a list of what each request has sent so far."""

    chunks: dict[int, list[bytes]] = attrs.field(factory=dict)
    said: dict[int, tuple[str, int]] = attrs.field(factory=dict)
    """Hash and number of chunks at the first chunk."""
    failed: set[int] = attrs.field(factory=set)
    heard: dict[int, int] = attrs.field(factory=dict)

    @property
    def held(self) -> int:
        return sum(len(chunk) for chunks in self.chunks.values() for chunk in chunks)

    def end(self, corr_id: int, *, more: bool) -> None:
        self.chunks.pop(corr_id, None)
        self.said.pop(corr_id, None)
        self.failed.discard(corr_id)
        if more:
            self.failed.add(corr_id)

    def wants(
        self, corr_id: int, key: str, index: int, total: int, data: bytes, room: int
    ) -> str | None:
        """What a chunk that is not of a failed upload comes to: "finished", "failed" or None."""
        before = self.chunks.get(corr_id, [])
        if corr_id not in self.chunks:
            hexadecimal = len(key) == 64 and set(key) <= set("0123456789abcdef")
            if not hexadecimal or not 1 <= total <= 3 or len(self.chunks) >= MAX_OPEN:
                return "failed"
        elif self.said[corr_id] != (key, total):
            return "failed"
        whole = b"".join([*before, data])
        if index != len(before) or len(data) > min(CHUNK, room) or len(whole) > MAX_BYTES:
            return "failed"
        if index + 1 < total:
            return None
        return "finished" if blake3.blake3(whole).hexdigest() == key else "failed"


class UploadMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.budget = Budget(limit=LIMIT)
        self.real = [self._open() for _ in range(2)]
        self.plain = [Plain(), Plain()]

    def _open(self) -> Uploads:
        return Uploads(max_bytes=MAX_BYTES, budget=self.budget, max_open=MAX_OPEN)

    def send(
        self, connection: int, corr_id: int, key: str, index: int, total: int, data: bytes
    ) -> None:
        plain, more = self.plain[connection], index + 1 < total
        again = corr_id in plain.failed
        assert self.real[connection].starts(corr_id) == (not again and corr_id not in plain.chunks)
        room = LIMIT - self.plain[0].held - self.plain[1].held
        expected = "failed" if again else plain.wants(corr_id, key, index, total, data, room)
        before = plain.chunks.get(corr_id, [])
        result: Any = self.real[connection].receive(
            now=self.now, corr_id=corr_id, key=key, index=index, total=total, data=data
        )
        plain.heard[corr_id] = self.now
        if expected == "failed":
            plain.end(corr_id, more=more)
            assert type(result) is (type(None) if again and more else Failed)
            assert result is None or result.corr_id == corr_id
        elif expected == "finished":
            plain.end(corr_id, more=False)
            assert result == Finished(corr_id=corr_id, key=key, chunks=(*before, data))
        else:
            assert result is None
            plain.chunks[corr_id] = [*before, data]
            plain.said[corr_id] = (key, total)

    @rule(connection=CONNECTIONS, corr_id=REQUESTS)
    def next_chunk(self, connection: int, corr_id: int) -> None:
        contents = CONTENTS[corr_id]
        index = min(len(self.plain[connection].chunks.get(corr_id, [])), len(contents) - 1)
        self.send(connection, corr_id, name(contents), index, len(contents), contents[index])

    @rule(
        connection=CONNECTIONS,
        corr_id=REQUESTS,
        wrong=st.fixed_dictionaries(
            {},
            optional={
                "key": KEYS,
                "index": st.integers(0, 4),
                "total": st.integers(0, 5),
                "data": st.sampled_from(sorted(DATA)),
            },
        ),
    )
    def another_chunk(self, connection: int, corr_id: int, wrong: dict[str, Any]) -> None:
        contents = CONTENTS[corr_id]
        index = min(len(self.plain[connection].chunks.get(corr_id, [])), len(contents) - 1)
        right = {
            "key": name(contents),
            "index": index,
            "total": len(contents),
            "data": contents[index],
        }
        if "data" in wrong:
            wrong = {**wrong, "data": DATA[wrong["data"]]}
        self.send(connection, corr_id, **{**right, **wrong})

    @rule(connection=CONNECTIONS, corr_id=REQUESTS)
    def refuse(self, connection: int, corr_id: int) -> None:
        """As for an instance that is not the sender's."""
        plain, total = self.plain[connection], len(CONTENTS[corr_id])
        if corr_id in plain.failed:
            return
        index = min(len(plain.chunks.get(corr_id, [])), total - 1)
        result = self.real[connection].fail(
            now=self.now, corr_id=corr_id, index=index, total=total, text="no"
        )
        assert result == Failed(corr_id=corr_id, text="no")
        plain.heard[corr_id] = self.now
        plain.end(corr_id, more=index + 1 < total)

    @rule(seconds=st.integers(1, 12))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(connection=CONNECTIONS)
    def expire(self, connection: int) -> None:
        plain = self.plain[connection]
        late = {c for c, heard in plain.heard.items() if self.now - heard >= IDLE}
        plain.failed -= late
        dropped = late & set(plain.chunks)
        for corr_id in dropped:
            plain.end(corr_id, more=True)
            plain.heard[corr_id] = self.now
        result = self.real[connection].expired(self.now, IDLE)
        assert {failed.corr_id for failed in result} == dropped

    @rule(connection=CONNECTIONS)
    @precondition(lambda self: any(plain.chunks for plain in self.plain))
    def reconnect(self, connection: int) -> None:
        self.real[connection].close()
        self.real[connection] = self._open()
        self.plain[connection] = Plain()

    @invariant()
    def the_budget_is_what_is_held(self) -> None:
        assert self.budget.held == sum(plain.held for plain in self.plain) <= LIMIT

    def teardown(self) -> None:
        for connection in self.real:
            connection.close()
        assert self.budget.held == 0
