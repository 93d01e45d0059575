"""A forward pass in the making, and the checks that need the whole of it (contract G2)."""

from __future__ import annotations

from collections import Counter

import attrs

from pie.errors import GuestError
from pie.guest.instance import Instance
from pie.ids import Pointer, ResourceKind
from pie.messages import ForwardPass, Rank, Sample

from .handles import Queue
from .pointers import check_held


@attrs.define(eq=False)
class PassBuilder:
    """A forward pass in the making: plain lists, nothing is sent before `execute`."""

    queue: Queue
    inputs: list[int] = attrs.field(factory=list)
    """Token ids, and `-1 - pointer` for embedding slots."""
    positions: list[int] = attrs.field(factory=list)
    masks: list[list[int]] | None = None
    pages: list[Pointer] = attrs.field(factory=list)
    last_page_len: int = 0
    outputs: list[Sample | Rank] = attrs.field(factory=list)
    stored: list[tuple[int, Pointer]] = attrs.field(factory=list)
    adapter: Pointer | None = None
    noise_seed: int | None = None
    sampled: int = 0
    """Tokens asked for."""
    ranked: int = 0
    """Entries of distributions asked for."""
    furthest: int = -1
    """The greatest index of an output."""
    executed: bool = False


def freeze(instance: Instance, builder: PassBuilder, call: str = "execute") -> ForwardPass:
    """Validate the pass as a whole (contract G2) and make it immutable; frees the builder."""
    count = len(builder.inputs)
    length = _length(builder, count, call)
    _check_pages(builder, length, count, call)
    _check_embeddings(instance, builder, call)
    if builder.adapter is not None:
        held = instance.holdings(builder.queue.service, ResourceKind.ADAPTER)
        check_held(held, [builder.adapter], call)
    if builder.furthest >= count:
        raise GuestError(
            f"{call}: output index {builder.furthest} of a pass with {count} inputs (F3)"
        )
    work = ForwardPass(
        inputs=tuple(builder.inputs),
        positions=tuple(builder.positions),
        pages=tuple(builder.pages),
        length=length,
        masks=_masks(builder.masks, length, count, call),
        outputs=tuple(builder.outputs),
        stored=tuple(builder.stored),
        adapter=builder.adapter,
        noise_seed=builder.noise_seed,
    )
    builder.inputs, builder.positions, builder.pages = [], [], []
    builder.masks, builder.outputs, builder.stored = None, [], []
    return work


def _length(builder: PassBuilder, count: int, call: str) -> int:
    """The KV length after the pass (contract K1)."""
    size = builder.queue.service.info.page_size
    pages, last = len(builder.pages), builder.last_page_len
    if pages == 0:
        raise GuestError(f"{call}: a pass needs KV pages (K1)")
    if not 1 <= last <= size:
        raise GuestError(f"{call}: last-kv-page-len {last} is not in 1..{size} (K1)")
    length = (pages - 1) * size + last
    if length < count:
        raise GuestError(
            f"{call}: {pages} pages with last-kv-page-len {last} hold {length} tokens, "
            f"the pass has {count} inputs (K1)"
        )
    return length


def _check_pages(builder: PassBuilder, length: int, count: int, call: str) -> None:
    pages = builder.pages
    check_held(builder.queue.pages, pages, call)
    if len(pages) == 1 or len(set(pages)) == len(pages):
        return
    first = (length - count) // builder.queue.service.info.page_size
    listed = Counter(pages)
    for pointer in pages[first:]:
        if listed[pointer] > 1:
            raise GuestError(f"{call}: page {pointer} is written and listed twice (K2)")


def _check_embeddings(instance: Instance, builder: PassBuilder, call: str) -> None:
    used = [pointer for _, pointer in builder.stored] if builder.stored else []
    if min(builder.inputs) < 0:
        used += [Pointer(-1 - value) for value in builder.inputs if value < 0]
    if used:
        held = instance.holdings(builder.queue.service, ResourceKind.EMBEDDING)
        check_held(held, used, call)


def _masks(
    masks: list[list[int]] | None, length: int, count: int, call: str
) -> tuple[tuple[int, ...], ...] | None:
    """Check the rows (contract M1); rows that hide nothing become empty, for fast paths (M2)."""
    if masks is None:
        return None
    if len(masks) != count:
        raise GuestError(f"{call}: the mask has {len(masks)} rows, the pass {count} inputs (M1)")
    first = length - count + 1
    rows: list[tuple[int, ...]] = []
    for row, runs in enumerate(masks):
        if sum(runs) != first + row:
            raise GuestError(
                f"{call}: row {row} of the mask covers {sum(runs)} slots, "
                f"input {row} sees {first + row} (M1)"
            )
        rows.append(tuple(runs) if any(runs[1::2]) else ())
    return tuple(rows) if any(rows) else None
