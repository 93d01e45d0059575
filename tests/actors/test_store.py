"""The store: what happens when its file cannot be used."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import pytest
import trio

from pie.actors.store import KeyValues, MemoryKeyValues, SqliteKeyValues, Store
from pie.errors import LimitExceeded, UsageError
from pie.mailbox import ask
from pie.messages import DeleteKey, GetKey, ListKeys, SetKey, StoreMessage
from pie.offload import inline


async def test_a_file_that_cannot_be_used_is_told_to_who_asks_and_stops_nobody(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "state.db")
    pairs = SqliteKeyValues(path)
    address, mailbox = trio.open_memory_channel[StoreMessage](math.inf)
    async with trio.open_nursery() as nursery, address:
        nursery.start_soon(Store(mailbox, pairs, inline, 1000).run)
        await ask(address, SetKey("local", "key", "value"))
        other = sqlite3.connect(path)
        other.execute("ALTER TABLE pairs RENAME TO hidden")
        reason = r"cannot keep state in .*state\.db: no such table"
        with pytest.raises(UsageError, match=reason):
            await ask(address, SetKey("local", "key", "new"))
        with pytest.raises(UsageError, match=reason):
            await ask(address, ListKeys("local"))
        other.execute("ALTER TABLE hidden RENAME TO pairs")
        other.close()
        assert await ask(address, GetKey("local", "key")) == "value"


async def test_the_file_is_closed_with_the_store(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    pairs = SqliteKeyValues(str(path))
    address, mailbox = trio.open_memory_channel[StoreMessage](math.inf)
    address.close()
    await Store(mailbox, pairs, inline, 1000).run()
    with pytest.raises(UsageError, match="closed"):
        pairs.keys("local")


@pytest.mark.parametrize("on_disk", [False, True])
async def test_a_user_may_keep_so_much_and_another_as_much_again(
    tmp_path: Path, on_disk: bool
) -> None:
    """`max_store_bytes`: also of what was there before the start; what is replaced counts once."""
    path = str(tmp_path / "state.db")
    pairs: KeyValues = SqliteKeyValues(path) if on_disk else MemoryKeyValues()
    pairs.set("ann", "é", "x" * 498)
    address, mailbox = trio.open_memory_channel[StoreMessage](math.inf)
    async with trio.open_nursery() as nursery, address:
        nursery.start_soon(Store(mailbox, pairs, inline, 1000).run)
        await ask(address, SetKey("ann", "b", "y" * 499))
        with pytest.raises(LimitExceeded, match=r"'ann' would have 1001 bytes .* is 1000 \(max_s"):
            await ask(address, SetKey("ann", "c", ""))
        await ask(address, SetKey("ann", "b", "z" * 498))
        await ask(address, SetKey("ann", "c", ""))
        await ask(address, SetKey("bob", "b", "y" * 999))
        await ask(address, DeleteKey("ann", "é"))
        await ask(address, SetKey("ann", "d", "y" * 499))
        assert await ask(address, ListKeys("ann")) == ["b", "c", "d"]
