"""One inferlet with many behaviours, to compare components with native runs."""

from __future__ import annotations

import inferlet
from inferlet import store
from inferlet.chat import compile_template


async def fork() -> str:
    parent = await inferlet.Context.create(await inferlet.get_model())
    await parent.fill("The quick brown fox jumps over the lazy dog")
    await parent.flush()
    children = [await parent.fork() for _ in range(4)]
    for index, child in enumerate(children):
        child.fill_tokens([index + 1])
    answers = await inferlet.gather(
        *(child.generate(max_tokens=5 + n, ignore_eos=True) for n, child in enumerate(children))
    )
    return " ".join(answer.text for answer in answers)


async def sleep() -> None:
    async def nap(seconds: float, name: str) -> None:
        await inferlet.sleep(seconds)
        await inferlet.print(name)

    await inferlet.gather(nap(0.3, "c"), nap(0.1, "a"), nap(0.2, "b"))


async def cancel() -> None:
    async def fails() -> None:
        await inferlet.sleep(0.01)
        raise inferlet.Failure("the first failure")

    await inferlet.gather(inferlet.sleep(1e6), inferlet.receive(), fails())


async def talk() -> str | None:
    subscription = await inferlet.subscribe("topic")
    await inferlet.broadcast("topic", "heard")
    await inferlet.send("sent")
    await store.set("key", str(await subscription.next()))
    await subscription.close()
    return await store.get("key")


async def masks() -> str:
    context = await inferlet.Context.create(await inferlet.get_model())
    await context.fill("0123456789" * 5)
    await context.flush()
    context.mask_tokens(4, 40)
    dropped = await context.drop_masked_pages()
    answer = await context.generate(sampler=inferlet.Greedy(), max_tokens=4, ignore_eos=True)
    ids, _ = await context.distribution(top_k=3)
    return f"{dropped} {answer.text} {ids}"


class Stepwise(inferlet.Context):
    """Its steps are its own: the engine cannot run ahead of them."""

    async def step(self, sampler: inferlet.Sampler) -> int:
        return await super().step(sampler)


async def generates(kind: type[inferlet.Context]) -> str:
    """Leaves streams early and late, stops at texts, and draws once more: all by chance."""
    sampler, seen = inferlet.Multinomial(2.0), list[object]()
    context = await kind.create(await inferlet.get_model())
    await context.fill("prompt")
    for pause in (0.0, 1.0):
        async for piece in context.stream(sampler=sampler, max_tokens=12):
            seen += [piece, context.pointers]
            await inferlet.sleep(pause)
            if len(context.tokens) % 4 == 0:
                break
        seen.append(await context.step(sampler))
    other = await kind.create(context.model)
    await other.fill("another")
    stop = inferlet.stop_text("a", "b") | inferlet.stop_tokens(b"xy", b"c")
    *both, long = await inferlet.gather(
        context.generate(sampler=sampler, max_tokens=100),
        other.generate(sampler=sampler, max_tokens=60, stop=stop),
        reads(await kind.create(context.model)),
    )
    seen += [(each.text, each.tokens, each.finish_reason) for each in both]
    seen += [await each.step(sampler) for each in (context, other, long)]
    return str(seen)


async def reads(context: inferlet.Context) -> inferlet.Context:
    """Wants many pages at once, while others draw."""
    await inferlet.sleep(3.1)
    await context.fill("x" * 159)
    await context.flush()
    return context


async def ahead() -> str:
    return await generates(inferlet.Context)


async def stepwise() -> str:
    return await generates(Stepwise)


async def breaks() -> None:
    raise KeyError("gone")


async def template() -> None:
    compile_template("{% bad %}")


async def main(args: list[str]) -> str | None:
    cases = (fork, sleep, cancel, talk, masks, breaks, template, ahead, stepwise)
    return await {each.__name__: each for each in cases}[args[0]]()
