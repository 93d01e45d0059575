"""Does what its first argument says, for the tests of the server."""

from __future__ import annotations

import inferlet
from inferlet import store


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


async def generate(words: list[str]) -> str:
    """Stream so many tokens, each as it comes."""
    context = await inferlet.Context.create(await inferlet.get_model())
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


MODES = {
    mode.__name__: mode
    for mode in (
        say,
        echo,
        mirror,
        count,
        write,
        signs,
        generate,
        fail,
        breaks,
        wait,
        spin,
        flood,
        remember,
    )
}


async def main(args: list[str]) -> str:
    return await MODES[args[0]](args[1:])
