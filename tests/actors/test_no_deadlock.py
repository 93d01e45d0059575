"""Nobody waits for ever for pages that somebody behind him in the line keeps in their place (R5).

Found by simulation: shared pages cannot move, and whoever shares them may be waiting, too.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio

from pie.errors import OutOfResources
from pie.ids import InstanceId, Pointer, ResourceKind
from pie.mailbox import Ask
from pie.messages import AllocatePointers, EndInstance, FreePointers, ReleaseExport, SubmitPass
from pie.testing import HashModel

from .scheduling import PAGE, Bench, a_pass, scheduler_bench

SIZE = 4
EMBEDDING = ResourceKind.EMBEDDING


def _model() -> HashModel:
    return HashModel(page_size=SIZE, pages=8, embedding_slots=2)


async def _answer(question: Ask[Any]) -> Any:
    with trio.fail_after(100):
        return await question.reply.wait()


def _asks(bench: Bench, me: InstanceId, count: int, kind: ResourceKind = PAGE) -> AllocatePointers:
    question = AllocatePointers(me, kind, count)
    bench.service.tell(question)
    return question


def _writes(bench: Bench, me: InstanceId, page: Pointer) -> SubmitPass:
    return bench.submit(me, a_pass([7], (page,), SIZE))


async def test_a_copy_is_made_past_a_request_that_its_source_is_in_the_way_of() -> None:
    """The older one needs the page that the younger exports and wants to write."""
    async with scheduler_bench(_model(), host_pages=20) as bench:
        old, young = bench.open(0), bench.open(1)
        await bench.allocate(old, 2)
        (page,) = await bench.allocate(young, 1)
        await bench.export(young, (page,), "shared")
        wants = _asks(bench, old, 6)
        written = _writes(bench, young, page)

        await _answer(written)
        bench.service.tell(FreePointers(young, PAGE, (page,)))
        assert len(await _answer(wants)) == 6
        await bench.stats()  # everything has been read
    assert bench.evictions == []


async def test_pages_come_back_past_a_request_that_cannot_be_served() -> None:
    """There is room for them only because others make room."""
    async with scheduler_bench(_model(), host_pages=20) as bench:
        old, young, idle = bench.open(0), bench.open(1), bench.open(2)
        own, shared = await bench.allocate(young, 2)
        await bench.export(young, (shared,), "shared")
        await bench.allocate(idle, 5)
        await bench.allocate(old, 2)  # a page of the longest idle moves out: that of the young
        wants = _asks(bench, old, 6)
        await trio.sleep(1)
        assert (await bench.stats()).moved_out >= 1
        written = _writes(bench, young, own)

        await _answer(written)
        bench.service.tell(EndInstance(young, False))
        bench.service.tell(EndInstance(idle, False))
        assert not wants.reply.ready()  # the export is not used, but what it needs is all there is
        assert len(await _answer(wants)) == 6
    assert bench.evictions == []


async def test_who_waits_for_a_slot_makes_room_for_pages() -> None:
    """Contract R5: idle is who is blocked on anything but a pass or pages, an older one too."""
    async with scheduler_bench(_model(), host_pages=20) as bench:
        old, young = bench.open(0), bench.open(1)
        await bench.allocate(old, 4)
        slots = await bench.allocate(young, 2, EMBEDDING)
        wants_slot = _asks(bench, old, 1, EMBEDDING)
        wants_pages = _asks(bench, young, 6)

        assert len(await _answer(wants_pages)) == 6
        bench.service.tell(FreePointers(young, EMBEDDING, slots))
        await _answer(wants_slot)


async def _share(bench: Bench, me: InstanceId, other: InstanceId) -> None:
    """Two pages that both hold, and no export."""
    await bench.export(me, await bench.allocate(me, 2), "shared")
    await bench.import_(other, "shared")
    bench.service.tell(ReleaseExport(me, PAGE, "shared"))


async def test_when_all_wait_for_what_they_share_the_first_in_line_ends() -> None:
    """Nothing can move and nobody can let go: with event 5, as where host memory is full."""
    async with scheduler_bench(_model(), host_pages=20) as bench:
        first, second, third = (bench.open(number) for number in range(3))
        for me, other in ((first, second), (second, third), (third, first)):
            await _share(bench, me, other)
        others = [_asks(bench, me, 4) for me in (second, third)]
        await trio.sleep(10)
        assert bench.evictions == []  # the first is idle: it may yet let go
        asked = _asks(bench, first, 4)
        with pytest.raises(OutOfResources):
            await _answer(asked)

        assert len(bench.evictions) == 1
        bench.service.tell(EndInstance(first, False))
        assert len(await _answer(others[0])) == 4
        bench.service.tell(EndInstance(second, False))
        assert len(await _answer(others[1])) == 4
    assert len(bench.evictions) == 1


async def test_a_guest_that_goes_idle_without_a_word_makes_room() -> None:
    """Contract R5: it moved when room was looked for."""
    async with scheduler_bench(_model(), host_pages=20) as bench:
        old, young = bench.open(0), bench.open(1)
        bench.movers[old].start()
        await bench.allocate(old, 6)
        wants = _asks(bench, young, 4)
        await trio.sleep(10)
        assert not wants.reply.ready()
        bench.movers[old].stop()

        assert len(await _answer(wants)) == 4


async def test_an_older_one_that_waits_makes_room_for_who_is_let_past() -> None:
    """It holds all the rest and wants the page that the younger shares: its own may move."""
    async with scheduler_bench(_model(), host_pages=20) as bench:
        old, young = bench.open(0), bench.open(1)
        await bench.allocate(old, 7)
        (page,) = await bench.allocate(young, 1)
        await bench.export(young, (page,), "shared")
        wants = _asks(bench, old, 1)
        written = _writes(bench, young, page)

        await _answer(written)
        bench.service.tell(FreePointers(young, PAGE, (page,)))
        await _answer(wants)
        await bench.stats()  # everything has been read
    assert bench.evictions == []


async def test_even_pages_that_a_waiting_pass_needs_make_room_for_who_is_let_past() -> None:
    """The older pass needs all there is, and cannot run before the younger has let go."""
    async with scheduler_bench(_model(), host_pages=20) as bench:
        old, young = bench.open(0), bench.open(1)
        pages = await bench.allocate(old, 8)
        await bench.submit(old, a_pass(range(32), pages, 32)).reply.wait()
        (page,) = await bench.allocate(young, 1)  # a page of the old one, which idles, moves out
        await bench.export(young, (page,), "shared")
        whole = bench.submit(old, a_pass([7], pages, 32))
        wants = _asks(bench, young, 1)

        await _answer(wants)
        bench.service.tell(EndInstance(young, False))
        await _answer(whole)
        await bench.stats()  # everything has been read
    assert bench.evictions == []
