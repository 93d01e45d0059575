"""Does what its first argument says, for the tests of the command line."""

from __future__ import annotations

import inferlet


async def echo(words: list[str]) -> str:
    """Send back what arrives until `quit`."""
    count = 0
    while (text := await inferlet.receive()) != "quit":
        await inferlet.send(f"echo {text}")
        count += 1
    return f"{count} messages"


async def say(words: list[str]) -> str:
    """Print the words as they are, and return the last one."""
    for word in words[:-1]:
        await inferlet.print(word, end="")
    return words[-1]


async def both(words: list[str]) -> str:
    """Write to everything."""
    await inferlet.print("to stdout")
    await inferlet.print("to stderr", error=True)
    await inferlet.send("a message")
    await inferlet.send_blob(b"\0blob")
    return "the value"


async def fail(words: list[str]) -> str:
    raise inferlet.Failure(" ".join(words))


async def wait(words: list[str]) -> str:
    """Say that it waits, and do so for ever."""
    await inferlet.print("waiting")
    return await inferlet.receive()


async def spin(words: list[str]) -> str:
    await inferlet.print("spinning")
    while True:
        pass


async def flood(words: list[str]) -> str:
    while True:
        await inferlet.print("x" * 4096)


async def generate(words: list[str]) -> str:
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.fill("hello world")
    generation = await context.generate(sampler=inferlet.Greedy(), stop=inferlet.max_tokens(5))
    return generation.text


MODES = {mode.__name__: mode for mode in (echo, say, both, fail, wait, spin, flood, generate)}


async def main(args: list[str]) -> str:
    if not args:
        raise inferlet.Failure(f"the first argument is one of {', '.join(MODES)}")
    return await MODES[args[0]](args[1:])
