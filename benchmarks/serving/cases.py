"""What is asked of everybody who is measured, in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import attrs

from .contenders import Contender, Unsupported
from .plan import Plan, prompts

Values = dict[str, dict[str, list[float]]]
"""Case -> contender -> a value of each round."""
Say = Callable[[str], object]

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
    return contender.first_token(base, seen=True)


def _prefix(contender: Contender, _: Plan, number: int) -> float:
    base = prompts().fresh(2 * _OTHERS + number)
    contender.first_token(base, seen=True)
    ends = prompts().ends
    return contender.first_token([*base[:_SEEN], *ends[number % len(ends)]], seen=True)


def _batch(streams: int, contender: Contender, plan: Plan, number: int) -> float:
    batch = prompts().batch(streams, number)
    return streams * plan.batch_tokens / contender.batch(batch, plan.batch_tokens)


def cases(plan: Plan) -> list[Case]:
    """In the order in which they are measured and shown."""
    return [
        Case("decode", "decode, 1 stream", "tok/s", _decode),
        Case("prefill", "prefill 512", "tok/s", _prefill),
        *(
            Case(f"c{streams}", f"{streams} at once", "tok/s", partial(_batch, streams))
            for streams in plan.batches
        ),
        Case("seen", "first token, prompt seen before", "s", _seen, more_is_better=False),
        Case("prefix", "first token, 480 of 512 seen", "s", _prefix, more_is_better=False),
    ]


@contextmanager
def awake(contender: Contender) -> Iterator[Contender]:
    """Let a contender run; everybody else is held still."""
    contender.resume()
    try:
        yield contender
    finally:
        contender.pause()


def warm_up(contender: Contender) -> None:
    """What is compiled or allocated at the first request is not measured."""
    contender.batch([prompts().short], 8)
    contender.first_token(prompts().fresh(3 * _OTHERS))


def in_turns(contenders: Sequence[Contender], number: int) -> Sequence[Contender]:
    """Every other round the other way round."""
    return contenders[:: -1 if number % 2 else 1]


def compare(
    contenders: Sequence[Contender], chosen: Sequence[Case], plan: Plan, say: Say
) -> tuple[Values, dict[str, str]]:
    """The values, and the reason for each contender that failed, which is then left out."""
    values: Values = {case.name: {} for case in chosen}
    failed: dict[str, str] = {}
    for case in chosen:
        for number in range(plan.rounds):
            for contender in in_turns(contenders, number):
                if contender.name in failed:
                    continue
                try:
                    with awake(contender):
                        value = case.measure(contender, plan, number)
                except Unsupported:
                    continue
                except (RuntimeError, OSError, ValueError) as error:
                    failed[contender.name] = f"{case.name}: {error}"
                    continue
                values[case.name].setdefault(contender.name, []).append(value)
                say(f"{case.title}, round {number + 1}: {contender.name} {value:.4g} {case.unit}")
    return values, failed
