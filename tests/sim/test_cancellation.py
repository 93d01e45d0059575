"""Whatever is cancelled, wherever it stands: nothing is left, and the others do not notice."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from pie.activity import Mover
from pie.actors.exports import ExportBook
from pie.actors.ledger import Ledger
from pie.actors.room import Room
from pie.actors.supervisor import Supervisor
from pie.guest.calls import GUESTS
from pie.guest.driver import Guest
from pie.guest.native import NativeHost
from pie.probes import listening

from .cancelling import Run, Scenario, Theatre, theatre
from .scenarios import ALL, CLIENTS, COMPONENTS, CONTENTION, DISK, DRAINING, RESTART, SHARING

MOST = 400
"""Checkpoints of a scenario."""


@pytest.mark.parametrize("scenario", ALL, ids=lambda s: s.name)
@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.long)])
def test_nothing_is_left_of_what_is_cancelled_at_a_checkpoint(
    scenario: Scenario, stride: int
) -> None:
    with theatre() as place:
        assert _sweep(place, scenario, stride) <= MOST


def _sweep(place: Theatre, scenario: Scenario, stride: int) -> int:
    """Cancel everything at each `stride`-th checkpoint; how many there are."""
    undisturbed = place.undisturbed(scenario)
    for at in undisturbed.everything_at(stride):
        place.cancelled(scenario, at, undisturbed.outcomes)
    return undisturbed.checkpoints


def _nothing(*_: object) -> None:
    """What should happen does not."""


async def _nothing_later(*_: object) -> None:
    """What should happen does not."""


BUGS = [
    (COMPONENTS, Room, "leave", _nothing),
    (SHARING, ExportBook, "leave", _nothing),
    (CONTENTION, Ledger, "drop", _nothing),
    (DRAINING, Ledger, "_finish_draining", _nothing),
    (COMPONENTS, Supervisor, "_release", _nothing_later),
    (COMPONENTS, Guest, "close", _nothing),
    (CLIENTS, NativeHost, "close", _nothing),
    (CLIENTS, Mover, "stop", _nothing),
]


@pytest.mark.parametrize(
    ("scenario", "owner", "name", "broken"), BUGS, ids=[f"{b[1].__name__}.{b[2]}" for b in BUGS]
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_leak_is_found(
    scenario: Scenario, owner: Any, name: str, broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep can fail: each part of the way out is needed."""
    with theatre() as place:
        undisturbed = place.undisturbed(scenario)
        monkeypatch.setattr(owner, name, broken)
        assert "At(checkpoint=" in _first_failure(place, scenario, undisturbed)
        # What the broken run has left is given up.
        place.host._guests = 0
        GUESTS.clear()


def _first_failure(place: Theatre, scenario: Scenario, undisturbed: Run) -> str:
    for at in undisturbed.everything_at(3):
        try:
            place.cancelled(scenario, at, undisturbed.outcomes)
        except (AssertionError, ExceptionGroup, trio.TooSlowError) as error:
            return error.__notes__[-1]
    return "nothing has failed"


PASSED = {
    CONTENTION: {
        "somebody stands in line for room",
        "pages move to host memory",
        "a return from host memory is joined",
    },
    SHARING: {"an import waits for its writers", "a page is copied on write"},
    DISK: {"an export is written to its file"},
    RESTART: {
        "an export is read from its file",
        "an import waits for a file",
        "an export is lost with its file",
        "an export is released while its file is read",
    },
    CLIENTS: {"an outbox is full", "a dropped receive gives its message back"},
    DRAINING: {"a lost batch is repeated by instance", "a long pass is split over steps"},
    COMPONENTS: {
        "a preempted guest stops counting",
        "somebody stands in line for room",
        "a page is copied on write",
    },
}


@pytest.mark.parametrize("scenario", ALL, ids=lambda s: s.name)
def test_a_scenario_passes_through_what_it_is_for(scenario: Scenario) -> None:
    seen: set[str] = set()
    with theatre() as place, listening(seen.add):
        place.undisturbed(scenario)

    assert seen >= PASSED[scenario]
