"""`inferlet:core/common`: pages and slots, exports and imports."""

from __future__ import annotations

from typing import Any

from .case import ADAPTER, PAGE, SLOT, Guest, case


@case(returns=[[0, 1, 2], [3], [0, 1], [0], [], [0], [0, 1]])
async def pointers_begin_at_zero_for_each_type_and_model(guest: Guest) -> Any:
    """Contract R1."""
    queue = await guest.queue()
    other = await guest.do("model.create-queue", await guest.do("get-model", "second"))
    wanted = [(queue, PAGE, 3), (queue, PAGE, 1), (queue, SLOT, 2), (queue, ADAPTER, 1)]
    wanted += [(queue, PAGE, 0), (other, PAGE, 1), (other, SLOT, 2)]
    return [list(await guest.do("allocate-resources", *each)) for each in wanted]


@case(model={"pages": 16, "embedding_slots": 4}, returns=[[0, 1], [2, 3, 4], [11], [], [0]])
async def spare_pages_are_what_nobody_will_miss(guest: Guest) -> Any:
    """Contract X10, R1: a quarter of what is free, and nothing of the last quarter of all."""
    queue = await guest.queue()
    seen = [list(await guest.do("try-allocate", queue, PAGE, count)) for count in (2, 9)]
    await guest.do("allocate-resources", queue, PAGE, 6)
    seen += [list(await guest.do("try-allocate", queue, PAGE, 9)) for _ in range(2)]
    return [*seen, list(await guest.do("try-allocate", queue, SLOT, 9))]


@case(limits={"max_pages": 3}, returns=[[], [1, 2], []])
async def spare_pages_keep_to_the_limit(guest: Guest) -> Any:
    """Contract X10: where `allocate-resources` would trap."""
    queue = await guest.queue()
    await guest.do("allocate-resources", queue, PAGE, 1)
    return [list(await guest.do("try-allocate", queue, PAGE, count)) for count in (0, 9, 9)]


@case(returns=[[1, 3], [4]])
async def pointers_freed_are_given_again_the_smallest_first(guest: Guest) -> Any:
    """Contract R1."""
    queue = await guest.queue()
    await guest.do("allocate-resources", queue, PAGE, 4)
    await guest.do("deallocate-resources", queue, PAGE, [3])
    await guest.do("deallocate-resources", queue, PAGE, [1])
    return [
        list(await guest.do("allocate-resources", queue, PAGE, 2)),
        list(await guest.do("allocate-resources", queue, PAGE, 1)),
    ]


@case(model={"pages": 8}, returns=True)
async def pages_are_freed_one_by_one_hundreds_in_a_row(guest: Guest) -> Any:
    """Contract R9, R2: what was freed is there again, though the pool is small."""
    queue = await guest.queue()
    for _ in range(100):
        pages = await guest.do("allocate-resources", queue, PAGE, 8)
        for page in pages:
            await guest.do("deallocate-resources", queue, PAGE, [page])
    return True


@case(returns=[True, True], model={"pages": 2})
async def pages_read_as_zeros_until_written(guest: Guest) -> Any:
    """Contract R3: unwritten slots of a page that was used before are those of a new one."""
    queue = await guest.queue()

    async def unwritten() -> list[int]:
        pages = await guest.do("allocate-resources", queue, PAGE, 2)
        tops = await guest.fed(queue, [66], pages, 20)
        for index in range(32):
            await guest.fed(queue, [65 + index], pages, index + 1)
        await guest.do("deallocate-resources", queue, PAGE, pages)
        return tops

    first = await unwritten()
    return [await unwritten() == first, await unwritten() == first]


@case(keeps=1, returns=[[], [["ab", 2], ["c", 1]], [["c", 1]], [1, 2], [4, 5]])
async def exports_are_listed_until_released(guest: Guest) -> Any:
    """Contract R6: the exporter keeps its handles, importers get new ones."""
    queue = await guest.queue()
    pages = await guest.do("allocate-resources", queue, PAGE, 4)
    seen = [list(await guest.do("get-all-exported-resources", queue, PAGE))]
    await guest.do("export-resources", queue, PAGE, pages[:2], "ab")
    await guest.do("export-resources", queue, PAGE, pages[2:3], "c")
    seen.append(sorted(map(list, await guest.do("get-all-exported-resources", queue, PAGE))))
    imported = await guest.do("import-resources", queue, PAGE, "ab")
    await guest.do("release-exported-resources", queue, PAGE, "ab")
    seen.append(list(map(list, await guest.do("get-all-exported-resources", queue, PAGE))))
    await guest.do("deallocate-resources", queue, PAGE, [pages[1], pages[2]])
    seen.append(list(await guest.do("allocate-resources", queue, PAGE, 2)))
    return [*seen, list(imported)]


@case(returns=[])
async def releasing_an_unknown_export_does_nothing(guest: Guest) -> Any:
    """Contract R6."""
    queue = await guest.queue()
    await guest.do("release-exported-resources", queue, PAGE, "nothing")
    return await guest.do("get-all-exported-resources", queue, PAGE)


@case(returns=[True, True, False], keeps=1)
async def writing_a_shared_page_makes_a_copy(guest: Guest) -> Any:
    """Contract R8: the exporter's own write, too; importers keep what they imported."""
    queue = await guest.queue()
    (mine,) = await guest.do("allocate-resources", queue, PAGE, 1)
    await guest.fed(queue, [65, 66, 67], [mine], 3)
    await guest.do("export-resources", queue, PAGE, [mine], "prefix")
    (theirs,) = await guest.do("import-resources", queue, PAGE, "prefix")
    before = await guest.fed(queue, [68], [theirs], 4)
    changed = await guest.fed(queue, [90, 90], [mine], 2)
    alone = await guest.fed(queue, [67], [mine], 3)
    (again,) = await guest.do("import-resources", queue, PAGE, "prefix")
    after = await guest.fed(queue, [68], [again], 4)
    same = await guest.fed(queue, [68], [theirs], 4)
    return [before == after, before == same, alone in (changed, before)]


