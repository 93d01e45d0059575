"""Attention as phases of a step: who computes what, and what rows have seen, quantised.

As in `phases`, threads claim items one by one.
"""

from __future__ import annotations

from typing import Any

from .attention import attend_rows, attend_segment, combine, partial_bytes, segments
from .jit import compiled, staged
from .layout import GROUP
from .phases import claim
from .plan import floats_at, layers_at, longs_at, plan_at, tasks_at
from .rows import quantise


@compiled
def finish_heads(p: Any, row: int, own: int, group: int) -> None:
    """Quantise what the query heads of one KV head have seen, if that is whole groups."""
    if p.apart:
        return
    inputs = p.heads * p.head_dim
    width = group * p.head_dim
    seen, out = p.attended + (row * inputs + own * width) * 4, p.xq + row * p.attended_row
    quantise(p.form, seen, out, inputs, own * width // GROUP, width // GROUP)


@staged
def attend(thread: int, plan: int, index: int, phase: int) -> None:
    """An item is one KV head of a task; the result is quantised at once."""
    p = plan_at(plan, 1)[0]
    layer = layers_at(p.layer_records, p.layers)[index]
    tasks = tasks_at(p.tasks, p.task_count)
    group, scratch = p.heads // p.kv_heads, p.scratch + thread * p.scratch_bytes
    query, width = p.query_bytes, p.head_dim * 4
    while True:
        item = claim(p, phase)
        if item >= p.task_count * p.kv_heads:
            break
        task, own = tasks[item // p.kv_heads], item % p.kv_heads
        place = task.first_row * p.heads + own * group
        attend_rows(
            p.queries + place * query,
            p.attended + place * width,
            task.rows,
            p.heads,
            group,
            p.head_dim,
            task.limit,
            layer.window,
            p.masks + 8 * task.first_row,
            task.pages,
            p.pages + (index * p.kv_heads + own) * p.head_bytes,
            p.page_bytes,
            p.attention_cap,
            scratch,
            p.kv_form,
        )
        for row in range(task.first_row, task.first_row + task.rows):
            finish_heads(p, row, own, group)


@staged
def attend_parts(thread: int, plan: int, index: int, phase: int) -> None:
    """Long rows: an item is one segment of one KV head of a task of one row."""
    p = plan_at(plan, 1)[0]
    layer = layers_at(p.layer_records, p.layers)[index]
    tasks = tasks_at(p.tasks, p.task_count)
    masks = longs_at(p.masks, p.rows)
    group, scratch = p.heads // p.kv_heads, p.scratch + thread * p.scratch_bytes
    while True:
        item = claim(p, phase)
        if item >= p.task_count * p.kv_heads * p.split:
            break
        segment, rest = item % p.split, item // p.split
        task, own = tasks[rest // p.kv_heads], rest % p.kv_heads
        if segment >= segments(task.limit):
            continue
        place = task.first_row * p.heads + own * group
        attend_segment(
            p.queries + place * p.query_bytes,
            p.partials + place * p.split * partial_bytes(p.head_dim),
            group,
            p.head_dim,
            task.limit,
            layer.window,
            masks[task.first_row],
            task.pages,
            p.pages + (index * p.kv_heads + own) * p.head_bytes,
            p.page_bytes,
            p.attention_cap,
            segment,
            scratch,
            p.kv_form,
        )


@staged
def attend_joined(thread: int, plan: int, phase: int) -> None:
    """Join the segments of `attend_parts`: an item is one KV head of a task."""
    p = plan_at(plan, 1)[0]
    tasks, group = tasks_at(p.tasks, p.task_count), p.heads // p.kv_heads
    while True:
        item = claim(p, phase)
        if item >= p.task_count * p.kv_heads:
            break
        task, own = tasks[item // p.kv_heads], item % p.kv_heads
        place = task.first_row * p.heads + own * group
        partials = p.partials + place * p.split * partial_bytes(p.head_dim)
        out = p.attended + place * p.head_dim * 4
        combine(partials, out, group, p.head_dim, task.limit)
        finish_heads(p, task.first_row, own, group)


@staged
def join_heads(thread: int, plan: int) -> None:
    """For heads that are not quantised one by one: each row's, without what fills them up."""
    p = plan_at(plan, 1)[0]
    inputs, half = p.heads * p.head_size, p.head_size // 2
    for r in range(thread, p.rows, p.threads):
        address = p.attended + r * p.heads * p.head_dim * 4
        seen = floats_at(address, p.heads * p.head_dim)
        for part in range(2 * p.heads):
            source, target = part * (p.head_dim // 2), part * half
            for i in range(half):  # upwards: what is written has been read
                seen[target + i] = seen[source + i]
        quantise(p.form, address, p.xq + r * p.attended_row, inputs, 0, inputs // GROUP)
