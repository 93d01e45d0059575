"""Exported KV pages outlive the engine in files (contract R7)."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pie.actors.persistence import StateFolder
from pie.batch import Batch, BatchResult
from pie.errors import Closed, GuestError, PassFailed, UsageError
from pie.ids import ResourceKind
from pie.messages import (
    EndInstance,
    ExportPointers,
    ImportPointers,
    ListExports,
    ReleaseExport,
)
from pie.offload import inline
from pie.testing import HashModel

from .keeping import (
    PAGES,
    PREFIX,
    Gate,
    continuation,
    expected,
    export,
    files,
    import_,
    prefill,
    write_one,
)
from .scheduling import PAGE, a_pass, scheduler_bench, tokens_of


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path, inline)


async def test_an_import_after_a_restart_continues_as_the_exporter_would_have(
    state: StateFolder,
) -> None:
    await write_one(state)
    async with scheduler_bench(state=state) as bench:
        me = bench.open()
        assert await bench.service.ask(ListExports(me, PAGE)) == [("prefix", PAGES)]
        assert (await bench.stats()).pages_free == (await bench.stats()).pages
        pages = await import_(bench, me)
        assert await continuation(bench, me, pages) == await expected()


async def test_later_importers_share_what_the_first_has_loaded(state: StateFolder) -> None:
    await write_one(state)
    async with scheduler_bench(state=state) as bench:
        first, second = bench.open(0), bench.open(1)
        questions = [ImportPointers(one, PAGE, "prefix") for one in (first, second)]
        for question in questions:
            bench.service.tell(question)
        assert [await question.reply.wait() for question in questions] == [(0, 1, 2)] * 2
        assert await import_(bench, first) == (3, 4, 5)
        stats = await bench.stats()
        assert stats.pages - stats.pages_free == PAGES


async def test_what_was_loaded_stays_with_its_entry(state: StateFolder) -> None:
    (path,) = [await write_one(state)]
    async with scheduler_bench(state=state) as bench:
        first = bench.open(0)
        await import_(bench, first)
        await bench.service.ask(EndInstance(first, drain=False))
        path.unlink()
        second = bench.open(1)
        assert await continuation(bench, second, await import_(bench, second)) == await expected()


async def test_another_user_finds_nothing(state: StateFolder) -> None:
    await write_one(state, user="ann")
    async with scheduler_bench(state=state) as bench:
        me = bench.open(user="bob")
        assert await bench.service.ask(ListExports(me, PAGE)) == []
        with pytest.raises(GuestError, match="nothing is exported as 'prefix'"):
            await import_(bench, me)


async def test_an_existing_name_traps_after_a_restart_too(state: StateFolder) -> None:
    """Contract R6."""
    await write_one(state)
    async with scheduler_bench(state=state) as bench:
        me = bench.open()
        with pytest.raises(GuestError, match="exists already"):
            await export(bench, me)
        question = ExportPointers(me, PAGE, (), "prefix", must_be_new=False)
        assert await bench.service.ask(question) is False


async def test_slots_are_not_kept(state: StateFolder) -> None:
    async with scheduler_bench(state=state) as bench:
        me = bench.open()
        slots = await bench.allocate(me, 2, ResourceKind.EMBEDDING)
        question = ExportPointers(me, ResourceKind.EMBEDDING, slots, "slots")
        assert await bench.service.ask(question)
        assert await bench.service.ask(ListExports(me, ResourceKind.EMBEDDING)) == [("slots", 2)]
    assert files(state) == []


async def test_an_export_of_no_pages_is_kept(state: StateFolder) -> None:
    async with scheduler_bench(state=state) as bench:
        assert await bench.service.ask(ExportPointers(bench.open(), PAGE, (), "empty"))
    async with scheduler_bench(state=state) as bench:
        assert await import_(bench, bench.open(), "empty") == ()


async def test_only_the_owner_of_the_process_may_look(state: StateFolder) -> None:
    path = await write_one(state)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_release_deletes_the_file(state: StateFolder) -> None:
    await write_one(state)
    async with scheduler_bench(state=state) as bench:
        me = bench.open()
        pages = await import_(bench, me)
        bench.service.tell(ReleaseExport(me, PAGE, "prefix"))
        await wait_all_tasks_blocked()
        assert files(state) == []
        assert await continuation(bench, me, pages) == await expected()


async def test_release_of_what_was_never_imported_deletes_the_file(state: StateFolder) -> None:
    await write_one(state)
    async with scheduler_bench(state=state) as bench:
        bench.service.tell(ReleaseExport(bench.open(), PAGE, "prefix"))
        await bench.stats()
    assert files(state) == []


async def test_a_name_released_while_it_is_written_is_free_at_once(tmp_path: Path) -> None:
    """The file that stays is of the second export: files are written in the order of entries."""
    gate = Gate("save")
    async with scheduler_bench(state=StateFolder(tmp_path, gate)) as bench:
        me, other = bench.open(0), bench.open(1)
        first = ExportPointers(me, PAGE, await prefill(bench, me), "prefix")
        waiting = ImportPointers(other, PAGE, "prefix")
        second = ExportPointers(me, PAGE, (), "prefix")
        for message in (first, waiting):
            bench.service.tell(message)
        await wait_all_tasks_blocked()
        bench.service.tell(ReleaseExport(me, PAGE, "prefix"))
        bench.service.tell(second)
        assert await first.reply.wait()
        with pytest.raises(GuestError, match="it was released"):
            await waiting.reply.wait()
        await wait_all_tasks_blocked()
        assert not second.reply.ready()
        gate.opened.set()
        assert await second.reply.wait()
    async with scheduler_bench(state=StateFolder(tmp_path, inline)) as bench:
        assert await bench.service.ask(ListExports(bench.open(), PAGE)) == [("prefix", 0)]


async def test_a_name_is_not_visible_before_its_file_is_written(tmp_path: Path) -> None:
    """And the exporter waits, so that a flag it sets next never outlives the export."""
    gate = Gate("save")
    async with scheduler_bench(state=StateFolder(tmp_path, gate)) as bench:
        me, other = bench.open(0), bench.open(1)
        exported = ExportPointers(me, PAGE, await prefill(bench, me), "prefix")
        imported = ImportPointers(other, PAGE, "prefix")
        bench.service.tell(exported)
        bench.service.tell(imported)
        await wait_all_tasks_blocked()
        assert await bench.service.ask(ListExports(me, PAGE)) == []
        assert not exported.reply.ready()
        assert not imported.reply.ready()
        gate.opened.set()
        pages = await imported.reply.wait()
        assert exported.reply.take() is True
        assert files(StateFolder(tmp_path, inline)) != []
        assert pages is not None
        assert await continuation(bench, other, pages) == await expected()


async def test_an_engine_that_ends_finishes_what_it_writes(tmp_path: Path) -> None:
    gate = Gate("save")
    state = StateFolder(tmp_path, gate)
    async with scheduler_bench(state=state) as bench:
        me = bench.open()
        bench.service.tell(ExportPointers(me, PAGE, await prefill(bench, me), "prefix"))
        await wait_all_tasks_blocked()
        bench.service.tell(EndInstance(me, drain=False))
        await wait_all_tasks_blocked()
        gate.opened.set()
    assert len(files(state)) == 1


async def test_an_exporter_killed_before_its_pages_are_written_leaves_no_file(
    state: StateFolder,
) -> None:
    """Contract R6."""
    begin = trio.Event()
    model = HashModel()

    async def held(batch: Batch) -> BatchResult:
        await begin.wait()
        return model.run(batch)

    async with scheduler_bench(model, run=held, state=state) as bench:
        me, other = bench.open(0), bench.open(1)
        pages = await bench.allocate(me, PAGES)
        bench.submit(me, a_pass(PREFIX, pages, len(PREFIX)))
        await wait_all_tasks_blocked()
        exported = ExportPointers(me, PAGE, pages, "prefix")
        imported = ImportPointers(other, PAGE, "prefix")
        for message in (exported, imported, EndInstance(me, drain=False)):
            bench.service.tell(message)
        with pytest.raises(Closed):
            await exported.reply.wait()
        with pytest.raises(GuestError, match="its exporter has ended"):
            await imported.reply.wait()
        begin.set()
    assert files(state) == []


async def test_an_export_whose_writer_fails_leaves_no_file(state: StateFolder) -> None:
    async def fails(_: Batch) -> BatchResult:
        raise PassFailed("on purpose")

    async with scheduler_bench(run=fails, state=state) as bench:
        me = bench.open()
        pages = await bench.allocate(me, PAGES)
        work = bench.submit(me, a_pass(PREFIX, pages, len(PREFIX)))
        assert await bench.service.ask(ExportPointers(me, PAGE, pages, "prefix"))
        with pytest.raises(PassFailed):
            await work.reply.wait()
        assert await bench.service.ask(ListExports(me, PAGE)) == []
    assert files(state) == []


async def test_what_cannot_be_written_is_no_export(state: StateFolder) -> None:
    async with scheduler_bench(state=state) as bench:
        me, other = bench.open(0), bench.open(1)
        pages = await prefill(bench, me)
        next(state.path.iterdir()).rmdir()
        imported = ImportPointers(other, PAGE, "prefix")
        exported = ExportPointers(me, PAGE, pages, "prefix")
        bench.service.tell(exported)
        bench.service.tell(imported)
        for question in (exported, imported):
            with pytest.raises(UsageError, match=r"cannot keep state in .*: No such file"):
                await question.reply.wait()
        assert await bench.service.ask(ListExports(me, PAGE)) == []


async def test_the_file_has_what_was_exported_not_what_came_after(state: StateFolder) -> None:
    """Contract R8: the exporter's next write goes to a copy."""
    async with scheduler_bench(state=state) as bench:
        me = bench.open()
        pages = await prefill(bench, me)
        exported = ExportPointers(me, PAGE, pages, "prefix")
        bench.service.tell(exported)
        after = bench.submit(me, a_pass([50, 51], pages, len(PREFIX) + 2))
        await tokens_of(after)
        assert await exported.reply.wait()
    async with scheduler_bench(state=state) as bench:
        me = bench.open()
        assert await continuation(bench, me, await import_(bench, me)) == await expected()
