"""Async tests run under Trio: in virtual time, or in real time when marked `slow`."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from pie import pytest_plugin
from pie.actors import supervisor
from pie.mailbox import Reply
from pie.testing.running import AsyncRun


def pytest_configure(config: pytest.Config) -> None:
    """The plugin's fixtures, where an installation has not brought them along."""
    if not config.pluginmanager.is_registered(pytest_plugin):
        config.pluginmanager.register(pytest_plugin)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run any `async def` test, in any order of its tasks."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    slow = pyfuncitem.get_closest_marker("slow") is not None
    pytest_plugin.run_async_test(pyfuncitem, AsyncRun(real_time=slow))
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


@pytest.fixture(autouse=True)
def _no_hidden_bugs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test in which a host call or the server had a bug of ours, even if nobody looked.

    A test that makes such a bug on purpose carries the mark `makes_a_bug`.
    """
    found: list[str] = []
    places = (supervisor.log, logging.getLogger("pie.server"))

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info is not None:  # others are for whoever runs a server
                found.append(record.getMessage())

    listener = Listener(logging.ERROR)
    for place in places:
        place.addHandler(listener)
    yield
    for place in places:
        place.removeHandler(listener)
    if request.node.get_closest_marker("makes_a_bug") is None:
        assert found == []


RUN_ACTORS = {"actors", "e2e", "engine", "inferlets"}
"""Folders of tests in which whole actors live and end."""


@pytest.fixture(autouse=True)
def _every_question_answered(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Whatever actors were asked is answered when they have ended, if only with "has ended"."""
    if request.path.parent.name not in RUN_ACTORS:
        yield
        return
    asked: list[Reply[Any]] = []
    make = Reply.__init__

    def remember(self: Reply[Any]) -> None:
        make(self)
        asked.append(self)

    monkeypatch.setattr(Reply, "__init__", remember)
    yield
    assert sum(not reply.ready() for reply in asked) == 0, "questions that were never answered"
