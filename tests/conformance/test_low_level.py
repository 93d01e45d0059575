"""What the bindings of languages hide: orders, lists and mistakes that only C can make."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from pie.ids import EventCode

from .guest.cases import CASES
from .low_level import C_CASES, WAT_CASES
from .running import component, end_of, engine_for, ran, start


def result_of(name: str) -> str:
    event = ran(name, "C").ending.event
    assert event.code is EventCode.COMPLETED, event
    return event.text


def trap_of(name: str) -> str:
    event = ran(name, "C").ending.event
    assert event.code is EventCode.EXCEPTION, event
    assert event.text == C_CASES[name].traps
    return event.text


def test_handles_may_be_dropped_before_what_came_from_them() -> None:
    """Contract F8: model before queue before pass, and a result before its pollable."""
    assert result_of("drops") == C_CASES["drops"].returns


def test_a_pollable_may_be_listed_twice() -> None:
    """Contract X9: every index is returned that is ready, and each pollable is a handle."""
    assert result_of("twice") == C_CASES["twice"].returns


def test_a_mask_counts_on_a_decode_step() -> None:
    """Contract M2: with others in the batch that have none."""
    assert result_of("decode") == C_CASES["decode"].returns


def test_a_second_execute_traps() -> None:
    """Contract F5."""
    assert trap_of("second")


@pytest.mark.parametrize("name", ["dropped", "other-kind", "outside"])
def test_a_handle_or_pointer_that_is_none_traps(name: str) -> None:
    """Contract G1: one line each."""
    assert "\n" not in trap_of(name)


@pytest.mark.parametrize("name", [name for name, case in C_CASES.items() if case.traps])
def test_a_mistake_disturbs_nobody(name: str) -> None:
    """Contract G1, R10: a component decodes on beside the one that traps."""
    alone = ran("bystander", "Python").ending
    component("C")

    async def both() -> object:
        async with engine_for(C_CASES[name]) as engine:
            other = await start(engine, CASES["bystander"], "Python")
            ending = await end_of(await start(engine, C_CASES[name], "C"))
            assert ending.event.text == C_CASES[name].traps
            return (await end_of(other)).returned

    assert trio.run(both, clock=MockClock(autojump_threshold=0)) == alone.returned


def test_a_component_in_text_decodes_as_one_in_python() -> None:
    """Contract S4: the same tokens whatever the guest is made of."""
    event = ran("decode", "WAT").ending.event
    assert event.code is EventCode.COMPLETED, event
    assert event.text == WAT_CASES["decode"].returns == CASES["greedy_decoding"].returns
