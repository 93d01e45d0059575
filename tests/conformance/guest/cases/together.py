"""Parts of tests in which several instances meet: each says when it is ready and is told on."""

from __future__ import annotations

from typing import Any

from .case import PAGE, SLOT, Guest, case


async def step(guest: Guest, text: str) -> str:
    """Tell the client how far this part is, and wait until it says something."""
    await guest.do("send", text)
    result = await guest.do("receive")
    await guest.wait("receive-result", result)
    answer: str = await guest.do("receive-result.get", result)
    return answer


@case(alone=False)
async def exporter_of_two_pages(guest: Guest) -> Any:
    queue = await guest.queue()
    pages = list(await guest.do("allocate-resources", queue, PAGE, 4))
    await guest.fed(queue, list(range(65, 85)), pages, 20)
    await guest.do("export-resources", queue, PAGE, pages[:2], "a")
    await step(guest, "exported")
    return pages


@case(alone=False)
async def asker_for_many_pages(guest: Guest) -> Any:
    queue = await guest.queue()
    pages = list(await guest.do("allocate-resources", queue, PAGE, 3))
    await guest.do("deallocate-resources", queue, PAGE, [1])
    await step(guest, "has two")
    more = list(await guest.do("allocate-resources", queue, PAGE, 6))
    await guest.do("send", "has eight")
    return [pages, more]


@case(alone=False)
async def importer_that_releases(guest: Guest) -> Any:
    queue = await guest.queue()
    pages = list(await guest.do("import-resources", queue, PAGE, "a"))
    same = [await guest.fed(queue, [66], pages, 20)]
    await step(guest, "imported")
    await guest.do("release-exported-resources", queue, PAGE, "a")
    listed = list(await guest.do("get-all-exported-resources", queue, PAGE))
    await step(guest, "released")
    same.append(await guest.fed(queue, [66], pages, 20))
    return [pages, listed, same[0] == same[1], await guest.settled(queue)]


@case(alone=False)
async def asker_for_too_many_pages(guest: Guest) -> Any:
    queue = await guest.queue()
    await guest.do("allocate-resources", queue, PAGE, 2)
    await guest.do("allocate-resources", queue, PAGE, 7)


@case(alone=False)
async def user_with_traces(guest: Guest) -> Any:
    queue = await guest.queue()
    pages = list(await guest.do("allocate-resources", queue, PAGE, 2))
    slots = list(await guest.do("allocate-resources", queue, SLOT, 1))
    built = await guest.a_pass(queue, list(range(65, 90)), pages, 25)
    await guest.do("output-embeddings", built, slots, [24])
    await guest.do("forward-pass.execute", built)
    await guest.do("export-resources", queue, PAGE, pages[:1], "mine")
    await guest.do("store-set", "key", "secret")
    subscription = await guest.do("subscribe", "topic")
    await guest.do("deallocate-resources", queue, SLOT, slots)
    await guest.do("deallocate-resources", queue, PAGE, pages[1:])
    await step(guest, "ready")
    return [await guest.do("subscription.get", subscription), await guest.do("store-get", "key")]


@case(alone=False)
async def user_who_looks_around(guest: Guest) -> Any:
    queue = await guest.queue()
    slots = list(await guest.do("allocate-resources", queue, SLOT, 1))
    result = await guest.do("read-embeddings", queue, slots)
    await guest.wait("embedding-result", result)
    found = [await guest.do("embedding-result.get", result)]
    found.append(list(await guest.do("get-all-exported-resources", queue, PAGE)))
    found.append(await guest.do("try-import", queue, PAGE, "mine"))
    found += [await guest.do("store-get", "key"), list(await guest.do("store-list-keys"))]
    await guest.do("store-delete", "key")
    await guest.do("broadcast", "topic", "for nobody here")
    await guest.do("release-exported-resources", queue, PAGE, "mine")
    result = await guest.do("debug-query", "get_instance_count")
    await guest.wait("debug-query-result", result)
    return [*found, await guest.do("debug-query-result.get", result)]


@case(alone=False)
async def bystander(guest: Guest) -> Any:
    """Goes on for longer than it takes the others to go wrong."""
    queue = await guest.queue()
    (page,) = await guest.do("allocate-resources", queue, PAGE, 1)
    tops = [await guest.fed(queue, [65 + i], [page], i + 1) for i in range(16)]
    return tops[-1][0]


@case(alone=False)
async def keeper_of_a_key(guest: Guest) -> Any:
    before = await guest.do("store-get", "key")
    await guest.do("store-set", "key", "kept")
    return before
