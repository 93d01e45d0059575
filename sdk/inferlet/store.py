"""The user's key-value store: what is set is seen by the next `get`, also of later inferlets."""

from __future__ import annotations

from . import host


async def get(key: str) -> str | None:
    """The value, or None."""
    value: str | None = await host.store_get(key)
    return value


async def set(key: str, value: str) -> None:
    """Set or replace a value."""
    await host.store_set(key, value)


async def delete(key: str) -> None:
    """Forget a key; a missing one is no mistake."""
    await host.store_delete(key)


async def exists(key: str) -> bool:
    """Whether there is a value."""
    return bool(await host.store_exists(key))


async def keys() -> list[str]:
    """All keys."""
    return list(await host.store_list_keys())
