"""Arguments out of range, of the calls that need no pass: each traps with the value and limit."""

from __future__ import annotations

from typing import Any

from .adapters import a_slot, upload
from .case import ADAPTER, PAGE, SLOT, Guest, case
from .forward import begin
from .resources import RESOURCE_TYPE_3


@case(traps=RESOURCE_TYPE_3.format("deallocate-resources"))
async def freeing_an_unknown_type_traps(guest: Guest) -> Any:
    """Contract G1."""
    await guest.do("deallocate-resources", await guest.queue(), 3, [])


@case(traps=RESOURCE_TYPE_3.format("export-resources"))
async def exporting_an_unknown_type_traps(guest: Guest) -> Any:
    """Contract G1."""
    await guest.do("export-resources", await guest.queue(), 3, [], "x")


@case(traps=RESOURCE_TYPE_3.format("import-resources"))
async def importing_an_unknown_type_traps(guest: Guest) -> Any:
    """Contract G1."""
    await guest.do("import-resources", await guest.queue(), 3, "x")


@case(traps=RESOURCE_TYPE_3.format("try-import"))
async def trying_to_import_an_unknown_type_traps(guest: Guest) -> Any:
    """Contract G1, X10."""
    await guest.do("try-import", await guest.queue(), 3, "x")


@case(traps=RESOURCE_TYPE_3.format("try-allocate"))
async def trying_to_allocate_an_unknown_type_traps(guest: Guest) -> Any:
    """Contract G1, X10."""
    await guest.do("try-allocate", await guest.queue(), 3, 1)


@case(traps="try-export: pointer 1 is not held by this instance (R1)")
async def trying_to_export_an_unknown_pointer_traps(guest: Guest) -> Any:
    """Contract R1, X10."""
    queue, pages = await begin(guest)
    await guest.do("try-export", queue, PAGE, [*pages, 1], "x")


@case(limits={"max_handles": 20}, traps="try-export: 21 pointers, the limit is 20")
async def trying_to_export_too_many_pointers_traps(guest: Guest) -> Any:
    """Contract R9, X10."""
    queue, pages = await begin(guest)
    await guest.do("try-export", queue, PAGE, pages * 21, "x")


@case(traps="share-pages: pointer 1 is not held by this instance (R1)")
async def sharing_an_unknown_pointer_traps(guest: Guest) -> Any:
    """Contract R1, X10."""
    queue, pages = await begin(guest)
    await guest.do("share-pages", queue, [*pages, 1])


@case(limits={"max_handles": 20}, traps="share-pages: 21 pointers, the limit is 20")
async def sharing_too_many_pointers_traps(guest: Guest) -> Any:
    """Contract R9, X10."""
    queue, pages = await begin(guest)
    await guest.do("share-pages", queue, pages * 21)


@case(
    limits={"max_pages": 3},
    traps="share-pages: 2 KV pages are held and 2 more asked, the limit is 3 (max_pages)",
)
async def sharing_beyond_the_limit_traps(guest: Guest) -> Any:
    """Contract R9, X10: a page counts as often as it is held."""
    queue, pages = await begin(guest, 2)
    await guest.do("share-pages", queue, pages)


@case(limits={"max_handles": 20}, traps="export-resources: 21 pointers, the limit is 20")
async def exporting_too_many_pointers_traps(guest: Guest) -> Any:
    """Contract R9."""
    queue, pages = await begin(guest)
    await guest.do("export-resources", queue, PAGE, pages * 21, "x")


@case(
    model={"embedding_slots": 4},
    traps="read-embeddings: 5 slots are more than the 4 of the model (X10)",
)
async def reading_more_slots_than_the_model_has_traps(guest: Guest) -> Any:
    """Contract X10: a slot may be listed twice, but not until memory is full."""
    queue = await guest.queue()
    slots = list(await guest.do("allocate-resources", queue, SLOT, 1))
    await guest.do("read-embeddings", queue, slots * 4)
    await guest.do("read-embeddings", queue, slots * 5)


@case(
    traps="allocate-resources: resource type 2 is not one of model 'second', which has "
    "0 (KV pages), 1 (embedding slots)"
)
async def adapter_slot_of_a_model_without_adapters_traps(guest: Guest) -> Any:
    """Contract G1, X8."""
    second = await guest.do("model.create-queue", await guest.do("get-model", "second"))
    await guest.do("allocate-resources", second, ADAPTER, 1)


@case(
    limits={"max_key_bytes": 4},
    traps="export-resources: a name of 5 bytes, the limit is 4",
)
async def long_name_of_an_export_traps(guest: Guest) -> Any:
    """Contract G1."""
    queue, pages = await begin(guest)
    await guest.do("export-resources", queue, PAGE, pages, "fives")


@case(limits={"max_blob_bytes": 9}, traps="blob: 10 bytes in all, the limit is 9")
async def blobs_beyond_the_limit_trap(guest: Guest) -> Any:
    """Contract G1: what was dropped does not count any more."""
    guest.drop(await guest.do("blob", b"12345"))
    kept = await guest.do("blob", b"12345")
    await guest.do("blob", b"12345")
    await guest.do("blob.size", kept)


