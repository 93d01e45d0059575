"""What a simulation knows of a program, and the tools that programs share."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeAlias

import attrs
import inferlet
from inferlet import host
from inferlet.entry import Main

from pie.ids import EventCode
from pie.testing.sim.machine import Machine

Params: TypeAlias = dict[str, Any]

EMBEDDING, ADAPTER = 1, 2
"""Resource types, beside `inferlet.host.KV_PAGE`."""


@attrs.frozen(kw_only=True)
class SimProgram:
    """A program, how its parameters are drawn, and what may be said of its end."""

    name: str
    main: Main | None = None
    """Of a native inferlet."""
    component: str | None = None
    """Name of the text of a component."""
    draw: Callable[[Random, Machine], Params]
    messages: Callable[[Random, Params], Sequence[str]] = lambda _, __: ()
    """What its client sends it."""
    arguments: Callable[[Params], tuple[str, ...]] = lambda params: (
        json.dumps(params, sort_keys=True),
    )
    independent: bool = True
    """Whether it gives the same in a crowd as alone."""
    ends: EventCode | None = None
    """How it always ends, unless somebody ends it."""
    excuse: str = ""
    """Of an independent one: a text in its error that says another instance was the cause."""
    endless: bool = False
    """Whether its client has to end it."""


def params_of(args: Sequence[str]) -> Params:
    """What `draw` chose."""
    params: Params = json.loads(args[0])
    return params


LETTERS = "abcdefghijklmnopqrstuvwxyz"


def a_text(random: Random, length: int) -> str:
    """A text of few kinds, so that runs alone can be remembered."""
    return (random.choice(LETTERS[:4]) * 2 + LETTERS * (length // 26 + 1))[:length]


def up_to(random: Random, most: int, least: int = 1) -> int:
    """A number with few values, the largest among them."""
    return max(least, most * random.randint(1, 4) // 4)


async def new_context(text: str = "") -> inferlet.Context:
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.fill(text)
    return context


async def raw_pass(
    queue: Any, tokens: Sequence[int], first: int, pages: Sequence[int], size: int
) -> Any:
    """A pass that fills slots from `first` on, on the pages those slots need."""
    end = first + len(tokens)
    built = await host.create_pass(queue)
    await host.input_tokens(built, list(tokens), list(range(first, end)))
    await host.kv_cache(built, list(pages[: -(-end // size)]), (end - 1) % size + 1)
    return built


async def tokens_of(result: Any) -> list[int]:
    """The tokens of a pass, when it is done; drops the result."""
    try:
        await host.ready(await host.pass_pollable(result))
        return list(await host.get_tokens(result))
    finally:
        host.drop(result)


async def next_token(
    queue: Any, tokens: Sequence[int], first: int, pages: Sequence[int], size: int
) -> int:
    """The greedy token after `tokens`."""
    built = await raw_pass(queue, tokens, first, pages, size)
    await host.output_tokens(built, [len(tokens) - 1], 0.0)
    result = await host.execute(built)
    host.drop(built)
    return (await tokens_of(result))[0]
