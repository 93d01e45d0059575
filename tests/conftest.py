"""Async tests run under Trio: in virtual time, or in real time when marked `slow`."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an `async def` test; a virtual clock jumps ahead whenever every task sleeps."""
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    names: Any = inspect.signature(test).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    virtual = pyfuncitem.get_closest_marker("slow") is None
    clock = MockClock(autojump_threshold=0) if virtual else None
    trio.run(partial(test, **arguments), clock=clock)
    return True


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-long", action="store_true", help="run the full form of long sweeps")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--run-long"):
        return
    skip = pytest.mark.skip(reason="the full sweep: make test-long")
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(skip)
