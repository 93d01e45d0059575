"""One forward pass as one function that all threads run; seven barriers a layer.

One more where the heads of a row are normalised together, and one where what they have seen can
only be quantised together.
"""

from __future__ import annotations

from typing import Any

from .attending import attend, attend_joined, attend_parts, join_heads
from .jit import compiled, staged
from .outputs import answer, gather, keep, project_vocabulary
from .phases import (
    add_normalised,
    feed,
    narrow,
    normalise,
    product,
    read_inputs,
)
from .plan import layers_at, plan_at
from .projection import normalise_heads, project
from .threads import meet

PHASES = 6
"""Counters that a layer uses: for project, attend, two products, feed and joining."""


@compiled
def arrive(p: Any, met: int) -> int:
    """Wait for all threads; how many arrivals there have been then."""
    met += p.threads
    meet(p.sync, met)
    return met


@compiled
def begin_layer(thread: int, plan: int, index: int) -> None:
    """Normalise the input of a layer, which the same thread has written or added to."""
    p = plan_at(plan, 1)[0]
    if p.use_count > 0:
        narrow(thread, plan, index)
    normalise(thread, plan, layers_at(p.layer_records, p.layers)[index].attention_norm)


@compiled
def finish(thread: int, plan: int, met: int) -> int:
    """The outputs: the logits of `chunk` wanted rows at a time; what `arrive` said last."""
    p = plan_at(plan, 1)[0]
    phase = p.layers * PHASES
    wanted, chunk = p.wanted, p.chunk  # after the last barrier they may be the next step's
    keep(thread, plan)
    gather(thread, plan)
    met = arrive(p, met)
    for first in range(0, wanted, chunk):
        count = min(chunk, wanted - first)
        project_vocabulary(thread, plan, first, count, phase)
        met = arrive(p, met)
        if p.answered:
            answer(thread, plan, first, count, phase + 1)
        met = arrive(p, met)
        phase += 2
    return met


@staged
def run_step(thread: int, plan: int, met: int) -> int:
    """The whole step; every thread calls it, with its number and the arrivals so far.

    How many there have been at its end.
    """
    p = plan_at(plan, 1)[0]
    layers = layers_at(p.layer_records, p.layers)
    read_inputs(thread, plan)
    begin_layer(thread, plan, 0)
    met = arrive(p, met)
    for index in range(p.layers):
        layer, phase = layers[index], index * PHASES
        project(thread, plan, index, phase)
        met = arrive(p, met)
        if layer.q_row_norm != 0:
            normalise_heads(thread, plan, index)
            met = arrive(p, met)
        if p.split == 0:
            attend(thread, plan, index, phase + 1)
        else:
            attend_parts(thread, plan, index, phase + 1)
            met = arrive(p, met)
            attend_joined(thread, plan, phase + 5)
        met = arrive(p, met)
        if p.apart:
            join_heads(thread, plan)
            met = arrive(p, met)
        width, row, kind = p.heads * p.head_size, p.attended_row, layer.o_kind
        norm, bias = layer.attention_post_norm, layer.o_bias
        out = p.x if norm == 0 else p.y
        product(thread, plan, phase + 2, layer.o, kind, width, p.xq, row, bias, out, norm == 0)
        met = arrive(p, met)
        if norm != 0:
            add_normalised(thread, plan, norm)
        normalise(thread, plan, layer.ffn_norm)
        met = arrive(p, met)
        feed(thread, plan, index, phase + 3)
        met = arrive(p, met)
        row, kind = p.ffn_row, layer.down_kind
        norm, bias = layer.ffn_post_norm, layer.down_bias
        out = p.x if norm == 0 else p.y
        product(thread, plan, phase + 4, layer.down, kind, p.ffn, p.fq, row, bias, out, norm == 0)
        met = arrive(p, met)
        if norm != 0:
            add_normalised(thread, plan, norm)
        if index + 1 < p.layers:
            begin_layer(thread, plan, index + 1)
        met = arrive(p, met)
    return finish(thread, plan, met)
