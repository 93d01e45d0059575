"""The runner in a loop: no engine, no guests, no scheduler, only the model's own time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import attrs
import numpy as np

from pie.batch import Batch, BatchResult, ModelInfo, floats, ints

Run: TypeAlias = Callable[[Batch], BatchResult]

STEP_ROWS = 512
"""Rows of a step at most, as the engine has it."""


@attrs.define
class Stream:
    """One sequence, in pages of its own."""

    tokens: list[int]
    pages: list[int]
    written: int = 0
    """Tokens whose K and V are in the pages."""
    drawn: list[int] = attrs.field(factory=list)


def complete(
    run: Run, info: ModelInfo, prompts: Sequence[Sequence[int]], count: int
) -> list[list[int]]:
    """Greedily `count` tokens after each of the prompts, all at once, by calls of a model's `run`.

    It takes the model's last pages, without asking anybody: no guest may hold them.
    """
    streams = _opened(info, prompts, count)
    while any(len(stream.drawn) < count for stream in streams):
        _step(run, info.page_size, streams)
    return [stream.drawn[:count] for stream in streams]


def _opened(info: ModelInfo, prompts: Sequence[Sequence[int]], count: int) -> list[Stream]:
    used, streams = 0, []
    for prompt in prompts:
        pages = math.ceil((len(prompt) + count) / info.page_size)
        first = info.pages - used - pages
        if first < 0:
            raise ValueError(f"{info.pages} pages are too few for {len(prompts)} streams")
        streams.append(Stream(list(prompt), list(range(first, first + pages))))
        used += pages
    return streams


def _step(run: Run, page_size: int, streams: Sequence[Stream]) -> None:
    """Prompts first, and as much of them as fits into one step; then a token of each stream."""
    waiting = [stream for stream in streams if not stream.drawn] or streams
    room, parts = STEP_ROWS, list[tuple[Stream, int]]()
    for stream in waiting:
        rows = min(room, len(stream.tokens) - stream.written)
        if rows:
            parts.append((stream, rows))
            room -= rows
    result = run(_batch(parts, page_size))
    ends = [stream for stream, rows in parts if stream.written + rows == len(stream.tokens)]
    for stream, rows in parts:
        stream.written += rows
    _settle(ends, result)


def _settle(ends: Sequence[Stream], result: BatchResult) -> None:
    for stream, token in zip(ends, result.tokens.tolist(), strict=True):
        stream.drawn.append(token)
        stream.tokens.append(token)


def _batch(parts: Sequence[tuple[Stream, int]], page_size: int) -> Batch:
    starts, page_starts = [0], [0]
    tokens, positions, pages, sampled = list[int](), list[int](), list[int](), list[int]()
    for stream, rows in parts:
        length = stream.written + rows
        tokens += stream.tokens[stream.written : length]
        positions += range(stream.written, length)
        pages += stream.pages[: math.ceil(length / page_size)]
        starts.append(len(tokens))
        page_starts.append(len(pages))
        if length == len(stream.tokens):
            sampled.append(len(tokens) - 1)
    zeros = np.zeros(len(sampled), dtype=np.float32)
    return Batch(
        tokens=ints(tokens),
        positions=ints(positions),
        row_starts=ints(starts),
        pages=ints(pages),
        page_starts=ints(page_starts),
        lengths=ints([stream.written + rows for stream, rows in parts]),
        sampled_rows=ints(sampled),
        temperature=zeros,
        top_k=ints([0] * len(sampled)),
        top_p=floats([1.0] * len(sampled)),
        min_p=zeros,
        uniform=zeros,
    )
