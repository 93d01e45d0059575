"""Several guests at once: what they share, and what they must not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import attrs
import pytest
import trio

from pie.config import EngineConfig
from pie.engine import Engine
from pie.ids import EventCode
from pie.messages import Event, Launched
from pie.testing import simulated_engine

from .guest.cases import CASES
from .running import component, end_of, engine_for, run_alone, start

CALLERS = ["native", "Python"]


@pytest.fixture(params=CALLERS)
def caller(request: pytest.FixtureRequest) -> str:
    """What the guests are made of; a component is loaded before the test's own loop runs."""
    kind: str = request.param
    if kind == "Python":
        component("Python")
    return kind


@attrs.frozen
class Part:
    """A case that takes steps with its client."""

    engine: Engine
    launched: Launched

    async def says(self, text: str) -> None:
        """Wait for its next message, which must be this one."""
        item = await anext(self.launched.outbox)
        assert item == Event(EventCode.MESSAGE, text)

    async def go_on(self) -> None:
        await self.engine.send(self.launched.instance, "go on")

    async def returned(self) -> object:
        return (await end_of(self.launched)).returned


async def play(engine: Engine, name: str, caller: str, user: str = "local") -> Part:
    return Part(engine, await start(engine, CASES[name], caller, user))


async def test_pages_in_use_stay_and_who_needs_them_waits(caller: str) -> None:
    """Contract R1, R2, R4, R5, R6: the resource scenario on eight pages; nobody is ended.

    Freeing frees the page meant, and the exporter's end leaves its export. Once that is released
    the pages are the importer's own: they make room in host memory, and come back as they were.
    """
    first = dataclasses.replace(CASES["exporter_of_two_pages"], model={"pages": 8})
    async with engine_for(first) as engine:
        exporter = await play(engine, first.name, caller)
        await exporter.says("exported")
        asker = await play(engine, "asker_for_many_pages", caller)
        await asker.says("has two")
        await exporter.go_on()
        assert await exporter.returned() == [0, 1, 2, 3]
        importer = await play(engine, "importer_that_releases", caller)
        await importer.says("imported")
        await importer.go_on()
        await importer.says("released")
        await trio.sleep(5)
        assert (await engine.stats())["simulated"].pages_free == 4
        await asker.go_on()
        await asker.says("has eight")
        assert await asker.returned() == [[0, 1, 2], [1, 3, 4, 5, 6, 7]]
        await importer.go_on()
        assert await importer.returned() == [[0, 1], [], True, True]


async def test_what_can_never_fit_ends_at_once_with_both_numbers(caller: str) -> None:
    """Contract R5, G3: event 5, and for nobody but the one that asked."""
    asker = dataclasses.replace(CASES["asker_for_too_many_pages"], model={"pages": 8})
    async with engine_for(asker) as engine:
        beside = await start(engine, CASES["bystander"], caller)
        event = (await end_of(await start(engine, asker, caller))).event
        assert event.code is EventCode.OUT_OF_RESOURCES
        assert "holds 2" in event.text
        assert "7 more" in event.text
        assert (await end_of(beside)).event.code is EventCode.COMPLETED


async def test_two_users_do_not_meet(caller: str) -> None:
    """Contract X3, X4, X7, R3, R6: exports, keys, topics, instances, and what was in a slot."""
    first = dataclasses.replace(CASES["user_with_traces"], keeps=1)
    async with engine_for(first) as engine:
        one = await play(engine, first.name, caller, "one")
        await one.says("ready")
        other = await play(engine, "user_who_looks_around", caller, "other")
        assert await other.returned() == [[[0.0]], [], None, None, [], "1"]
        await one.go_on()
        assert await one.returned() == [None, "secret"]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.traps])
async def test_a_trap_disturbs_nobody(name: str, caller: str) -> None:
    """Contract G1, R10: it ends that guest alone, and nothing of it is left."""
    beside = CASES["bystander"]
    expected = (await run_alone(beside, "native")).returned
    async with engine_for(CASES[name]) as engine:
        other = await start(engine, beside, "native")
        ending = await end_of(await start(engine, CASES[name], caller))
        assert ending.event == Event(EventCode.EXCEPTION, CASES[name].traps)
        assert (await end_of(other)).returned == expected


async def test_keys_outlive_the_engine_on_disk_only(tmp_path: Path) -> None:
    """Contract R7: one setting says whether the state is kept on disk or in memory."""

    async def found(state: str | None) -> object:
        async with simulated_engine(config=EngineConfig(state_path=state)) as engine:
            part = await play(engine, "keeper_of_a_key", "native")
            return await part.returned()

    path = str(tmp_path / "state.sqlite")
    assert [await found(path), await found(path)] == [None, "kept"]
    assert [await found(None), await found(None)] == [None, None]
