"""The pytest plugin `pie`: inferlets are tested in virtual time, on a simulated GPU.

Tests that use neither the fixtures `pie_engine` and `run_inferlet` nor the marker `pie` are left
alone. Every pytest run of an environment with Pie imports this module, so it imports Pie only when
it is used.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pie.actors.executor import Device
    from pie.config import EngineConfig
    from pie.engine import Engine
    from pie.testing.inferlets import RunInferlet
    from pie.testing.running import AsyncRun, Opening

FIXTURES = frozenset({"pie_engine", "run_inferlet"})
DAY = 24 * 3600.0


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "pie(real_time=False, seed=0, limit=86400): an async test under Trio, in virtual time, "
        "with its tasks in the order of a seed; it fails after so many seconds of its clock",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run the async tests that ask for it."""
    marker = pyfuncitem.get_closest_marker("pie")
    used = FIXTURES.intersection(pyfuncitem.fixturenames)
    if marker is None and not used:
        return None
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        what = ", ".join(sorted(used)) or "the marker pie"
        pytest.fail(f"{what} works in an `async def` test only", pytrace=False)
    from pie.testing.running import AsyncRun

    settings: dict[str, Any] = {"seed": 0, "limit": DAY, **(marker.kwargs if marker else {})}
    run_async_test(pyfuncitem, AsyncRun(**settings))
    return True


def run_async_test(pyfuncitem: pytest.Function, run: AsyncRun) -> None:
    """Call an async test with its fixtures, as `run` says."""
    test, fixtures = pyfuncitem.obj, pyfuncitem.funcargs
    names = inspect.signature(test).parameters
    run(test, {name: fixtures[name] for name in names if name in fixtures}, fixtures)


@pytest.fixture
def pie_gpu() -> Device:
    """The device that inferlets run on, made to be overridden: by default one whose answers are
    hashes of what they are answers to, at 10 ms a step."""
    from pie.testing import SimulatedGpu

    return SimulatedGpu()


@pytest.fixture
def pie_config() -> EngineConfig:
    """The configuration of the engine, to be overridden."""
    from pie.config import EngineConfig

    return EngineConfig()


@pytest.fixture
def pie_engine(pie_gpu: Device, pie_config: EngineConfig) -> Opening[Engine]:
    """A running engine on `pie_gpu`, for the length of an async test."""
    from pie.testing import simulated_engine
    from pie.testing.running import Opening

    return Opening(partial(simulated_engine, pie_gpu, config=pie_config))


@pytest.fixture
def run_inferlet(
    pie_engine: Opening[Engine],
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunInferlet]:
    """Runs an inferlet to its end: `outcome = await run_inferlet("folder", "argument")`.

    Paths are relative to the test's file.
    """
    from pie.testing.inferlets import RunInferlet

    cache = getattr(request.config, "cache", None)  # absent where its plugin is switched off
    folder = tmp_path_factory.mktemp("pie") if cache is None else cache.mkdir("pie")
    runner = RunInferlet(lambda: pie_engine.value, request.path.parent, folder)
    yield runner
    runner.close()
