"""`inferlet:core/forward`: each wrong argument or order traps with its rule and values."""

from __future__ import annotations

from typing import Any

from .case import PAGE, SLOT, Guest, case
from .forward import begin


@case(traps="input-tokens: 2 inputs but 1 positions (F1)")
async def tokens_without_positions_trap(guest: Guest) -> Any:
    """Contract F1, G2."""
    queue, _ = await begin(guest)
    await guest.do("input-tokens", await guest.do("create-forward-pass", queue), [1, 2], [0])


@case(traps="input-embeddings: 1 inputs but 0 positions (F1)")
async def embeddings_without_positions_trap(guest: Guest) -> Any:
    """Contract F1."""
    queue, _ = await begin(guest)
    await guest.do("input-embeddings", await guest.do("create-forward-pass", queue), [0], [])


@case(traps="input-tokens: token id 258 is not below the model's 258 (F1)")
async def unknown_token_id_traps(guest: Guest) -> Any:
    """Contract F1."""
    queue, _ = await begin(guest)
    await guest.do("input-tokens", await guest.do("create-forward-pass", queue), [258], [0])


@case(
    model={"context_length": 32},
    traps="input-tokens: max batch tokens exceeded: 33 inputs in the pass, the limit is 32",
)
async def pass_beyond_the_context_length_traps(guest: Guest) -> Any:
    """Contract F2."""
    queue, _ = await begin(guest)
    built = await guest.do("create-forward-pass", queue)
    await guest.do("input-tokens", built, [65] * 32, list(range(32)))
    await guest.do("input-tokens", built, [65], [32])


@case(traps="execute: a pass needs KV pages (K1)")
async def pass_without_pages_traps(guest: Guest) -> Any:
    """Contract K1, G2."""
    queue, _ = await begin(guest)
    built = await guest.do("create-forward-pass", queue)
    await guest.do("input-tokens", built, [65], [0])
    await guest.do("forward-pass.execute", built)


@case(traps="execute: a pass needs KV pages (K1)")
async def pass_with_no_pages_listed_traps(guest: Guest) -> Any:
    """Contract K1."""
    queue, _ = await begin(guest)
    built = await guest.do("create-forward-pass", queue)
    await guest.do("input-tokens", built, [65], [0])
    await guest.do("kv-cache", built, [], 1)
    await guest.do("forward-pass.execute", built)


@case(traps="execute: last-kv-page-len 0 is not in 1..16 (K1)")
async def last_page_without_tokens_traps(guest: Guest) -> Any:
    """Contract K1: L includes this pass's inputs."""
    queue, pages = await begin(guest, 2)
    built = await guest.a_pass(queue, [65], pages, 17)
    await guest.do("kv-cache", built, pages, 0)
    await guest.do("forward-pass.execute", built)


@case(traps="execute: last-kv-page-len 17 is not in 1..16 (K1)")
async def last_page_too_full_traps(guest: Guest) -> Any:
    """Contract K1."""
    queue, pages = await begin(guest)
    built = await guest.a_pass(queue, [65], pages, 1)
    await guest.do("kv-cache", built, pages, 17)
    await guest.do("forward-pass.execute", built)


@case(traps="execute: outputs are asked of a pass without inputs (K1)")
async def outputs_without_inputs_trap(guest: Guest) -> Any:
    """Contract K1."""
    queue, _ = await begin(guest)
    built = await guest.do("create-forward-pass", queue)
    await guest.do("output-tokens", built, [0], 0.0)
    await guest.do("forward-pass.execute", built)


@case(traps="execute: pointer 5 is not held by this instance (R1)")
async def unknown_page_traps(guest: Guest) -> Any:
    """Contract R1: `kv-cache` only notes it."""
    queue, _ = await begin(guest)
    await guest.do("forward-pass.execute", await guest.a_pass(queue, [65], [5], 1))


@case(traps="execute: pointer 0 is not held by this instance (R1)")
async def page_freed_before_execute_traps(guest: Guest) -> Any:
    """Contract R1."""
    queue, pages = await begin(guest)
    built = await guest.a_pass(queue, [65], pages, 1)
    await guest.do("deallocate-resources", queue, PAGE, pages)
    await guest.do("forward-pass.execute", built)


@case(traps="execute: page 0 is written and listed twice (K2)")
async def writing_a_page_listed_twice_traps(guest: Guest) -> Any:
    """Contract K2."""
    queue, (page,) = await begin(guest)
    built = await guest.a_pass(queue, [65], [page, page], 17)
    await guest.do("forward-pass.execute", built)


