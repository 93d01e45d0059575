"""KV pages that one user may have, over all its instances and exports (`max_pages_per_user`)."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pie.actors.persistence import StateFolder
from pie.errors import LimitExceeded
from pie.ids import InstanceId
from pie.messages import (
    AllocatePointers,
    CountPages,
    EndInstance,
    ExportPointers,
    FreePointers,
    ReleaseExport,
)
from pie.offload import inline
from pie.testing import HashModel

from .keeping import PAGES, write_one
from .scheduling import PAGE, Bench, scheduler_bench


async def test_all_instances_of_a_user_share_one_quota_and_others_have_their_own() -> None:
    async with scheduler_bench(HashModel(pages=64), max_pages_per_user=5) as bench:
        one, two, other = bench.open(0, "ann"), bench.open(1, "ann"), bench.open(2, "bob")
        await bench.allocate(one, 3)
        await bench.allocate(two, 2)
        with pytest.raises(LimitExceeded) as refused:
            await bench.allocate(two, 1)
        await bench.allocate(other, 5)

    assert str(refused.value) == (
        "allocate-resources: user 'ann' has 5 KV pages in instances and exports and asks for 1 "
        "more, the limit is 5 (max_pages_per_user)"
    )


async def test_exports_and_imports_count_each_time() -> None:
    """A page that is shared holds up no less of the pool when its first owner lets go."""
    async with scheduler_bench(max_pages_per_user=6) as bench:
        one, two = bench.open(0), bench.open(1)
        pages = await bench.allocate(one, 2)
        await bench.export(one, pages, "x")
        await bench.import_(two, "x")
        with pytest.raises(LimitExceeded, match=r"import-resources: .* has 6 .* asks for 2 more"):
            await bench.import_(one, "x")
        with pytest.raises(LimitExceeded, match=r"export-resources: .* has 6 .* asks for 1 more"):
            await bench.service.ask(ExportPointers(two, PAGE, pages[:1], "y"))


async def test_what_is_let_go_may_be_had_again() -> None:
    """By freeing, by releasing an export, by ending; and what was refused never counted."""
    async with scheduler_bench(max_pages_per_user=4) as bench:
        me, last = bench.open(0), bench.open(1)
        pages = await bench.allocate(me, 2)
        await bench.export(me, pages, "x")
        for _ in range(3):
            with pytest.raises(LimitExceeded):
                await bench.allocate(last, 1)
        bench.service.tell(ReleaseExport(me, PAGE, "x"))
        bench.service.tell(FreePointers(me, PAGE, pages[:1]))
        await bench.allocate(last, 3)
        await bench.service.ask(EndInstance(me, drain=False))
        await bench.allocate(last, 1)
        with pytest.raises(LimitExceeded):
            await bench.allocate(last, 1)


async def test_what_is_waited_for_counts_until_it_is_refused() -> None:
    """Else two instances could wait for what only one of them may have."""
    async with scheduler_bench(HashModel(pages=4), max_pages_per_user=6) as bench:
        rich, one, two = bench.open(0, "bob"), bench.open(1, "ann"), bench.open(2, "ann")
        await bench.allocate(rich, 4)
        bench.movers[rich].start()

        async def wait() -> None:
            with pytest.raises(Exception, match="has ended"):
                await bench.allocate(one, 4)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            with pytest.raises(LimitExceeded, match="has 4 KV pages"):
                await bench.allocate(two, 3)
            await bench.service.ask(EndInstance(one, drain=False))
        bench.movers[rich].stop()
        await bench.service.ask(EndInstance(rich, drain=False))
        await bench.allocate(two, 4)


async def test_exports_of_an_earlier_run_count_and_stay(tmp_path: Path) -> None:
    """Also where the quota is lower now."""
    state = StateFolder(tmp_path, inline)
    await write_one(state)
    async with scheduler_bench(state=state, max_pages_per_user=PAGES - 1) as bench:
        me = bench.open()
        with pytest.raises(LimitExceeded, match=rf"has {PAGES} KV pages .* asks for 1 more"):
            await bench.allocate(me, 1)
        bench.service.tell(ReleaseExport(me, PAGE, "prefix"))
        await bench.allocate(me, PAGES - 1)


async def test_the_pages_of_each_instance_are_told() -> None:
    async with scheduler_bench() as bench:
        one, two = bench.open(0), bench.open(1)
        pages = await bench.allocate(one, 3)
        bench.service.tell(FreePointers(one, PAGE, pages[:1]))
        assert await _told(bench) == {one: 2, two: 0}
        await bench.service.ask(EndInstance(one, drain=False))
        assert await _told(bench) == {two: 0}


async def _told(bench: Bench) -> dict[InstanceId, int]:
    return await bench.service.ask(CountPages())


async def test_spare_pages_leave_enough_of_a_quota() -> None:
    """Contract X10: else one instance would take what another of the user's waits to ask for."""
    async with scheduler_bench(HashModel(pages=64), max_pages_per_user=16) as bench:
        me, other = bench.open(0), bench.open(1)
        given = [len(await bench.take_spare(me, 9)) for _ in range(3)]
        await bench.allocate(other, 3)
        given.append(len(await bench.take_spare(me, 9)))
        await bench.allocate(other, 16 - sum(given) - 3)
        with pytest.raises(LimitExceeded):
            await bench.allocate(other, 1)

    assert given == [4, 3, 2, 0]


async def test_nothing_is_spare_while_somebody_waits() -> None:
    """Contract X10, R5: not even what is too little for the first in line."""
    async with scheduler_bench(HashModel(pages=16)) as bench:
        one, waiting = bench.open(0), bench.open(1)
        bench.movers[one].start()
        pages = await bench.allocate(one, 8)
        question = AllocatePointers(waiting, PAGE, 9)
        bench.service.tell(question)
        assert await bench.take_spare(one, 1) == ()
        bench.service.tell(FreePointers(one, PAGE, pages[:1]))
        assert len(await question.reply.wait()) == 9
        assert await bench.take_spare(one, 1) == ()
        bench.service.tell(FreePointers(one, PAGE, pages[1:]))
        assert await bench.take_spare(one, 1) == pages[:1]
        bench.movers[one].stop()
