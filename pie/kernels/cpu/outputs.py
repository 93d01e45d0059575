"""What a step gives back: kept hidden states, tokens, distributions."""

from __future__ import annotations

from .jit import staged
from .layout import BLOCK
from .matmul import gemm
from .phases import block_size, claim
from .plan import bytes_at, ints_at, longs_at, plan_at, requests_at
from .rows import norm, norm_quantise
from .sampling import draw, examine, rank

HEAD_BLOCKS = 16
"""Blocks of the vocabulary of an item of `project_vocabulary`."""


@staged
def keep(thread: int, plan: int) -> None:
    """The final hidden states of `stored_rows` [stored] to the addresses `stored_targets`."""
    p = plan_at(plan, 1)[0]
    rows, targets = ints_at(p.stored_rows, p.stored), longs_at(p.stored_targets, p.stored)
    for i in range(thread, p.stored, p.threads):
        norm(p.x + rows[i] * p.hidden * 4, p.final_norm, targets[i], p.hidden, p.epsilon)


@staged
def gather(thread: int, plan: int) -> None:
    """`hq`: the final hidden states of `wanted_rows` [wanted]."""
    p = plan_at(plan, 1)[0]
    rows = ints_at(p.wanted_rows, p.wanted)
    for i in range(thread, p.wanted, p.threads):
        x = p.x + rows[i] * p.hidden * 4
        norm_quantise(p.form, x, p.final_norm, p.hq + i * p.hidden_row, p.hidden, p.epsilon)


@staged
def project_vocabulary(thread: int, plan: int, first: int, count: int, phase: int) -> None:
    """`logits` [count, padded vocabulary] of the wanted rows from `first` on."""
    p = plan_at(plan, 1)[0]
    blocks = -(-p.vocabulary // BLOCK)
    size, rows = block_size(p.head_kind, p.hidden), p.hq + first * p.hidden_row
    while True:
        block = claim(p, phase) * HEAD_BLOCKS
        if block >= blocks:
            break
        gemm(
            p.head_kind,
            p.head + block * size,
            min(HEAD_BLOCKS, blocks - block),
            rows,
            p.hidden,
            count,
            p.logits + block * BLOCK * 4,
            blocks * BLOCK * 4,
            0,
        )


@staged
def answer(thread: int, plan: int, first: int, count: int, phase: int) -> None:
    """What was asked of `count` wanted rows from `first` on: an item is a row.

    `starts` int32 [wanted + 1] is the first of each row's requests.
    """
    p = plan_at(plan, 1)[0]
    starts = ints_at(p.starts, p.wanted + 1)
    requests = requests_at(p.requests, starts[p.wanted])
    finite, tokens = bytes_at(p.finite, p.sampled + p.ranked), ints_at(p.tokens_out, p.sampled)
    width = -(-p.vocabulary // BLOCK) * BLOCK * 4
    scratch = p.scratch + thread * p.scratch_bytes
    while True:
        item = claim(p, phase)
        if item >= count:
            break
        logits, row = p.logits + item * width, first + item
        good = examine(logits, p.vocabulary, p.final_cap)
        for i in range(starts[row], starts[row + 1]):
            r = requests[i]
            finite[r.output] = good
            if not good:
                continue
            if r.kind == 0:
                tokens[r.place] = draw(
                    logits,
                    p.vocabulary,
                    r.temperature,
                    r.top_k,
                    r.top_p,
                    r.min_p,
                    r.uniform,
                    scratch,
                )
            else:
                ids, probabilities = p.ids_out + 4 * r.place, p.probabilities_out + 4 * r.place
                rank(logits, p.vocabulary, r.temperature, r.top_k, ids, probabilities, scratch)