@case(traps="execute: pointer 4 is not held by this instance (R1)")
async def unknown_embedding_slot_traps(guest: Guest) -> Any:
    """Contract R1."""
    queue, pages = await begin(guest)
    await guest.do("allocate-resources", queue, SLOT, 1)
    built = await guest.do("create-forward-pass", queue)
    await guest.do("input-embeddings", built, [4], [0])
    await guest.do("kv-cache", built, pages, 1)
    await guest.do("forward-pass.execute", built)


@case(traps="output-embeddings: 1 slots but 2 indices (F4)")
async def slots_without_indices_trap(guest: Guest) -> Any:
    """Contract F4."""
    queue, pages = await begin(guest)
    built = await guest.a_pass(queue, [65], pages, 1)
    await guest.do("output-embeddings", built, [0], [0, 0])


@case(traps="execute: output index 1 of a pass with 1 inputs (F3)")
async def output_index_out_of_range_traps(guest: Guest) -> Any:
    """Contract F3, G2: found by `execute`, as inputs may still come."""
    queue, pages = await begin(guest)
    built = await guest.a_pass(queue, [65], pages, 1)
    await guest.do("output-tokens", built, [1], 0.0)
    await guest.do("forward-pass.execute", built)


@case(traps="execute: the mask has 1 rows, the pass 2 inputs (M1)")
async def mask_with_too_few_rows_traps(guest: Guest) -> Any:
    """Contract M1."""
    queue, pages = await begin(guest)
    built = await guest.a_pass(queue, [65, 66], pages, 2)
    await guest.do("attention-mask", built, [[1]])
    await guest.do("forward-pass.execute", built)


@case(traps="execute: this pass has been executed already (F5)")
async def second_execute_traps(guest: Guest) -> Any:
    """Contract F5."""
    queue, pages = await begin(guest)
    built = await guest.a_pass(queue, [65], pages, 1)
    await guest.do("forward-pass.execute", built)
    await guest.do("forward-pass.execute", built)


@case(traps="output-tokens: temperature -1.0 is not finite and >= 0 (S1)")
async def negative_temperature_traps(guest: Guest) -> Any:
    """Contract S1."""
    queue, _ = await begin(guest)
    await guest.do("output-tokens", await guest.do("create-forward-pass", queue), [0], -1.0)


@case(traps="output-distributions: temperature inf is not finite and >= 0 (S1)")
async def infinite_temperature_traps(guest: Guest) -> Any:
    """Contract S1."""
    queue, _ = await begin(guest)
    built = await guest.do("create-forward-pass", queue)
    await guest.do("output-distributions", built, [0], float("inf"), None)


@case(traps="output-tokens-top-k: temperature nan is not finite and >= 0 (S1)")
async def temperature_that_is_no_number_traps(guest: Guest) -> Any:
    """Contract S1."""
    queue, _ = await begin(guest)
    built = await guest.do("create-forward-pass", queue)
    await guest.do("output-tokens-top-k", built, [0], float("nan"), 1)


@case(traps="output-tokens-top-p: top-p nan is not finite (S1)")
async def top_p_that_is_no_number_traps(guest: Guest) -> Any:
    """Contract S1."""
    queue, _ = await begin(guest)
    built = await guest.do("create-forward-pass", queue)
    await guest.do("output-tokens-top-p", built, [0], 1.0, float("nan"))


@case(traps="output-tokens-min-p: min-p inf is not finite (S1)")
async def infinite_min_p_traps(guest: Guest) -> Any:
    """Contract S1."""
    queue, _ = await begin(guest)
    built = await guest.do("create-forward-pass", queue)
    await guest.do("output-tokens-min-p", built, [0], 1.0, float("inf"))


@case(traps="output-tokens-top-k-top-p: top-p -inf is not finite (S1)")
async def infinite_top_p_traps(guest: Guest) -> Any:
    """Contract S1."""
    queue, _ = await begin(guest)
    built = await guest.do("create-forward-pass", queue)
    await guest.do("output-tokens-top-k-top-p", built, [0], 1.0, 1, float("-inf"))


@case(
    limits={"max_dist_size": 4},
    traps="output-distributions: 5 entries asked, the limit is 4 (S2)",
)
async def distribution_beyond_the_limit_traps(guest: Guest) -> Any:
    """Contract S2."""
    queue, _ = await begin(guest)
    built = await guest.do("create-forward-pass", queue)
    await guest.do("output-distributions", built, [0], 1.0, 4)
    await guest.do("output-distributions", built, [0], 1.0, 5)
