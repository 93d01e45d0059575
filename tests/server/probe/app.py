"""Does what its first argument says, for the tests of the server."""

from __future__ import annotations

import inferlet
from inferlet import host, store
from inferlet.pages import Page


async def say(words: list[str]) -> str:
    """Write to everything."""
    await inferlet.print("to stdout")
    await inferlet.print("to stderr", error=True)
    await inferlet.send("a message")
    return " ".join(words)


async def echo(words: list[str]) -> str:
    """Send back what arrives until `quit`."""
    count = 0
    while (text := await inferlet.receive()) != "quit":
        await inferlet.send(f"echo {text}")
        count += 1
    return f"{count} messages"


async def mirror(words: list[str]) -> str:
    """Send back a blob, twice as long."""
    blob = await inferlet.receive_blob()
    await inferlet.send_blob(blob + blob)
    return str(len(blob))


async def count(words: list[str]) -> str:
    """Print so many numbers, a line each, and send every tenth."""
    last = int(words[0])
    for number in range(last):
        await inferlet.print(str(number))
        if number % 10 == 9:
            await inferlet.send(str(number))
    return str(last)


async def write(words: list[str]) -> str:
    """Print so many bytes of a line that can be recognised, then wait for a message."""
    size = int(words[0])
    line = "0123456789abcde\n"
    while size > 0:
        await inferlet.print(line * min(256, size // len(line) or 1), end="")
        size -= 4096
    return await inferlet.receive()


async def signs(words: list[str]) -> str:
    """Print characters of several bytes, a byte at a time as far as the host is concerned."""
    await inferlet.print("äöü€😀" * int(words[0]), end="")
    return "done"


async def lines(words: list[str]) -> str:
    """Print so many numbered lines of so many bytes."""
    count, size = map(int, words)
    for number in range(count):
        await inferlet.print(f"{number:08d}".ljust(size - 1, "."))
    return str(count)


async def messages(words: list[str]) -> str:
    """Send so many numbered messages of so many bytes; the store tells how far it has come."""
    count, size = map(int, words)
    for number in range(count):
        await inferlet.send(f"{number:08d}".ljust(size, "."))
        await store.set("messages", str(number + 1))
    return str(count)


async def blob(words: list[str]) -> str:
    """Send a blob of so many bytes once a message has come."""
    await inferlet.receive()
    await inferlet.send_blob(b"abc" * (int(words[0]) // 3))
    return "sent"


async def generate(words: list[str]) -> str:
    """Stream so many tokens, each as it comes; words: how many, a prompt, a model."""
    model = await inferlet.get_model(words[2] if len(words) > 2 else None)
    context = await inferlet.Context.create(model)
    await context.fill(words[1] if len(words) > 1 else "hello world")
    stream = context.stream(sampler=inferlet.Greedy(), max_tokens=int(words[0]), ignore_eos=True)
    async for piece in stream:
        await inferlet.send(piece)
    return (await stream.finish()).text


async def fail(words: list[str]) -> str:
    raise inferlet.Failure(" ".join(words))


async def breaks(words: list[str]) -> str:
    """Break a rule of the host."""
    return {"there": ""}["missing"]


async def wait(words: list[str]) -> str:
    """Say that it waits, and do so until a message comes."""
    await inferlet.send("waiting")
    return await inferlet.receive()


async def spin(words: list[str]) -> str:
    await inferlet.send("spinning")
    while True:
        pass


async def flood(words: list[str]) -> str:
    while True:
        await inferlet.print("x" * 4096)


async def remember(words: list[str]) -> str:
    """Set a key if there is a value, and give what it has."""
    if len(words) > 1:
        await store.set(words[0], words[1])
    return str(await store.get(words[0]))


async def tally(words: list[str]) -> str:
    """Count without end: each number is kept in the store and then said."""
    number = 0
    while True:
        await store.set(f"tally {number}", "kept")
        await inferlet.send(str(number))
        number += 1


async def tallied(words: list[str]) -> str:
    """How many numbers from 0 the store has of what `tally` has kept."""
    number = 0
    while await store.exists(f"tally {number}"):
        number += 1
    return str(number)


async def hold(words: list[str]) -> str:
    """Allocate so many KV pages, and keep them until a message comes."""
    model = await inferlet.get_model()
    await host.allocate(await host.create_queue(model.handle), host.KV_PAGE, int(words[0]))
    await inferlet.send("holding")
    return await inferlet.receive()


async def publish(words: list[str]) -> str:
    """Export the KV pages of a prompt under a name, and give how the model goes on."""
    name, prompt = words
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.fill(prompt)
    await context.flush()
    await host.export_resources(context.queue, host.KV_PAGE, context.pointers, name)
    await store.set(name, f"{len(context.tokens)} {context.tokens[-1]}")
    return await _continued(context)


async def resume(words: list[str]) -> str:
    """Import pages that `publish` has exported, and give how the model goes on.

    All that it knows beside them is how many tokens they hold, and the last of these.
    """
    context = await inferlet.Context.create(await inferlet.get_model())
    pages = await host.import_resources(context.queue, host.KV_PAGE, words[0])
    count, last = map(int, str(await store.get(words[0])).split())
    context.fill_tokens([0] * (count - 1) + [last])
    context._cache.pages = [Page(pointer) for pointer in pages]
    context._cache.written = count
    return await _continued(context)


async def _continued(context: inferlet.Context) -> str:
    sampler = inferlet.Greedy()
    generation = await context.generate(sampler=sampler, max_tokens=24, ignore_eos=True)
    return " ".join(map(str, generation.tokens))


MODES = {
    mode.__name__: mode
    for mode in (
        say,
        echo,
        mirror,
        count,
        write,
        signs,
        lines,
        messages,
        blob,
        generate,
        fail,
        breaks,
        wait,
        spin,
        flood,
        remember,
        tally,
        tallied,
        hold,
        publish,
        resume,
    )
}


async def main(args: list[str]) -> str:
    return await MODES[args[0]](args[1:])
