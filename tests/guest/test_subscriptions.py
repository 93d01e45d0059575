"""Subscriptions belong to their guest from the call on (contract X4, R10)."""

from __future__ import annotations

import math
from typing import Any

import trio

from pie.guest.host import Wait
from pie.guest.interfaces.message import subscribe

from .support import make_instance


async def test_a_subscription_is_the_guests_as_soon_as_it_counts() -> None:
    """One that it would have to wait for nobody could close, if it were ended meanwhile."""
    instance = make_instance()
    instance.broker = trio.open_memory_channel[Any](math.inf)[0]

    subscription = subscribe(instance, "topic")

    assert not isinstance(subscription, Wait)
    assert instance.subscriptions == 1
    subscription.close()
    assert instance.subscriptions == 0
