"""Devices of both kinds for tests of decoding."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import players


@pytest.fixture(scope="module", params=[1, 64])
def both_devices(request: pytest.FixtureRequest) -> Iterator[None]:
    """One that makes single steps, and one that goes on by itself."""
    players.multi_steps = request.param
    yield
    players.multi_steps = 1
