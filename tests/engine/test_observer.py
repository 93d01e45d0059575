"""Whoever watches a model's scheduler is told everything, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import inferlet
import trio

from pie.actors.ledger import Ledger
from pie.batch import Batch
from pie.config import EngineConfig, Scheduling
from pie.engine import open_engine
from pie.errors import PassFailed, PieError
from pie.ids import EventCode, InstanceId
from pie.messages import Event, LaunchContext
from pie.offload import inline
from pie.testing import HashModel, LinearTiming, SimulatedGpu, run_native


@attrs.define
class Diary:
    """Notes the kinds of what it is told."""

    told: list[str] = attrs.field(factory=list)

    def opened(self, ledger: Ledger, /) -> None:
        self.told.append("opened")

    def took(self, message: Any, /) -> None:
        self.told.append(type(message).__name__)

    def submitted(self, work: Any, /) -> None:
        self.told.append(f"submitted {work.sequence}")

    def began(self, step: Sequence[Any], batch: Batch, /) -> None:
        self.told.append(f"began {[chunk.work.sequence for chunk in step]} of {batch.rows} rows")

    def followed(self, step: Sequence[Any], batch: Batch, /) -> None:
        self.began(step, batch)

    def ended(self, step: Sequence[Any], lost: PieError | None, /) -> None:
        self.told.append("ended" if lost is None else "lost")

    def proceeded(self, work: Any, /) -> None:
        self.told.append(f"proceeded as {work.sequence}")

    def finished(self, work: Any, /) -> None:
        self.told.append(f"finished {work.sequence}" + (" in vain" if work.error else ""))

    def moved_out(self, numbers: Sequence[int], /) -> None:
        self.told.append(f"out {numbers}")

    def moved_back(self, numbers: Sequence[int], /) -> None:
        self.told.append(f"back {numbers}")


@attrs.define
class Visitors:
    """Notes what becomes of instances, and when."""

    told: list[tuple[float, str]] = attrs.field(factory=list)

    def launched(self, context: LaunchContext, program: str, /) -> None:
        self._note(f"{program} {context.id} of {context.user}")

    def moving(self, instance: InstanceId, moves: bool, /) -> None:
        self._note("moves" if moves else "waits")

    def gone(self, instance: InstanceId, last: Event, /) -> None:
        self._note(f"{instance} {last.code.name}")

    def _note(self, text: str) -> None:
        self.told.append((trio.current_time(), text))


class Losing(HashModel):
    """Loses every batch."""

    def run(self, batch: Batch) -> Any:
        raise PassFailed("lost")


async def _step(_: list[str]) -> None:
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.fill("ab")
    await context.step(inferlet.Greedy())


async def _told(model: HashModel, main: Any, config: EngineConfig | None = None) -> list[str]:
    diary = Diary()
    device = SimulatedGpu(model)
    async with open_engine([device], config, offload=inline, observe=lambda _: diary) as engine:
        await run_native(engine, main)
    return diary.told


async def test_the_life_of_a_pass_is_told_in_order() -> None:
    assert await _told(HashModel(), _step) == [
        "opened",
        "OpenInstance",
        "AllocatePointers",
        "submitted 1",
        "SubmitPass",
        "began [1] of 2 rows",
        "ended",
        "finished 1",
        "EndInstance",
        "EndInstance",
    ]


async def test_a_lost_batch_is_told_with_the_pass_that_failed() -> None:
    told = await _told(Losing(), _step)

    assert told[5:8] == ["began [1] of 2 rows", "lost", "finished 1 in vain"]


async def test_pages_that_move_are_told() -> None:

    async def old(_: list[str]) -> None:
        first = await inferlet.Context.create(await inferlet.get_model())
        await first.fill("x" * 3 * 16)
        await first.step(inferlet.Greedy())
        await inferlet.sleep(10)
        await first.step(inferlet.Greedy())

    async def young(_: list[str]) -> None:
        context = await inferlet.Context.create(await inferlet.get_model())
        await context.fill("y" * 2 * 16)
        await context.step(inferlet.Greedy())

    diary = Diary()
    config = EngineConfig(scheduling=Scheduling(host_pages=4))
    device = SimulatedGpu(HashModel(pages=4))
    async with (
        open_engine([device], config, offload=inline, observe=lambda _: diary) as engine,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(run_native, engine, old)
        await trio.sleep(1)
        nursery.start_soon(run_native, engine, young)

    assert [text for text in diary.told if text.startswith(("out", "back"))] == [
        "out [0]",
        "back [0]",
    ]


async def test_a_guest_is_seen_from_its_launch_to_its_end() -> None:
    """It waits for pages, the step, the clock; what takes no time is not told apart from these."""

    async def main(_: list[str]) -> None:
        await _step(_)
        await inferlet.sleep(10)

    visitors = Visitors()
    async with open_engine([SimulatedGpu()], offload=inline, guests=visitors) as engine:
        began = trio.current_time()
        await run_native(engine, main)

    texts = [text for _, text in visitors.told]
    assert texts[0] == "main 0 of local"
    assert texts[-1] == f"0 {EventCode.COMPLETED.name}"
    assert texts[1:-1] == ["moves", "waits"] * (len(texts) // 2 - 1)
    step = LinearTiming().step_seconds + 2 * LinearTiming().row_seconds
    woken = {round(at - began, 6) for at, text in visitors.told if text == "moves"}
    assert woken == {0.0, round(step, 6), round(step + 10, 6)}
