"""Every rare place of the engine is reached: by a seed of the sweep, by a scenario or a scene."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from pie.probes import listening
from pie.testing.determinism import run_simulated
from pie.testing.rare import rare_places
from pie.testing.sim import scenario_names

from .cancelling import theatre
from .scenarios import RESTART
from .scenes import SCENES
from .sweeping import short_sweep

ELSEWHERE = {
    "an export has a page that was never filled": "tests/actors/test_persistence_room.py",
    "somebody is let past the first in line": "tests/actors/test_no_deadlock.py",
}
"""Places that take an actor spoken to directly, and who does."""


def test_every_rare_place_of_the_engine_is_reached() -> None:
    """A check that held only where nothing special happens says little."""
    reached: set[str] = set()
    for scenario in scenario_names():
        reached |= set(short_sweep(scenario).reached)
    with theatre() as place, listening(reached.add):
        place.undisturbed(RESTART)
        for scene in SCENES:
            run_simulated(scene, seed=0)

    assert set(rare_places()) - reached - set(ELSEWHERE) == set()
    assert set(ELSEWHERE) <= set(rare_places())


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_a_scene_is_at_a_place_of_its_own(scene: Callable[[], Awaitable[None]]) -> None:
    """Scenes that are needed no more may go."""
    seen: set[str] = set()
    with listening(seen.add):
        run_simulated(scene, seed=0)

    assert seen & set(rare_places())
