"""Exported KV pages on disk (contract R7): each bench on the same folder is a new engine."""

from __future__ import annotations

import logging
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import TypeVar

import numpy as np
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pie.actors.export_files import ExportFolder
from pie.actors.persistence import StateFolder
from pie.batch import Batch, BatchResult
from pie.errors import Closed, GuestError, OutOfResources, PassFailed, UsageError
from pie.ids import InstanceId, Pointer, ResourceKind
from pie.messages import (
    EndInstance,
    ExportPointers,
    FreePointers,
    ImportPointers,
    ListExports,
    ReleaseExport,
)
from pie.offload import inline
from pie.testing import HashModel, SimulatedModel

from .scheduling import PAGE, Bench, a_pass, scheduler_bench, tokens_of

T = TypeVar("T")

SIZE = 16
PREFIX = list(range(100, 140))
PAGES = 3


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path, inline)


def files(state: StateFolder) -> list[Path]:
    return sorted(path for path in state.path.rglob("*") if path.is_file())


async def prefill(bench: Bench, me: InstanceId) -> tuple[Pointer, ...]:
    pages = await bench.allocate(me, PAGES)
    await tokens_of(bench.submit(me, a_pass(PREFIX, pages, len(PREFIX))))
    return pages


async def continuation(bench: Bench, me: InstanceId, pages: tuple[Pointer, ...]) -> list[int]:
    """What follows the prefix and one more token."""
    return (await tokens_of(bench.submit(me, a_pass([7], pages, len(PREFIX) + 1))))[0]


async def export(bench: Bench, me: InstanceId, name: str = "prefix") -> None:
    pages = await prefill(bench, me)
    assert await bench.service.ask(ExportPointers(me, PAGE, pages, name))


async def import_(bench: Bench, me: InstanceId, name: str = "prefix") -> tuple[Pointer, ...]:
    pages = await bench.service.ask(ImportPointers(me, PAGE, name))
    assert pages is not None
    return pages


async def write_one(state: StateFolder, user: str = "local") -> Path:
    """Run an engine that exports the prefix; its file."""
    async with scheduler_bench(state=state) as bench:
        await export(bench, bench.open(user=user))
    (path,) = files(state)
    return path


async def expected() -> list[int]:
    async with scheduler_bench() as bench:
        me = bench.open()
        return await continuation(bench, me, await prefill(bench, me))


@contextmanager
def warnings_of(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    found: list[str] = []
    with caplog.at_level(logging.WARNING, "pie.actors.export_files"):
        yield found
        found += [record.getMessage() for record in caplog.records]


class Gate:
    """An `Offload` that holds back calls of one name until it is opened."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.opened = trio.Event()

    async def __call__(self, function: Callable[..., T], /, *arguments: object) -> T:
        if function.__name__ == self.name:
            await self.opened.wait()
        return function(*arguments)


# ---------------------------------------------------------------------- a restart


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


# ------------------------------------------------------------------------- release


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


# ------------------------------------------------------------------- while writing


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


# ---------------------------------------------------------------- files gone wrong


def _flip(position: int) -> Callable[[Path], None]:
    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[position] ^= 1
        path.write_bytes(data)

    return flip


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _cut_in_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def _rename(path: Path) -> None:
    path.rename(path.with_stem("0" * 64))


WRONG = {
    "magic": _flip(0),
    "header": _flip(30),
    "page": _flip(-1),
    "truncated": _cut,
    "no header": _cut_in_the_header,
    "renamed": _rename,
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_damaged_file_is_gone_with_one_warning(
    state: StateFolder, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    WRONG[what](await write_one(state))
    with warnings_of(caplog) as warnings:
        async with scheduler_bench(state=state) as bench:
            me = bench.open()
            with pytest.raises(GuestError, match="nothing is exported as 'prefix'"):
                await import_(bench, me)
            assert await bench.service.ask(ListExports(me, PAGE)) == []
            await export(bench, me)
    assert len(warnings) == 1
    assert len(files(state)) == 1


async def test_an_import_that_may_fail_finds_nothing_in_a_damaged_file(
    state: StateFolder, caplog: pytest.LogCaptureFixture
) -> None:
    _flip(-1)(await write_one(state))
    with warnings_of(caplog):
        async with scheduler_bench(state=state) as bench:
            question = ImportPointers(bench.open(), PAGE, "prefix", must_exist=False)
            assert await bench.service.ask(question) is None


async def test_a_file_that_disappears_is_gone_with_a_warning(
    state: StateFolder, caplog: pytest.LogCaptureFixture
) -> None:
    path = await write_one(state)
    with warnings_of(caplog) as warnings:
        async with scheduler_bench(state=state) as bench:
            me = bench.open()
            await bench.stats()
            path.unlink()
            with pytest.raises(GuestError, match="nothing is exported"):
                await import_(bench, me)
    assert len(warnings) == 1


async def test_a_model_that_has_changed_has_no_exports(
    state: StateFolder, caplog: pytest.LogCaptureFixture
) -> None:
    await write_one(state)
    with warnings_of(caplog) as warnings:
        async with scheduler_bench(HashModel(page_size=32), state=state) as bench:
            assert await bench.service.ask(ListExports(bench.open(), PAGE)) == []
    assert len(warnings) == 1
    assert "of another model" in warnings[0]
    assert files(state) == []


async def test_models_of_other_names_do_not_disturb_each_other(state: StateFolder) -> None:
    await write_one(state)
    async with scheduler_bench(HashModel("other"), state=state) as bench:
        assert await bench.service.ask(ListExports(bench.open(), PAGE)) == []
    assert len(files(state)) == 1


async def test_what_a_crash_left_half_written_is_removed(state: StateFolder) -> None:
    path = await write_one(state)
    path.rename(path.with_suffix(".new"))
    async with scheduler_bench(state=state) as bench:
        assert await bench.service.ask(ListExports(bench.open(), PAGE)) == []
    assert files(state) == []


def test_no_byte_of_a_file_can_change_unnoticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = ExportFolder.open(tmp_path, "model", "fingerprint")
    contents = np.arange(24, dtype=np.uint8).reshape(2, 12)
    folder.save("user", "name", contents)
    (path,) = folder.path.iterdir()
    good = path.read_bytes()
    with warnings_of(caplog):
        for position in range(len(good)):
            _flip(position)(path)
            assert folder.load("user", "name") is None, position
            path.write_bytes(good)
    loaded = folder.load("user", "name")
    assert loaded is not None
    assert (loaded == contents).all()


# ----------------------------------------------------------------- room for a load


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

    class Slow(SimulatedModel):
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


# ------------------------------------------------------------------- all together


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
