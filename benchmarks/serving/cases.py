"""What is asked of everybody who is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import attrs

from .contenders import Contender
from .plan import Plan, prompts
from .turns import Figures, Say, take_turns

_SEEN = 480
"""Tokens of a 512-token prompt that were in an earlier one."""
_OTHERS = 1000
"""Numbers of prompts from here on are not those of the rounds."""


@attrs.frozen
class Case:
    """One figure of each contender; `measure(contender, plan, round)`."""

    name: str
    title: str
    unit: str
    measure: Callable[[Contender, Plan, int], float]
    more_is_better: bool = True


def _decode(contender: Contender, plan: Plan, _: int) -> float:
    return contender.decode(prompts().short, plan.decode_tokens)


def _prefill(contender: Contender, _: Plan, number: int) -> float:
    prompt = prompts().fresh(number)
    return len(prompt) / contender.first_token(prompt)


def _seen(contender: Contender, _: Plan, number: int) -> float:
    base = prompts().fresh(_OTHERS + number)
    contender.first_token(base, seen=True)
    return 1e3 * contender.first_token(base, seen=True)


def _prefix(contender: Contender, _: Plan, number: int) -> float:
    base = prompts().fresh(2 * _OTHERS + number)
    contender.first_token(base, seen=True)
    ends = prompts().ends
    return 1e3 * contender.first_token([*base[:_SEEN], *ends[number % len(ends)]], seen=True)


def _batch(streams: int, contender: Contender, plan: Plan, number: int) -> float:
    batch = prompts().batch(streams, number)
    return streams * plan.batch_tokens / contender.batch(batch, plan.batch_tokens)


_ALL = (
    Case("decode", "decode, 1 stream", "tok/s", _decode),
    Case("prefill", "prefill 512", "tok/s", _prefill),
    Case("c8", "8 at once", "tok/s", partial(_batch, 8)),
    Case("c32", "32 at once", "tok/s", partial(_batch, 32)),
    Case("seen", "first token, prompt seen before", "ms", _seen, more_is_better=False),
    Case("prefix", "first token, 480 of 512 seen", "ms", _prefix, more_is_better=False),
)
CASES = {case.name: case for case in _ALL}
"""In the order in which they are measured and shown."""


def warm_up(contender: Contender) -> None:
    """What is compiled or allocated at the first request is not measured."""
    contender.batch([prompts().short], 8)
    contender.first_token(prompts().fresh(3 * _OTHERS))


def compare(contenders: Sequence[Contender], case: Case, plan: Plan, say: Say) -> Figures:
    """The case's figure of each contender and round."""

    def measured(contender: Contender, number: int) -> float:
        value = case.measure(contender, plan, number)
        say(f"{case.title}, round {number + 1}: {contender.name} {value:.4g} {case.unit}")
        return value

    return take_turns(contenders, plan.rounds, measured, say)
