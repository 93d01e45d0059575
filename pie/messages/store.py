"""To the store."""

from __future__ import annotations

from typing import TypeAlias

import attrs

from pie.mailbox import Ask


@attrs.frozen(eq=False)
class GetKey(Ask[str | None]):
    user: str
    key: str


@attrs.frozen(eq=False)
class SetKey(Ask[None]):
    user: str
    key: str
    value: str


@attrs.frozen(eq=False)
class DeleteKey(Ask[None]):
    user: str
    key: str


@attrs.frozen(eq=False)
class ListKeys(Ask[list[str]]):
    user: str


StoreMessage: TypeAlias = GetKey | SetKey | DeleteKey | ListKeys
