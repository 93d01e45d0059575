"""What docs/scheduling.md claims of a simulated H100 with an 8B model, in virtual time.

The host's cost is 50 µs per pass unless said otherwise; runs are the same each time.
"""

from __future__ import annotations

import math

import attrs
import pytest

from benchmarks.scheduling.__main__ import CONTEXT, bound, scheduling
from benchmarks.scheduling.bounds import FP8, full
from benchmarks.scheduling.workloads import (
    PAGE_SIZE,
    Figures,
    Setting,
    looping,
    overload,
    prompts,
    simulate,
)
from pie.testing import H100, H200, LLAMA_3_8B, Machine, ModelShape

TOKENS = 16


def _share_of_bound(rule: str, guests: int, host_seconds: float) -> float:
    setting = Setting(scheduling=scheduling(rule), host_seconds=host_seconds)
    got = simulate(looping(guests, CONTEXT, TOKENS), setting)
    return got.throughput / bound(guests, TOKENS).best(host_seconds)


@pytest.mark.parametrize(
    ("guests", "host_us"),
    [(1, 50), (16, 50), (64, 50), (64, 95), (128, 45), (256, 10), (256, 25), (256, 50), (256, 150)],
)
def test_the_gather_rule_reaches_what_the_host_cost_allows(guests: int, host_us: float) -> None:
    """At least 97 % of the bound, whether waiting for all, taking turns or neither is best."""
    assert _share_of_bound("gather", guests, host_us * 1e-6) >= 0.97


@pytest.mark.parametrize(
    ("rule", "guests"),
    [("eager", 64), ("fixed-size", 64), ("fixed-wait", 256), ("adaptive", 256)],
)
def test_each_other_rule_loses_somewhere(rule: str, guests: int) -> None:
    assert _share_of_bound(rule, guests, 50e-6) < 0.96


@pytest.mark.parametrize(("machine", "shape"), [(H100, FP8), (H200, LLAMA_3_8B)])
def test_with_short_steps_or_much_memory_nine_tenths_of_the_ideal_are_reached(
    machine: Machine, shape: ModelShape
) -> None:
    """256 guests whose contexts fill the memory; with bf16 on an H100 no rule can (decision 5)."""
    limit = full(machine, shape)
    context = limit.context // PAGE_SIZE * PAGE_SIZE - TOKENS
    setting = Setting(scheduling=scheduling("gather"), machine=machine, shape=shape)
    got = simulate(looping(limit.guests, context, TOKENS), setting)

    assert got.throughput >= 0.9 * limit.ideal


def test_on_an_h100_in_bf16_no_rule_reaches_nine_tenths_at_this_host_cost() -> None:
    """The bound itself is below, from 14 µs on."""
    limit = full(H100, LLAMA_3_8B)

    assert limit.best(50e-6) < 0.85 * limit.ideal
    assert limit.largest_host_seconds(0.9) == pytest.approx(13.9e-6, abs=0.2e-6)


def _prompts(rule: str, slowdown: float | None = None) -> Figures:
    chosen = scheduling(rule)
    if slowdown is not None:
        chosen = attrs.evolve(chosen, prefill_slowdown=slowdown)
    return simulate(prompts(64, 2000, 90, clients=3, prompt=3000), Setting(scheduling=chosen))


def test_prompts_beside_decoding_guests_cost_neither_evenness_nor_throughput() -> None:
    """p99 of the time between tokens at most twice the p50, at 90 % of the peak at least."""
    ours = _prompts("gather")
    others = [_prompts("gather", math.inf), _prompts("fixed-wait")]

    assert ours.p99 <= 2 * ours.p50
    assert ours.seconds <= min(other.seconds for other in others) / 0.9
    assert others[0].p99 > 2 * others[0].p50


def test_two_users_share_an_overloaded_machine() -> None:
    """300 guests of one, and one guest of the other with 100 passes at once."""
    setting = Setting(scheduling=scheduling("gather", 64))

    assert simulate(overload(300, 100, 0.3), setting).fairness >= 0.99
