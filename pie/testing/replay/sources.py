"""The instances of a replay, and their requests on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from pie.activity import Mover
from pie.errors import PieError
from pie.messages import ModelService
from pie.signals import Waiter
from pie.trace.reading import InstanceFacts, Request

from .requests import Pointers


class Bell(Waiter):
    """Stands in a reply's line like a task would, and calls a function instead."""

    def __init__(self, ring: Callable[[], None]) -> None:
        super().__init__()
        self._ring = ring

    def wake(self) -> None:
        self._ring()


@attrs.define(eq=False)
class Step:
    """A request on its way."""

    request: Request
    needs: int = 1
    """Of what it comes after, how much is not there yet: the request before, and answers."""
    following: Step | None = None
    """The next one of its instance."""
    past: bool = False
    """Nobody has to wait for it to be made."""
    issued: float = -1.0
    answered: float = -1.0
    times: list[float] = attrs.field(factory=list)
    """When the passes of a decoding ended, but for the last."""
    message: Any = None
    error: PieError | None = None


@attrs.define(eq=False)
class Source:
    """An instance: makes its requests one after the other."""

    facts: InstanceFacts
    steps: list[Step]
    mover: Mover
    services: list[ModelService]
    pointers: Pointers = attrs.field(factory=dict)
    busy: int = 0
    """Requests that its guest was running towards."""
    over: str | None = None
    """Why it does not go on."""

    def start(self) -> None:
        self.busy += 1
        self.mover.start()

    def stop(self) -> None:
        self.busy -= 1
        if not self.busy:
            self.mover.stop()
