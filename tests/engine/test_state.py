"""What outlives an engine whose state is on disk (contract R7, X3)."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pie.config import EngineConfig
from pie.errors import UsageError
from pie.testing import run_native, simulated_engine

from . import prefix_caching
from .prefix_caching import cached_prefix


def _process(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, prefix_caching.__file__, str(state), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.slow
def test_prefix_caching_goes_on_after_kill_9_of_the_process(tmp_path: Path) -> None:
    """The guest that has just set the flag kills the process: no later moment is needed."""
    killed = _process(tmp_path / "state", "kill")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    after = _process(tmp_path / "state")
    other = _process(tmp_path / "other")
    assert after.stdout.startswith("imported "), after.stderr
    assert other.stdout.startswith("computed "), other.stderr
    assert after.stdout.split(" ", 1)[1] == other.stdout.split(" ", 1)[1]


async def test_pairs_and_exports_outlive_the_engine_together(tmp_path: Path) -> None:
    config = EngineConfig(state_path=str(tmp_path / "new" / "state"))
    texts = []
    for _ in range(2):
        async with simulated_engine(config=config) as engine:
            texts.append((await run_native(engine, cached_prefix)).text)
    assert [text.split()[0] for text in texts] == ["computed", "imported"]
    assert texts[0].split()[1:] == texts[1].split()[1:]
    assert stat.S_IMODE((tmp_path / "new" / "state").stat().st_mode) == 0o700
    assert sorted(path.name for path in (tmp_path / "new" / "state").iterdir()) == [
        "exports",
        "kvs.sqlite",
    ]


async def test_in_memory_both_end_with_the_engine() -> None:
    for _ in range(2):
        async with simulated_engine() as engine:
            assert (await run_native(engine, cached_prefix)).text.startswith("computed")


async def test_users_have_nothing_of_each_other_on_disk(tmp_path: Path) -> None:
    config = EngineConfig(state_path=str(tmp_path))
    for user in ("ann", "bob"):
        async with simulated_engine(config=config) as engine:
            outcome = await run_native(engine, cached_prefix, user=user)
            assert outcome.text.startswith("computed")


@pytest.mark.parametrize("name", ["state", "state/exports", "state/kvs.sqlite"])
async def test_a_folder_that_cannot_be_used_is_a_wrong_setting(tmp_path: Path, name: str) -> None:
    """A file where a folder should be, or the other way round."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if path.suffix:
        path.mkdir()
    else:
        path.touch()
    with pytest.raises(UsageError, match=f"cannot keep state in {path}: "):
        async with simulated_engine(config=EngineConfig(state_path=str(tmp_path / "state"))):
            pass
