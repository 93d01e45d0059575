"""Kept exports and the line for room (contract R5, R7)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import TypeVar

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pie.actors.persistence import StateFolder
from pie.errors import Closed, GuestError, OutOfResources, PassFailed
from pie.messages import (
    EndInstance,
    ExportPointers,
    FreePointers,
    ImportPointers,
    ListExports,
    ReleaseExport,
)
from pie.offload import inline
from pie.testing import HashModel, SimulatedGpu

from .keeping import (
    PAGES,
    PREFIX,
    Gate,
    continuation,
    expected,
    files,
    import_,
    prefill,
    write_one,
)
from .scheduling import PAGE, Bench, a_pass, scheduler_bench, tokens_of

T = TypeVar("T")


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path, inline)


async def test_a_load_waits_in_line_for_room(state: StateFolder) -> None:
    """Contract R5: by the importer's age."""
    await write_one(state)
    async with scheduler_bench(HashModel(pages=4), state=state) as bench:
        other, me = bench.open(0), bench.open(1)
        held = await bench.allocate(other, 2)
        question = ImportPointers(me, PAGE, "prefix")
        bench.movers[other].start()  # it may yet free what it holds
        bench.service.tell(question)
        await wait_all_tasks_blocked()
        assert not question.reply.ready()
        assert (await bench.stats()).waiting == 1
        bench.service.tell(FreePointers(other, PAGE, held))
        pages = await question.reply.wait()
        assert pages is not None
        assert await continuation(bench, me, pages) == await expected()
        bench.movers[other].stop()


async def test_an_entry_larger_than_the_pool_ends_its_importer(state: StateFolder) -> None:
    await write_one(state)
    async with scheduler_bench(HashModel(pages=2), state=state) as bench:
        with pytest.raises(OutOfResources, match="needs 3 more; 2 of 2 are free"):
            await import_(bench, bench.open())


async def test_an_importer_that_ends_in_line_leaves_the_entry_to_others(
    state: StateFolder,
) -> None:
    await write_one(state)
    async with scheduler_bench(HashModel(pages=4), state=state) as bench:
        other, first, second = bench.open(0), bench.open(1), bench.open(2)
        held = await bench.allocate(other, 2)
        bench.movers[other].start()
        question = ImportPointers(first, PAGE, "prefix")
        bench.service.tell(question)
        await wait_all_tasks_blocked()
        await bench.service.ask(EndInstance(first, drain=False))
        with pytest.raises(Closed):
            await question.reply.wait()
        bench.service.tell(FreePointers(other, PAGE, held))
        bench.movers[other].stop()
        assert await continuation(bench, second, await import_(bench, second)) == await expected()


async def test_an_entry_released_while_its_load_is_in_line_gives_back_what_it_took(
    state: StateFolder,
) -> None:
    """Told once that the export is gone, the importer is not told again when it ends."""
    await write_one(state)
    async with scheduler_bench(HashModel(pages=3), state=state) as bench:
        other, me = bench.open(0), bench.open(1)
        await bench.allocate(other, 1)
        bench.movers[other].start()
        question = ImportPointers(me, PAGE, "prefix")
        bench.service.tell(question)
        await wait_all_tasks_blocked()
        bench.service.tell(ReleaseExport(other, PAGE, "prefix"))
        with pytest.raises(GuestError, match="it was released"):
            await question.reply.wait()
        await bench.service.ask(EndInstance(me, drain=False))
        bench.movers[other].stop()
        stats = await bench.stats()
        assert (stats.pages_free, stats.waiting) == (2, 0)
        assert not bench.scheduler._table.room.host.extra
    assert files(state) == []


async def test_an_importer_that_ends_during_the_load_takes_nothing(tmp_path: Path) -> None:
    await write_one(StateFolder(tmp_path, inline))
    gate = Gate("load")
    async with scheduler_bench(state=StateFolder(tmp_path, gate)) as bench:
        first, second = bench.open(0), bench.open(1)
        question = ImportPointers(first, PAGE, "prefix")
        bench.service.tell(question)
        await wait_all_tasks_blocked()
        await bench.service.ask(EndInstance(first, drain=False))
        gate.opened.set()
        await wait_all_tasks_blocked()
        assert not bench.scheduler._table.room.host.extra
        with pytest.raises(Closed):
            await question.reply.wait()
        assert await continuation(bench, second, await import_(bench, second)) == await expected()


async def test_pages_on_their_way_back_are_exported_with_what_they_held(
    state: StateFolder,
) -> None:
    """While a step runs they are granted: they have numbers, but not yet their contents."""
    async with scheduler_bench(HashModel(pages=7), host_pages=7, state=state) as bench:
        me, other = bench.open(0), bench.open(1)
        pages = await prefill(bench, me)
        assert await bench.service.ask(ExportPointers(me, PAGE, pages, "first"))
        bench.service.tell(FreePointers(me, PAGE, pages))
        held = await bench.allocate(other, 7)
        assert (await bench.stats()).moved_out == PAGES
        bench.service.tell(FreePointers(other, PAGE, held[1:]))
        running = bench.submit(other, a_pass([1], held[:1], 1))
        await wait_all_tasks_blocked()
        again = await import_(bench, me, "first")
        exported = ExportPointers(me, PAGE, again, "second")
        bench.service.tell(exported)
        assert not running.reply.ready()
        assert await exported.reply.wait()
    async with scheduler_bench(state=state) as bench:
        me = bench.open()
        assert await continuation(bench, me, await import_(bench, me, "second")) == await expected()


