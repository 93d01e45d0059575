"""No host function could do nothing without a case that notices."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tools import conformance

from .guest.cases import CASES
from .recording import RECORDER, RESULTS, short
from .running import ALONE, Ending, component, ran, run_alone

FUNCTIONS = [(interface, name) for interface, names in RESULTS.items() for name in names]
QUICK = [
    ("inferlet:core/common", "[method]queue.set-priority"),
    ("inferlet:core/forward", "attention-mask"),
    ("inferlet:core/message", "broadcast"),
]
"""Whose absence is easily overlooked; all others are a matter of the long sweep."""


def ending_without(name: str, function: tuple[str, str]) -> Ending | None:
    """How a case ends when a function does nothing; None if the engine noticed itself."""
    RECORDER.silenced = function
    try:
        return trio.run(run_alone, CASES[name], "Python", clock=MockClock(autojump_threshold=0))
    except Exception:  # noqa: BLE001  # whatever it is that goes wrong, it was noticed
        return None
    finally:
        RECORDER.silenced = None


def is_noticed(function: tuple[str, str]) -> bool:
    """Whether a case that calls the function ends otherwise when it does nothing."""
    component("Python")
    results, traps = conformance.tests_of_functions(conformance.read_record())
    name = short(function[1])
    callers = [case for case in results.get(name, []) + traps.get(name, []) if case in ALONE]
    return any(ending_without(case, function) != ran(case, "Python").ending for case in callers)


@pytest.mark.makes_a_bug
@pytest.mark.parametrize("function", QUICK, ids="#".join)
def test_a_function_that_does_nothing_is_noticed(function: tuple[str, str]) -> None:
    """Contract G1: never an empty answer that looks like success."""
    assert is_noticed(function)


@pytest.mark.long
@pytest.mark.makes_a_bug
@pytest.mark.parametrize("function", FUNCTIONS, ids="#".join)
def test_any_function_that_does_nothing_is_noticed(function: tuple[str, str]) -> None:
    """Contract G1: for every function of the contract and of the WASI beside it."""
    assert is_noticed(function)


def test_a_silenced_function_is_not_called() -> None:
    """The sweep itself works: without `store-set` there is nothing to read."""
    component("Python")
    ending = ending_without("store_is_read_as_written", ("inferlet:core/kvs", "store-set"))
    assert ending is not None
    assert ending.returned[2] is None