@case(limits={"max_message_bytes": 4}, traps="set-return: 5 bytes, the limit is 4")
async def long_return_value_traps(guest: Guest) -> Any:
    """Contract X0, G1."""
    await guest.do("set-return", "12345")


@case(limits={"max_message_bytes": 4}, traps="broadcast: 5 bytes, the limit is 4")
async def long_broadcast_traps(guest: Guest) -> Any:
    """Contract X4, G1."""
    await guest.do("broadcast", "topic", "12345")


@case(limits={"max_subscriptions": 2}, traps="subscribe: 2 subscriptions are open, the limit")
async def more_subscriptions_than_the_limit_trap(guest: Guest) -> Any:
    """Contract X4, G1: those that ended do not count."""
    for _ in range(5):
        ended = await guest.do("subscribe", "topic")
        await guest.do("subscription.unsubscribe", ended)
        guest.drop(ended)
    kept = [await guest.do("subscribe", "topic") for _ in range(3)]
    await guest.do("subscription.get", kept[0])


@case(model={"pages": 4}, traps="kv-cache: 5 pages are more than the 4 of the model (K1)")
async def more_pages_than_the_model_has_trap(guest: Guest) -> Any:
    """Contract K1."""
    queue, pages = await begin(guest)
    built = await guest.do("create-forward-pass", queue)
    await guest.do("kv-cache", built, pages * 5, 1)


@case(traps="input-tokens: position 2147483648 is above 2147483647 (K3)")
async def position_beyond_the_models_numbers_traps(guest: Guest) -> Any:
    """Contract K3."""
    queue, _ = await begin(guest)
    built = await guest.do("create-forward-pass", queue)
    await guest.do("input-tokens", built, [65], [2**31 - 1])
    await guest.do("input-tokens", built, [65], [2**31])


@case(
    limits={"max_pass_outputs": 3},
    traps="output-tokens: 4 output slots in the pass, the limit is 3",
)
async def more_outputs_than_the_limit_trap(guest: Guest) -> Any:
    """Contract F3, G1."""
    queue, _ = await begin(guest)
    built = await guest.do("create-forward-pass", queue)
    await guest.do("output-tokens", built, [0, 0, 0], 0.0)
    await guest.do("output-tokens", built, [0], 0.0)


@case(traps="download-adapter: pointer 2 is not held by this instance (R1)")
async def download_of_an_unknown_slot_traps(guest: Guest) -> Any:
    """Contract R1."""
    await guest.do("download-adapter", await guest.queue(), 2, "name")


@case(traps="download-adapter: pointer 0 is not held by this instance (R1)")
async def download_of_a_freed_slot_traps(guest: Guest) -> Any:
    """Contract R1, R2."""
    queue = await guest.queue()
    slot = await a_slot(guest, queue)
    await upload(guest, queue, slot)
    await guest.do("deallocate-resources", queue, ADAPTER, [slot])
    await guest.do("download-adapter", queue, slot, "name")


async def _initialize(guest: Guest, *settings: Any) -> None:
    queue = await guest.queue()
    await guest.do("initialize-adapter", queue, await a_slot(guest, queue), *settings)


@case(traps="initialize-adapter: alpha inf is not finite (X8)")
async def adapter_with_an_infinite_alpha_traps(guest: Guest) -> Any:
    """Contract X8."""
    await _initialize(guest, 8, float("inf"), 2, 0.5, 0.1)


@case(traps="initialize-adapter: population-size 0 is not in 1..65536 (X8)")
async def adapter_without_a_population_traps(guest: Guest) -> Any:
    """Contract X8."""
    await _initialize(guest, 8, 16.0, 0, 0.5, 0.1)


@case(traps="initialize-adapter: mu-fraction 1.5 is not in (0, 1] (X8)")
async def adapter_with_more_parents_than_population_traps(guest: Guest) -> Any:
    """Contract X8."""
    await _initialize(guest, 8, 16.0, 2, 1.5, 0.1)


@case(traps="initialize-adapter: initial-sigma 0.0 is not > 0 (X8)")
async def adapter_without_noise_traps(guest: Guest) -> Any:
    """Contract X8."""
    await _initialize(guest, 8, 16.0, 2, 0.5, 0.0)


@case(traps="update-adapter: a score is not finite (X8)")
async def score_that_is_no_number_traps(guest: Guest) -> Any:
    """Contract X8."""
    queue = await guest.queue()
    slot = await a_slot(guest, queue)
    await guest.do("update-adapter", queue, slot, [float("nan")], [1], 0.1)


@case(traps="initialize-adapter: pointer 0 is not held by this instance (R1)")
async def initializing_an_unknown_slot_traps(guest: Guest) -> Any:
    """Contract R1."""
    await guest.do("initialize-adapter", await guest.queue(), 0, 8, 16.0, 2, 0.5, 0.1)