async def test_a_page_that_was_never_filled_is_no_export(state: StateFolder) -> None:
    """There was no room for the copy that a pass would have written to."""
    async with scheduler_bench(HashModel(pages=2), state=state) as bench:
        me, other = bench.open(0), bench.open(1)
        (page,) = await bench.allocate(me, 1)
        await bench.allocate(other, 1)
        await tokens_of(bench.submit(me, a_pass([1], (page,), 1)))
        assert await bench.service.ask(ExportPointers(me, PAGE, (page,), "good"))
        with pytest.raises(OutOfResources):
            await bench.submit(me, a_pass([1], (page,), 2)).reply.wait()
        with pytest.raises(PassFailed, match="'bad': a pass that should have filled a page"):
            await bench.service.ask(ExportPointers(me, PAGE, (page,), "bad"))
        assert await bench.service.ask(ListExports(me, PAGE)) == [("good", 1)]
    assert len(files(state)) == 1


async def test_an_entry_may_be_released_while_its_pages_are_read(state: StateFolder) -> None:
    """Some were in host memory, and are nobody's when the read is done."""
    model = HashModel(pages=4)
    reading = trio.Event()

    class Slow(SimulatedGpu):
        async def apply(self, method: Callable[..., T], /, *arguments: object) -> T:
            if exported:
                reading.set()
                await trio.sleep(1)
            return method(*arguments)

    exported: list[ExportPointers] = []
    async with scheduler_bench(model, run=Slow(model), host_pages=4, state=state) as bench:
        me, other = bench.open(0), bench.open(1)
        pages = await prefill(bench, me)
        await bench.allocate(other, 3)
        exported.append(ExportPointers(me, PAGE, pages, "prefix"))
        bench.service.tell(exported[0])
        await reading.wait()
        bench.service.tell(ReleaseExport(me, PAGE, "prefix"))
        bench.service.tell(FreePointers(me, PAGE, pages))
        assert await exported[0].reply.wait()
    assert files(state) == []


async def test_pages_in_host_memory_are_exported_from_there(state: StateFolder) -> None:
    async with scheduler_bench(HashModel(pages=4), host_pages=4, state=state) as bench:
        me, other = bench.open(0), bench.open(1)
        pages = await prefill(bench, me)
        await bench.allocate(other, 3)
        assert (await bench.stats()).moved_out == 2
        assert await bench.service.ask(ExportPointers(me, PAGE, pages, "prefix"))
    async with scheduler_bench(state=state) as bench:
        me = bench.open()
        assert await continuation(bench, me, await import_(bench, me)) == await expected()


def _prefix(name: str) -> list[int]:
    return [ord(name), *PREFIX[1:]]


async def _wanted(name: str) -> list[int]:
    async with scheduler_bench() as bench:
        me = bench.open()
        pages = await bench.allocate(me, PAGES)
        await tokens_of(bench.submit(me, a_pass(_prefix(name), pages, len(PREFIX))))
        return await continuation(bench, me, pages)


async def _guest(bench: Bench, number: int, choices: Random, wanted: dict[str, list[int]]) -> int:
    """Imports or computes and exports prefixes, goes on from them; how many it imported."""
    me = bench.open(number)
    imported = 0
    for _ in range(6):
        name = choices.choice(sorted(wanted))
        pages = None
        with suppress(GuestError):  # it may be released while we wait (R6)
            pages = await bench.service.ask(ImportPointers(me, PAGE, name, must_exist=False))
        imported += pages is not None
        if pages is None:
            pages = await bench.allocate(me, PAGES)
            work = bench.submit(me, a_pass(_prefix(name), pages, len(PREFIX)))
            await bench.service.ask(ExportPointers(me, PAGE, pages, name, must_be_new=False))
            await tokens_of(work)
        assert await continuation(bench, me, pages) == wanted[name]
        bench.service.tell(FreePointers(me, PAGE, pages))
        if choices.random() < 0.2:
            bench.service.tell(ReleaseExport(me, PAGE, choices.choice(sorted(wanted))))
    await bench.service.ask(EndInstance(me, drain=choices.random() < 0.5))
    return imported


@pytest.mark.parametrize("seed", range(8))
async def test_many_guests_share_few_pages_over_restarts(tmp_path: Path, seed: int) -> None:
    """Exports are made, moved, loaded and released under contention; all texts are right."""
    choices = Random(seed)
    wanted = {name: await _wanted(name) for name in "abcd"}
    imported: list[int] = []

    async def now_and_then(function: Callable[..., T], /, *arguments: object) -> T:
        await trio.sleep(choices.random() * 0.05)
        return function(*arguments)

    async def count(bench: Bench, number: int) -> None:
        imported.append(await _guest(bench, number, choices, wanted))

    for _ in range(3):
        state = StateFolder(tmp_path, now_and_then)
        # Guests hold at most 24 pages; entries that nobody uses have to make room for them.
        async with scheduler_bench(HashModel(pages=24), host_pages=64, state=state) as bench:
            async with trio.open_nursery() as guests:
                for number in range(6):
                    guests.start_soon(count, bench, number)
            last = bench.open(100)
            names = await bench.service.ask(ListExports(last, PAGE))
        assert len(files(state)) == len(names)
    assert sum(imported) > 30