@case(returns=[[0, 1], True, False])
async def pages_are_shared_until_they_are_written(guest: Guest) -> Any:
    """Contract R8, X10: nothing is awaited between the pass that fills a page and its sharing."""
    queue, other = await guest.queue(), await guest.queue()
    (mine,) = await guest.do("allocate-resources", queue, PAGE, 1)
    await guest.do("forward-pass.execute", await guest.a_pass(queue, [65, 66, 67], [mine], 3))
    (twin,) = await guest.do("share-pages", queue, [mine])
    first = await guest.fed(other, [68], [twin], 4)
    same = await guest.fed(queue, [68], [mine], 4)
    await guest.fed(queue, [90, 90], [mine], 2)
    differs = await guest.fed(queue, [68], [mine], 4)
    again = await guest.fed(other, [68], [twin], 4)
    return [[mine, twin], first == same == again, first == differs]


@case(returns=[True, [["later", 1]]], keeps=1)
async def export_becomes_visible_when_the_pages_are_written(guest: Guest) -> Any:
    """Contract R6, Q1: nothing is awaited between the pass, the export and the import."""
    queue, other = await guest.queue(), await guest.queue()
    written, plain = await guest.do("allocate-resources", queue, PAGE, 2)
    await guest.do("forward-pass.execute", await guest.a_pass(queue, [65] * 10, [written], 10))
    await guest.do("export-resources", queue, PAGE, [written], "later")
    (imported,) = await guest.do("import-resources", other, PAGE, "later")
    await guest.fed(queue, [65] * 10, [plain], 10)
    alone = await guest.fed(queue, [66], [plain], 11)
    listed = list(map(list, await guest.do("get-all-exported-resources", queue, PAGE)))
    return [await guest.fed(other, [66], [imported], 11) == alone, listed]


@case(traps="deallocate-resources: pointer 7 is not held by this instance (R1)")
async def freeing_an_unknown_pointer_traps(guest: Guest) -> Any:
    """Contract R1, R2, G1."""
    await guest.do("deallocate-resources", await guest.queue(), PAGE, [7])


@case(traps="deallocate-resources: pointer 0 is not held by this instance (R1)")
async def freeing_twice_traps(guest: Guest) -> Any:
    """Contract R2."""
    queue = await guest.queue()
    pages = await guest.do("allocate-resources", queue, PAGE, 2)
    await guest.do("deallocate-resources", queue, PAGE, pages)
    await guest.do("deallocate-resources", queue, PAGE, pages)


@case(traps="deallocate-resources: pointer 1 is listed twice (R2)")
async def freeing_a_pointer_listed_twice_traps(guest: Guest) -> Any:
    """Contract R2."""
    queue = await guest.queue()
    await guest.do("allocate-resources", queue, PAGE, 2)
    await guest.do("deallocate-resources", queue, PAGE, [1, 0, 1])


@case(traps="export-resources: pointer 9 is not held by this instance (R1)")
async def exporting_an_unknown_pointer_traps(guest: Guest) -> Any:
    """Contract R6, R1."""
    await guest.do("export-resources", await guest.queue(), PAGE, [9], "x")


@case(keeps=1, traps="export-resources: the name 'x' exists already (R6)")
async def exporting_under_an_existing_name_traps(guest: Guest) -> Any:
    """Contract R6."""
    queue = await guest.queue()
    pages = await guest.do("allocate-resources", queue, PAGE, 2)
    await guest.do("export-resources", queue, PAGE, pages[:1], "x")
    await guest.do("export-resources", queue, PAGE, pages[1:], "x")


@case(traps="import-resources: nothing is exported as 'nothing' (R6)")
async def importing_an_unknown_name_traps(guest: Guest) -> Any:
    """Contract R6, G1: never an empty list that looks like success."""
    await guest.do("import-resources", await guest.queue(), PAGE, "nothing")


HANDLES = "this guest may have at most 20 live resource handles (limits.max_handles)"
RESOURCE_TYPE_3 = (
    "{}: resource type 3 is not one of model 'simulated', which has 0 (KV pages), "
    "1 (embedding slots), 2 (adapter slots)"
)


@case(traps=RESOURCE_TYPE_3.format("allocate-resources"))
async def allocating_an_unknown_type_traps(guest: Guest) -> Any:
    """Contract G1."""
    await guest.do("allocate-resources", await guest.queue(), 3, 1)


@case(traps=RESOURCE_TYPE_3.format("get-all-exported-resources"))
async def listing_an_unknown_type_traps(guest: Guest) -> Any:
    """Contract G1."""
    await guest.do("get-all-exported-resources", await guest.queue(), 3)


@case(traps=RESOURCE_TYPE_3.format("release-exported-resources"))
async def releasing_an_unknown_type_traps(guest: Guest) -> Any:
    """Contract G1."""
    await guest.do("release-exported-resources", await guest.queue(), 3, "x")


@case(limits={"max_handles": 20}, traps=HANDLES)
async def more_handles_than_the_limit_trap(guest: Guest) -> Any:
    """Contract R9."""
    kept = [await guest.queue() for _ in range(20)]
    await guest.do("queue.get-service-id", kept[0])
