"""The store: what happens when its file cannot be used."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import pytest
import trio

from pie.actors.store import SqliteKeyValues, Store
from pie.errors import UsageError
from pie.mailbox import ask
from pie.messages import GetKey, ListKeys, SetKey, StoreMessage
from pie.offload import inline


async def test_a_file_that_cannot_be_used_is_told_to_who_asks_and_stops_nobody(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "state.db")
    pairs = SqliteKeyValues(path)
    address, mailbox = trio.open_memory_channel[StoreMessage](math.inf)
    async with trio.open_nursery() as nursery, address:
        nursery.start_soon(Store(mailbox, pairs, inline).run)
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
    await Store(mailbox, pairs, inline).run()
    with pytest.raises(UsageError, match="closed"):
        pairs.keys("local")
