"""Files of exports that are damaged, lost or of another model (contract R7)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pie.actors.export_files import ExportFolder
from pie.actors.persistence import StateFolder
from pie.errors import GuestError
from pie.messages import (
    ImportPointers,
    ListExports,
)
from pie.offload import inline
from pie.testing import HashModel

from .keeping import export, files, import_, warnings_of, write_one
from .scheduling import PAGE, scheduler_bench


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path, inline)


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
